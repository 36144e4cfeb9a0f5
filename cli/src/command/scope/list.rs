//! `coffer scope list`

use coffer_proto::{name::ScopePattern, v1::ListScopesRequest};

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::ScopeList,
};

/// List the scopes that you may read, and what you may do with them
#[derive(clap::Args)]
pub(crate) struct List {
    /// A pattern such as projects/-; otherwise all scopes
    #[arg(value_parser = ScopePattern::parse)]
    pattern: Option<ScopePattern>,
    #[command(flatten)]
    limit: Limit,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let pattern = self.pattern.map(|pattern| pattern.to_string()).unwrap_or_default();
        let (scopes, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListScopesRequest { pattern: pattern.clone(), page_size, page_token };
            let page = client.call(client.scopes().list_scopes(request)).await?;
            Ok((page.scopes, page.next_page_token))
        })
        .await?;
        session.show(&ScopeList::new(scopes, more))
    }
}
