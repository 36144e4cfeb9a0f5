//! `coffer secret get`

use coffer_proto::{name::SecretName, v1::GetSecretRequest};

use crate::{failure::Failure, print::Report, session::Session, view::SecretDetail};

/// Show a secret; the value only if it is plain
#[derive(clap::Args)]
pub(crate) struct Get {
    /// SCOPE/secrets/NAME
    #[arg(value_parser = SecretName::parse)]
    secret: SecretName,
}

impl Get {
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let request = GetSecretRequest { name: self.secret.to_string() };
        let secret = client.call(client.secrets().get_secret(request)).await?;
        session.show(&SecretDetail::new(secret))
    }
}
