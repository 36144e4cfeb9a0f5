//! `coffer secret clone`

use coffer_proto::{name::Scope, reason::Reason, v1::CloneSecretsRequest};

use super::sharing::SharingOptions;
use crate::{failure::Failure, print::Report, session::Session, view::Cloned};

/// Copy secrets into another scope, values included and never shown: all or none
#[derive(clap::Args)]
pub(crate) struct Clone {
    /// SCOPE/secrets/NAME, or SCOPE/secrets/- for all of a scope
    #[arg(required = true, value_name = "SECRET")]
    secrets: Vec<String>,
    /// The scope to copy into
    #[arg(value_name = "DESTINATION", value_parser = Scope::parse)]
    destination: Scope,
    /// Replace secrets of the same names there
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    sharing: SharingOptions,
}

impl Clone {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let destination = self.destination.to_string();
        let request = CloneSecretsRequest {
            names: self.secrets,
            destination: destination.clone(),
            replace: self.replace,
            sharing: self.sharing.chosen(&self.destination),
        };
        let client = session.connect().await?;
        let cloned = client.call(client.secrets().clone_secrets(request)).await.map_err(|error| {
            Failure::from(error).hint_if(Reason::SecretExists, "--replace replaces what exists there")
        })?;
        let missing = cloned.missing_references;
        let report = session.show(&Cloned::new(cloned.secrets, missing.clone()))?;
        Ok(match missing.as_slice() {
            [] => report,
            names => {
                report.note(format!("not in {}, and used by what was copied from: {}", destination, names.join(", ")))
            }
        })
    }
}
