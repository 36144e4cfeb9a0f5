//! `coffer instances`

use coffer_proto::{
    name::ResourcePattern,
    v1::{ListInstancesRequest, WatchInstancesRequest},
};

use crate::{
    command::Limit,
    failure::Failure,
    print::{self, Report},
    session::{Session, pages},
    view::{InstanceList, InstanceNews},
};

/// Which workloads were started, with what, and which must be restarted
///
/// A workload must be restarted if a start now would give it another environment than its newest start did.
#[derive(clap::Args)]
pub(crate) struct Instances {
    /// A scope, a pattern, or workloads in them: projects/-, projects/shop/servers/-, projects/shop/servers/web
    #[arg(value_parser = ResourcePattern::parse)]
    pattern: ResourcePattern,
    /// Only those that must be restarted
    #[arg(long, conflicts_with = "watch")]
    restart_required: bool,
    /// Go on and print what changes, one line each, until Ctrl-C
    #[arg(long, conflicts_with = "limit")]
    watch: bool,
    #[command(flatten)]
    limit: Limit,
}

impl Instances {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let parent = self.pattern.to_string();
        if self.watch {
            let mut instances = client.instances();
            let request = WatchInstancesRequest { parent };
            let mut news = client.call(instances.watch_instances(request)).await?;
            while let Some(message) = news.message().await.map_err(coffer_client::Error::from)? {
                print::data(&InstanceNews::new(message).lines(session.is_json())?)?;
            }
            return Err(Failure::unavailable("the server ended the watch"));
        }
        let (workloads, more) = pages(self.limit.limit, async |page_size, page_token| {
            let request = ListInstancesRequest {
                parent: parent.clone(),
                restart_required: self.restart_required,
                page_size,
                page_token,
            };
            let page = client.call(client.instances().list_instances(request)).await?;
            Ok((page.workloads, page.next_page_token))
        })
        .await?;
        session.show(&InstanceList::new(workloads, more))
    }
}
