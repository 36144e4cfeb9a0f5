//! `coffer token list`

use coffer_proto::v1::ListTokensRequest;

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::TokenList,
};

/// List the tokens that you could revoke; never the tokens themselves
#[derive(clap::Args)]
pub(crate) struct List {
    /// Only those of this principal
    #[arg(default_value = "", hide_default_value = true)]
    principal: String,
    #[command(flatten)]
    limit: Limit,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let (tokens, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListTokensRequest { principal: self.principal.clone(), page_size, page_token };
            let page = client.call(client.tokens().list_tokens(request)).await?;
            Ok((page.tokens, page.next_page_token))
        })
        .await?;
        session.show(&TokenList::new(tokens, more))
    }
}
