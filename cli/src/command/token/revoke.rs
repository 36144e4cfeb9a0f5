//! `coffer token revoke`

use coffer_proto::v1::RevokeTokenRequest;

use crate::{failure::Failure, print::Report, session::Session, view::Done};

/// Revoke a token, from the next call on; with a start token its session, too
#[derive(clap::Args)]
pub(crate) struct Revoke {
    /// tokens/ID, as `coffer token list` shows it; never the token itself
    token: String,
}

impl Revoke {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        if self.token.starts_with("cof_") {
            return Err(Failure::usage("name the token by tokens/ID, not by itself")
                .hint("a token on the command line is seen by every user of this machine: ID is what stands between its second and third `_`"));
        }
        let client = session.connect().await?;
        let request = RevokeTokenRequest { name: self.token.clone() };
        client.call(client.tokens().revoke_token(request)).await?;
        session.show(&Done { name: self.token, result: "revoked" })
    }
}
