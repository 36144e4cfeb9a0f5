//! `coffer environment describe`

use std::cell::RefCell;

use coffer_proto::v1::DescribeEnvironmentRequest;

use crate::{
    failure::Failure,
    print::Report,
    session::{Session, pages},
    view::Described,
};

/// Explain an environment: each variable's source, what it shadows and what a lock overrules
#[derive(clap::Args)]
pub(crate) struct Describe {
    /// A scope, or a workload: SCOPE/servers/ID, SCOPE/sandboxes/ID
    name: String,
}

impl Describe {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let revision = RefCell::new(None);
        let (entries, _) = pages(None, async |page_size, page_token| {
            let request = DescribeEnvironmentRequest { name: self.name.clone(), page_size, page_token };
            let page = client.call(client.secrets().describe_environment(request)).await?;
            // Pages of two environments put together would be none that ever was.
            let before = revision.replace(Some(page.environment_revision.clone()));
            if before.is_some_and(|before| before != page.environment_revision) {
                return Err(Failure::failed("the environment changed while it was read; try again"));
            }
            Ok((page.entries, page.next_page_token))
        })
        .await?;
        let revision = revision.into_inner().unwrap_or_default();
        session.show(&Described::new(self.name, entries, revision))
    }
}
