//! The snapshots that a store keeps of itself, and what is made of them.
//!
//! A snapshot is made of the one before it and the log since; sled has no part in it, so it is right even if sled is not.
//! With the log after it, it rebuilds sled, and restores any position since.

mod keeper;
mod merge;
mod overlay;
mod retention;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

pub(super) use self::{
    keeper::{Keeper, KeeperParts, needed},
    merge::Merge,
    overlay::{Overlay, Until},
    retention::Retention,
};
use super::{
    disk::{Disk, DiskFile},
    layout::{OpenError, create_directory},
};
use crate::store::{
    Epoch, Millis, NUMBER_MAX, Position, Revision, Snapshot,
    snapshot::{self, Header, Reader},
};

/// What a snapshot's name ends with.
const ENDING: &str = ".snapshot";
/// What the name of an unfinished one ends with.
const UNFINISHED: &str = ".snapshot.new";
/// Bytes written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A snapshot's file. What is known of it is its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) position: Position,
    pub(super) path: PathBuf,
}

/// Where the log was divided: everything up to here is in segments that are not written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) position: Position,
    /// Of the last frame before it.
    pub(super) time: Millis,
    /// Of the last frame before it.
    pub(super) chain: u32,
}

/// The snapshots in a directory, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<Kept>, OpenError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpenError::at(dir)(error)),
    };
    let mut kept = Vec::new();
    for entry in entries {
        let path = entry.map_err(OpenError::at(dir))?.path();
        if let Some(position) = path.file_name().and_then(|name| position(name.to_str()?)) {
            kept.push(Kept { position, path });
        }
    }
    kept.sort();
    Ok(kept)
}

/// Removes what an interrupted snapshot left.
pub(super) fn tidy(dir: &Path, disk: &dyn Disk) {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in names.filter(|path| path.to_string_lossy().ends_with(UNFINISHED)) {
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(%error, file = %path.display(), "an unfinished snapshot could not be removed");
        }
    }
}

fn position(name: &str) -> Option<Position> {
    let (epoch, revision) = name.strip_suffix(ENDING)?.split_once('-')?;
    let number = |text: &str| text.parse().ok().filter(|number| *number <= NUMBER_MAX);
    Some(Position { epoch: Epoch(number(epoch)?), revision: Revision(number(revision)?) })
}

/// The file of a snapshot.
pub(super) fn path(dir: &Path, position: Position) -> PathBuf {
    dir.join(format!("{:010}-{:020}{ENDING}", position.epoch.0, position.revision.0))
}

impl Kept {
    /// What its header and its end say; the records between are not read.
    pub(super) fn look(&self) -> Result<Snapshot, OpenError> {
        snapshot::look(&self.path).map_err(OpenError::of_snapshot(&self.path))
    }

    /// Reads it to its end.
    pub(super) fn examine(&self, instance: [u8; 16]) -> Result<Snapshot, OpenError> {
        let mut reader = self.open(Some(instance))?;
        while reader.frame().map_err(OpenError::of_snapshot(&self.path))?.is_some() {}
        self.look()
    }

    /// Opens it, if it is of this store and of the position that its name says.
    pub(super) fn open(&self, instance: Option<[u8; 16]>) -> Result<Reader<io::BufReader<fs::File>>, OpenError> {
        let reader = Reader::open(&self.path).map_err(OpenError::of_snapshot(&self.path))?;
        let header = reader.header();
        if header.position != self.position || instance.is_some_and(|instance| instance != header.instance) {
            return Err(OpenError::damaged(&self.path, "it is of another store or position"));
        }
        Ok(reader)
    }
}

/// Writes a snapshot under its name once it is whole and durable. `fill` gives it its records.
pub(super) fn write(
    dir: &Path,
    disk: &dyn Disk,
    header: Header,
    fill: impl FnOnce(&mut snapshot::Writer<io::BufWriter<Sequential>>) -> Result<(), OpenError>,
) -> Result<Snapshot, OpenError> {
    create_directory(dir)?;
    let name = path(dir, header.position);
    let unfinished = name.with_extension(UNFINISHED.trim_start_matches('.'));
    let _ = disk.remove(&unfinished);
    // Before anything is made: once it has its name, it must be made durable under it.
    let mut directory = disk.directory(dir).map_err(OpenError::at(dir))?;
    let written = (|| {
        let at = |error| OpenError::at(&unfinished)(error);
        let out = Sequential { file: disk.create(&unfinished).map_err(at)?, end: 0 };
        let at = |error| OpenError::at(&unfinished)(error);
        let mut writer = snapshot::Writer::new(io::BufWriter::with_capacity(BUFFER_BYTES, out), header).map_err(at)?;
        fill(&mut writer)?;
        let at = |error| OpenError::at(&unfinished)(error);
        let (out, snapshot) = writer.finish().map_err(at)?;
        let mut out = out.into_inner().map_err(|error| OpenError::at(&unfinished)(error.into_error()))?;
        out.file.sync().map_err(|error| OpenError::at(&unfinished)(error))?;
        disk.rename(&unfinished, &name).map_err(OpenError::at(&name))?;
        directory.sync().map_err(OpenError::at(dir))?;
        Ok(snapshot)
    })();
    if written.is_err() {
        let _ = disk.remove(&unfinished);
    }
    written
}

/// A file written from its beginning to its end.
#[derive(Debug)]
pub(super) struct Sequential {
    file: Box<dyn DiskFile>,
    end: u64,
}

impl Write for Sequential {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.end, bytes)?;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether somebody wants it to end; asked between frames.
pub(super) fn check(cancelled: &AtomicBool, path: &Path) -> Result<(), OpenError> {
    match cancelled.load(Ordering::Relaxed) {
        true => Err(OpenError::at(path)(io::Error::new(io::ErrorKind::Interrupted, "the store is closed"))),
        false => Ok(()),
    }
}
