//! `coffer token revoke`

use coffer_proto::v1::{ListTokensRequest, RevokeTokenRequest};

use crate::{
    command::prefix::Collection,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::Done,
};

const TOKENS: Collection = Collection { name: "tokens/", one: "token", id_chars: 22, list: "coffer token list" };

/// Revoke a token, from the next call on; with a start token its session, too
#[derive(clap::Args)]
pub(crate) struct Revoke {
    /// tokens/ID, as `coffer token list` shows it, or the first characters of its ID if no other begins so; never the token
    /// itself
    token: String,
}

impl Revoke {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        if self.token.starts_with("cof_") {
            return Err(Failure::usage("name the token by tokens/ID, not by itself")
                .hint("a token on the command line is seen by every user of this machine: ID is what stands between its second and third `_`"));
        }
        TOKENS.check(&self.token)?;
        let client = session.connect().await?;
        let name = match TOKENS.whole(&self.token) {
            Some(name) => name,
            None => {
                let (tokens, _) = pages(None, async |page_size, page_token| {
                    let request = ListTokensRequest { principal: String::new(), page_size, page_token };
                    let page = client.call(client.tokens().list_tokens(request)).await?;
                    Ok((page.tokens, page.next_page_token))
                })
                .await?;
                TOKENS.only(&self.token, tokens.iter().map(|token| token.name.as_str()))?.to_owned()
            }
        };
        let request = RevokeTokenRequest { name: name.clone() };
        client.call(client.tokens().revoke_token(request)).await?;
        session.show(&Done { name, result: "revoked" })
    }
}
