//! `coffer secret delete`

use coffer_proto::{name::SecretName, reason::Reason, v1::DeleteSecretRequest};

use crate::{failure::Failure, input::confirm::Confirm, print::Report, session::Session, view::Done};

/// Delete a secret for good
#[derive(clap::Args)]
pub(crate) struct Delete {
    /// SCOPE/secrets/NAME
    #[arg(value_parser = SecretName::parse)]
    secret: SecretName,
    /// Only if it has not changed since it had this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    /// Delete it although tools are registered that use it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirm: Confirm,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let name = self.secret.to_string();
        self.confirm.ask(&format!("Delete {name}?"), &[&name, self.secret.variable().as_str()])?;
        let client = session.connect().await?;
        let request = DeleteSecretRequest { name: name.clone(), etag: self.etag, force: self.force };
        client.call(client.secrets().delete_secret(request)).await.map_err(|error| {
            Failure::from(error)
                .hint_if(Reason::SecretReferenced, "change what uses it first, or delete it all the same with --force")
        })?;
        session.show(&Done { name, result: "deleted" })
    }
}
