//! `coffer secret update`

use coffer_proto::{
    name::SecretName,
    v1::{HostList, SecretKind, UpdateSecretRequest},
};

use super::sharing::SharingOptions;
use crate::{
    failure::Failure,
    input::value::{NoValue, Sources, to_wire},
    print::Report,
    session::Session,
    view::SecretDetail,
};

/// Change a secret; what is not given stays
///
/// With a pipe and no option, the new value is read from it. The name cannot be changed. A running workload keeps what it started with until its next start.
#[derive(clap::Args)]
pub(crate) struct Update {
    /// SCOPE/secrets/NAME
    #[arg(value_parser = SecretName::parse)]
    secret: SecretName,
    #[command(flatten)]
    no_value: NoValue,
    /// What it is for; empty removes it
    #[arg(long, short, value_name = "TEXT")]
    description: Option<String>,
    /// Never show the value again
    #[arg(long)]
    encrypt: bool,
    /// Let readers of the scope see the value; needs a new one
    #[arg(long, conflicts_with = "encrypt")]
    plain: bool,
    /// It wins over a secret of the same name below (organizations and projects)
    #[arg(long)]
    locked: bool,
    /// The nearest secret of a name wins
    #[arg(long, conflicts_with = "locked")]
    unlocked: bool,
    /// It may be cloned
    #[arg(long)]
    clonable: bool,
    /// It may not be cloned
    #[arg(long, conflicts_with = "clonable")]
    no_clone: bool,
    /// The whole new list of hosts that headers rendered with it may go to. Workloads receive the value regardless
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// The list of hosts is empty: any host
    #[arg(long, conflicts_with = "allow_host")]
    allow_any_host: bool,
    /// It may be rendered into text that a model reads
    #[arg(long)]
    allow_in_instructions: bool,
    /// It may not; the opposite of --allow-in-instructions
    #[arg(long, conflicts_with = "allow_in_instructions")]
    deny_in_instructions: bool,
    /// Only if it has not changed since it had this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    /// Ask for a new value, or read it from stdin if that is not a terminal; an empty one keeps what is there
    #[arg(long, conflicts_with_all = ["value_stdin", "value_file", "generate"], help_heading = "Value")]
    value: bool,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    sharing: SharingOptions,
}

/// Two options for two directions, and neither for no change.
fn choice(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}

/// Whether no option says what to change.
fn changes_nothing(request: &UpdateSecretRequest) -> bool {
    let UpdateSecretRequest { name, etag, .. } = request;
    *request == UpdateSecretRequest { name: name.clone(), etag: etag.clone(), ..Default::default() }
}

impl Update {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        self.no_value.check()?;
        let kind = match (self.encrypt, self.plain) {
            (true, _) => SecretKind::Encrypted,
            (false, true) => SecretKind::Plain,
            (false, false) => SecretKind::Unspecified,
        };
        let hosts = self.allow_any_host || !self.allow_host.is_empty();
        let mut request = UpdateSecretRequest {
            name: self.secret.to_string(),
            etag: self.etag,
            value: None,
            description: self.description,
            kind: kind.into(),
            sharing: self.sharing.chosen(self.secret.scope()),
            locked: choice(self.locked, self.unlocked),
            clonable: choice(self.clonable, self.no_clone),
            allowed_hosts: hosts.then_some(HostList { hosts: self.allow_host }),
            allow_in_instructions: choice(self.allow_in_instructions, self.deny_in_instructions),
        };
        let value = if self.value || self.sources.is_given() {
            self.sources.read_unless_empty(&format!("New value of {}: ", self.secret.variable()))?
        } else if changes_nothing(&request) {
            Sources::piped()?
        } else {
            None
        };
        request.value = value.as_ref().map(to_wire);
        let client = session.connect().await?;
        let updated = client.call(client.secrets().update_secret(request)).await?;
        session.show(&SecretDetail::new(updated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions() {
        assert_eq!(choice(true, false), Some(true));
        assert_eq!(choice(false, true), Some(false));
        assert_eq!(choice(false, false), None);
    }

    #[test]
    fn a_name_and_an_etag_change_nothing() {
        let request = UpdateSecretRequest { name: "n".into(), etag: "e".into(), ..Default::default() };
        assert!(changes_nothing(&request));
        assert!(!changes_nothing(&UpdateSecretRequest { description: Some(String::new()), ..request.clone() }));
        assert!(!changes_nothing(&UpdateSecretRequest { locked: Some(false), ..request }));
    }
}
