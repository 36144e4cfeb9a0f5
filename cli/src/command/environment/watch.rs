//! `coffer environment watch`

use coffer_client::{follow::Follow, retry::Policy};
use coffer_proto::name::Workload;

use crate::{
    failure::Failure,
    print::{self, Report},
    session::Session,
    view::EnvironmentChange,
};

/// Print a line whenever a workload's environment changes, until Ctrl-C
///
/// Needs secrets:inject, or the workload's own token. Names are printed, never values. Connects again by itself.
#[derive(clap::Args)]
pub(crate) struct Watch {
    /// SCOPE/servers/ID or SCOPE/sandboxes/ID; without it: the workload whose token this is
    #[arg(value_parser = Workload::parse)]
    workload: Option<Workload>,
    /// The environment revision that you have: prints nothing as long as it still is that
    #[arg(long, value_name = "REVISION", default_value = "", hide_default_value = true)]
    revision: String,
}

impl Watch {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let workload = self.workload.map(|workload| workload.to_string()).unwrap_or_default();
        let mut follow = Follow::new(client, &workload, &self.revision, Policy::default());
        loop {
            let change = EnvironmentChange::new(follow.next().await?);
            print::data(&change.line(session.is_json())?)?;
        }
    }
}
