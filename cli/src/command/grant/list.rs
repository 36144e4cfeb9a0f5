//! `coffer grant list`

use coffer_proto::v1::ListGrantsRequest;

use crate::{
    command::Limit,
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::GrantList,
};

/// List the grants that you could delete
#[derive(clap::Args)]
pub(crate) struct List {
    /// Only those on this pattern or covered by it
    #[arg(default_value = "", hide_default_value = true)]
    pattern: String,
    /// Only those of this principal
    #[arg(long, default_value = "", hide_default_value = true)]
    principal: String,
    #[command(flatten)]
    limit: Limit,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let (grants, more) = pages(self.limit.limit, async |page_size, page_token| {
            let (pattern, principal) = (self.pattern.clone(), self.principal.clone());
            let request = ListGrantsRequest { pattern, principal, page_size, page_token };
            let page = client.call(client.access().list_grants(request)).await?;
            Ok((page.grants, page.next_page_token))
        })
        .await?;
        session.show(&GrantList::new(grants, more))
    }
}
