//! `coffer reference list`

use coffer_proto::{name::ScopePattern, v1::ListReferencesRequest};

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::ReferenceList,
};

/// List the references of a scope, those of patterns that cover it among them
#[derive(clap::Args)]
pub(crate) struct List {
    /// A scope; or a pattern, for those that stand on the pattern itself
    #[arg(value_parser = ScopePattern::parse)]
    scope: ScopePattern,
    #[command(flatten)]
    limit: Limit,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let (references, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListReferencesRequest { parent: self.scope.to_string(), page_size, page_token };
            let page = client.call(client.references().list_references(request)).await?;
            Ok((page.references, page.next_page_token))
        })
        .await?;
        session.show(&ReferenceList::new(references, more))
    }
}
