//! `coffer store backup`

use std::path::PathBuf;

use coffer_proto::v1::{StreamBackupRequest, stream_backup_response::Part};

use crate::{
    failure::Failure,
    new_file::{self, NewFile, is_stdout},
    print::{self, Report, progress::Progress},
    session::Session,
    told_to_end::Signals,
    view::{SnapshotView, View as _},
};

/// Write a backup of the whole store into a file
///
/// Needs an operator's token. The backup is sealed as the store is: it opens with the same key source only, which must be
/// kept elsewhere. `coffer-server verify` checks it, `coffer-server restore` makes a store of it.
#[derive(clap::Args)]
pub(crate) struct Backup {
    /// The file, made for you alone; `-` is stdout
    file: PathBuf,
    /// Replace the file if it exists; nothing but a regular file is replaced
    #[arg(long, alias = "force")]
    replace: bool,
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
        let to_stdout = is_stdout(&self.file);
        if to_stdout && session.is_terminal() {
            return Err(Failure::usage("this would print a backup to a terminal").hint("name a file, or use a pipe"));
        }
        if !to_stdout {
            new_file::check(&self.file, &name, self.replace)?;
        }
        let client = session.connect().await?;
        let mut operations = client.operations();
        let mut parts = client.call(operations.stream_backup(StreamBackupRequest {})).await?;
        let first = parts.message().await.map_err(coffer_client::Error::from)?;
        let Some(Part::Snapshot(snapshot)) = first.and_then(|first| first.part) else {
            return Err(Failure::failed("the server's answer is no backup"));
        };
        let bytes = u64::try_from(snapshot.bytes).unwrap_or_default();
        let progress = Progress::bytes("backup", bytes);
        let mut file = (!to_stdout).then(|| NewFile::create(&self.file, name, self.replace)).transpose()?;
        let mut written = 0;
        while let Some(part) = parts.message().await.map_err(coffer_client::Error::from)? {
            let Some(Part::Chunk(chunk)) = part.part else {
                return Err(Failure::failed("the server's answer is no backup"));
            };
            match &mut file {
                Some(file) => file.write(&chunk)?,
                None => print::bytes(&chunk)?,
            }
            written += chunk.len() as u64;
            progress.at(written);
        }
        if written != bytes {
            return Err(Failure::failed(format!("the backup ended after {written} of {bytes} bytes")));
        }
        let Some(file) = file else {
            progress.clear();
            return Ok(Report::default().note(SnapshotView::from(snapshot).table(None).trim_end()));
        };
        file.finish()?;
        progress.clear();
        let report = session.show(&SnapshotView::from(snapshot))?;
        Ok(report.note(format!("backed up to {}", self.file.display())))
    }
}
