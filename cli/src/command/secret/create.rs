//! `coffer secret create`

use coffer_proto::{
    name::SecretName,
    reason::Reason,
    v1::{CreateSecretRequest, SecretKind},
};

use super::sharing::SharingOptions;
use crate::{
    failure::Failure,
    input::value::{NoValue, Sources, to_wire},
    print::Report,
    session::Session,
    view::SecretDetail,
};

/// Create a secret
///
/// Asks for the value without echo, or reads it from stdin if that is not a terminal. It cannot be given on the
/// command line. The new secret is encrypted unless --plain is given: its value is never shown again.
#[derive(clap::Args)]
pub(crate) struct Create {
    /// SCOPE/secrets/NAME; NAME becomes the environment variable
    #[arg(value_parser = SecretName::parse)]
    secret: SecretName,
    #[command(flatten)]
    no_value: NoValue,
    /// Readers of the scope may see the value
    #[arg(long)]
    plain: bool,
    /// What it is for
    #[arg(long, short, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// It wins over a secret of the same name below (organizations and projects)
    #[arg(long)]
    locked: bool,
    /// It may not be cloned
    #[arg(long)]
    no_clone: bool,
    /// Hosts that headers rendered with it may go to: HOST or *.DOMAIN, separated by commas or by repeating the option.
    /// Otherwise any. Workloads receive the value regardless
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allow_host: Vec<String>,
    /// It may be rendered into text that a model reads
    #[arg(long)]
    allow_in_instructions: bool,
    #[command(flatten)]
    value: Sources,
    #[command(flatten)]
    sharing: SharingOptions,
}

impl Create {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        self.no_value.check()?;
        let value = self.value.read(&format!("Value of {}: ", self.secret.variable()))?;
        let client = session.connect().await?;
        let request = CreateSecretRequest {
            parent: self.secret.scope().to_string(),
            secret_id: self.secret.variable().to_string(),
            value: to_wire(&value),
            kind: if self.plain { SecretKind::Plain } else { SecretKind::Encrypted }.into(),
            description: self.description,
            sharing: self.sharing.chosen(self.secret.scope()),
            locked: self.locked,
            clonable: Some(!self.no_clone),
            allowed_hosts: self.allow_host,
            allow_in_instructions: self.allow_in_instructions,
        };
        let created = client.call(client.secrets().create_secret(request)).await.map_err(|error| {
            let update = format!("to give it a new value: coffer secret set {}", self.secret);
            Failure::from(error).hint_if(Reason::SecretExists, update)
        })?;
        session.show(&SecretDetail::new(created))
    }
}
