//! `coffer environment watch`

use coffer_client::{
    follow::{Follow, News},
    retry::Policy,
};
use coffer_proto::name::Workload;

use crate::{
    failure::Failure,
    print::{self, Report},
    session::Session,
    view::EnvironmentChange,
};

/// Print a line whenever a workload's environment changes, until Ctrl-C
///
/// Needs secrets:inject, or the workload's own token. Names are printed, never values. Connects again by itself, and says
/// so where that takes long. Without --revision the first line is the environment as it is now.
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
        let mut is_now = self.revision.is_empty();
        loop {
            match follow.news().await? {
                News::Changed(change) => {
                    let change = EnvironmentChange::new(change);
                    print::data(&change.line(std::mem::take(&mut is_now), session.is_json())?)?;
                }
                News::Lost(error) => {
                    print::remark(&format!("warning: changes cannot be followed; trying again: {error}"));
                }
                News::Back => print::remark("changes are followed again"),
            }
        }
    }
}
