//! `coffer store status`

use coffer_proto::{reason::Reason, v1::GetStatusRequest};

use crate::{failure::Failure, print::Report, session::Session, view::StatusView};

/// How the server is: store, history, keys, audit log, process
///
/// Of several servers of one store the first that answers; --address with one of them asks that one. Needs an operator's
/// token. `coffer status` asks only whether they serve, and needs none.
#[derive(clap::Args)]
pub(crate) struct Status {
    /// End with exit code 1 if there is something to look at
    #[arg(long)]
    exit_code: bool,
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let status = client.call(client.operations().get_status(GetStatusRequest {})).await.map_err(|error| {
            Failure::from(error).hint_if(
                Reason::StoreUnavailable,
                "the server's log says why and since when; `coffer status` says whether workloads are still answered",
            )
        })?;
        let view = StatusView::new(client.server().to_string(), status);
        let report = session.show(&view)?;
        Ok(Report { negative: self.exit_code && !view.is_well(), ..report })
    }
}
