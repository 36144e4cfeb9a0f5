//! `coffer store backup`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use coffer_proto::v1::{StreamBackupRequest, stream_backup_response::Part};

use crate::{
    failure::Failure,
    print::{Report, progress::Progress},
    session::Session,
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
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        if !self.force && self.file.exists() {
            let failure = Failure::failed(format!("{}: it exists", self.file.display()));
            return Err(failure.hint("--force replaces it"));
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
        let mut file = Unfinished::create(&self.file)?;
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

/// A file that has its name only once it is whole.
struct Unfinished<'a> {
    path: &'a Path,
    part: PathBuf,
    file: Option<File>,
}

impl<'a> Unfinished<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // Left by one that was interrupted.
        let _ = fs::remove_file(&part);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.map_err(|error| Failure::failed(format!("{}: {error}", part.display())))?;
        Ok(Self { path, part, file: Some(file) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
        written.map_err(|error| self.failed(error))
    }

    /// The whole file is on the disk, and then has its name.
    fn finish(mut self) -> Result<(), Failure> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_all);
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let finished = synced
            .and_then(|()| fs::rename(&self.part, self.path))
            .and_then(|()| File::open(parent).and_then(|directory| directory.sync_all()));
        finished.map_err(|error| self.failed(error))?;
        self.file = None;
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::failed(format!("{}: {error}", self.part.display()))
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.part);
        }
    }
}
