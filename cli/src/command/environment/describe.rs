//! `coffer environment describe`

use coffer_proto::v1::DescribeEnvironmentRequest;

use crate::{failure::Failure, print::Report, session::Session, view::Described};

/// Explain an environment: each variable's source, what it shadows and what a lock overrules
#[derive(clap::Args)]
pub(crate) struct Describe {
    /// A scope, or a workload: SCOPE/servers/ID, SCOPE/sandboxes/ID
    name: String,
}

impl Describe {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let request = DescribeEnvironmentRequest { name: self.name.clone() };
        let environment = client.call(client.secrets().describe_environment(request)).await?;
        session.show(&Described::new(self.name, environment))
    }
}
