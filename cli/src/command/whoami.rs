//! `coffer whoami`

use coffer_proto::v1::ListTokensRequest;

use crate::{failure::Failure, print::Report, session::Session, view::Caller};

/// Say whose token this is, and until when it is valid
#[derive(clap::Args)]
pub(crate) struct Whoami;

impl Whoami {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let (_, credential) = session.credential()?;
        let name = format!("tokens/{}", credential.token()?.id());
        let client = session.connect().await?;
        let mut page_token = String::new();
        loop {
            let request = ListTokensRequest { page_size: 200, page_token, ..Default::default() };
            let page = client.call(client.tokens().list_tokens(request)).await?;
            if let Some(token) = page.tokens.into_iter().find(|token| token.name == name) {
                return session.show(&Caller::from(token));
            }
            if page.next_page_token.is_empty() {
                return Err(Failure::not_found(format!("the server does not list {name}")));
            }
            page_token = page.next_page_token;
        }
    }
}
