//! `coffer access list`

use coffer_proto::{name::Scope, v1::ListEffectiveAccessRequest};

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::EffectiveList,
};

/// List who can do what on a scope, and why
#[derive(clap::Args)]
pub(crate) struct List {
    /// The scope
    #[arg(value_parser = Scope::parse)]
    scope: Scope,
    #[command(flatten)]
    limit: Limit,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let (entries, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListEffectiveAccessRequest { scope: self.scope.to_string(), page_size, page_token };
            let page = client.call(client.access().list_effective_access(request)).await?;
            Ok((page.entries, page.next_page_token))
        })
        .await?;
        session.show(&EffectiveList::new(self.scope.to_string(), entries, more))
    }
}
