//! `coffer snapshot`: the snapshots that the server keeps, for operators.

use clap::Subcommand;
use coffer_proto::v1::{CreateSnapshotRequest, ListSnapshotsRequest};

use crate::{
    failure::Failure,
    print::{Report, progress::Progress},
    session::Session,
    view::{SnapshotList, SnapshotView},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Write a snapshot now; the server also does by itself
    Create,
    /// List the snapshots that the server keeps
    List,
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let client = session.connect().await?;
        let mut operations = client.operations();
        match self {
            Command::Create => {
                let progress = Progress::waiting("snapshot");
                let mut made = client.call(operations.create_snapshot(CreateSnapshotRequest {})).await?;
                let made = made.message().await.map_err(coffer_client::Error::from)?;
                progress.clear();
                let snapshot = made.and_then(|made| made.snapshot);
                let snapshot = snapshot.ok_or_else(|| Failure::failed("the server's answer is no snapshot"))?;
                session.show(&SnapshotView::from(snapshot))
            }
            Command::List => {
                let kept = client.call(operations.list_snapshots(ListSnapshotsRequest {})).await?;
                session.show(&SnapshotList::new(kept.snapshots))
            }
        }
    }
}
