//! `coffer secret set`

use coffer_proto::{
    name::SecretName,
    v1::{ImportEntry, ImportSecretsRequest, SecretKind, import_result::Action, import_secrets_request::Conflict},
};

use super::sharing::SharingOptions;
use crate::{
    failure::Failure,
    input::{
        import::RESERVED,
        value::{NoValue, Sources, to_wire},
    },
    print::Report,
    session::Session,
    view::Done,
};

/// Create a secret, or give it a new value if it exists
///
/// Asks for the value without echo, or reads it from stdin if that is not a terminal. It cannot be given on the
/// command line. What else is set of a secret that exists stays as it is, unless it is given here.
#[derive(clap::Args)]
pub(crate) struct Set {
    /// SCOPE/secrets/NAME; NAME becomes the environment variable
    #[arg(value_parser = SecretName::parse)]
    secret: SecretName,
    #[command(flatten)]
    no_value: NoValue,
    /// Readers of the scope may see the value
    #[arg(long)]
    plain: bool,
    /// What it is for
    #[arg(long, short, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    value: Sources,
    #[command(flatten)]
    sharing: SharingOptions,
}

impl Set {
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        self.no_value.check()?;
        if self.secret.variable().is_reserved() {
            return Err(Failure::usage(format!("{}: {RESERVED}", self.secret.variable())).hint("choose another name"));
        }
        let value = self.value.read(&format!("Value of {}: ", self.secret.variable()))?;
        let entry = ImportEntry {
            secret_id: self.secret.variable().to_string(),
            value: to_wire(&value),
            kind: if self.plain { SecretKind::Plain } else { SecretKind::Unspecified }.into(),
            description: self.description,
        };
        let request = ImportSecretsRequest {
            parent: self.secret.scope().to_string(),
            entries: vec![entry],
            conflict: Conflict::Replace.into(),
            validate_only: false,
            sharing: self.sharing.chosen(self.secret.scope()),
        };
        let client = session.connect().await?;
        let done = client.call(client.imports().import_secrets(request)).await?;
        let result = match done.results.first().map(|result| result.action()) {
            Some(Action::Created) => "created",
            Some(Action::Replaced) => "replaced",
            _ => return Err(Failure::failed("the server does not say what it did")),
        };
        session.show(&Done { name: self.secret.to_string(), result })
    }
}
