//! `coffer manifest list`

use coffer_proto::{name::ScopePattern, v1::ListManifestsRequest};

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::ManifestList,
};

/// List the manifests of a scope, those of patterns that cover it among them
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
        let (manifests, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListManifestsRequest { parent: self.scope.to_string(), page_size, page_token };
            let page = client.call(client.manifests().list_manifests(request)).await?;
            Ok((page.manifests, page.next_page_token))
        })
        .await?;
        session.show(&ManifestList::new(manifests, more))
    }
}
