//! `coffer secret delete`

use coffer_proto::{name::SecretName, v1::DeleteSecretRequest};

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
    #[command(flatten)]
    confirm: Confirm,
}

impl Delete {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let name = self.secret.to_string();
        self.confirm.ask(&format!("Delete {name}?"), &[&name, self.secret.variable().as_str()])?;
        let client = session.connect().await?;
        let request = DeleteSecretRequest { name: name.clone(), etag: self.etag };
        client.call(client.secrets().delete_secret(request)).await?;
        session.show(&Done { name, result: "deleted" })
    }
}
