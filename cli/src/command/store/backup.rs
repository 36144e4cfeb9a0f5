//! `coffer store backup`

use std::path::PathBuf;

use coffer_proto::v1::{StreamBackupRequest, stream_backup_response::Part};

use crate::{
    failure::Failure,
    new_file::{self, NewFile},
    print::{Report, progress::Progress},
    session::Session,
    told_to_end::Signals,
    view::SnapshotView,
};

/// Write a backup of the whole store into a file
///
/// Needs an operator's token. The backup is sealed as the store is: it opens with the same key source only, which must be
/// kept elsewhere. `coffer-server verify` checks it, `coffer-server restore` makes a store of it.
#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The file, made for you alone
    file: PathBuf,
    /// Replace the file if it exists; nothing but a regular file is replaced
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let mut signals = Signals::catch()?;
        tokio::select! {
            // Whoever is told to end leaves no part of a file behind.
            () = signals.told() => Err(Failure::failed("told to end: there is no backup")),
            done = self.write(session) => done,
        }
    }

    async fn write(&self, session: &Session) -> Result<Report, Failure> {
        let name = self.file.display().to_string();
        new_file::check(&self.file, &name, self.force)?;
        let client = session.connect().await?;
        let mut operations = client.operations();
        let mut parts = client.call(operations.stream_backup(StreamBackupRequest {})).await?;
        let first = parts.message().await.map_err(coffer_client::Error::from)?;
        let Some(Part::Snapshot(snapshot)) = first.and_then(|first| first.part) else {
            return Err(Failure::failed("the server's answer is no backup"));
        };
        let bytes = u64::try_from(snapshot.bytes).unwrap_or_default();
        let progress = Progress::bytes("backup", bytes);
        let mut file = NewFile::create(&self.file, name, self.force)?;
        let mut written = 0;
        while let Some(part) = parts.message().await.map_err(coffer_client::Error::from)? {
            let Some(Part::Chunk(chunk)) = part.part else {
                return Err(Failure::failed("the server's answer is no backup"));
            };
            file.write(&chunk)?;
            written += chunk.len() as u64;
            progress.at(written);
        }
        if written != bytes {
            return Err(Failure::failed(format!("the backup ended after {written} of {bytes} bytes")));
        }
        file.finish()?;
        progress.clear();
        let report = session.show(&SnapshotView::from(snapshot))?;
        Ok(report.note(format!("backed up to {}", self.file.display())))
    }
}
