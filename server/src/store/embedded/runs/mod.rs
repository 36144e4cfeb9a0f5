//! The history that a server keeps of a store elsewhere: a directory of runs, each of which has no gap.
//!
//! ```text
//! HISTORY/lock               locked while a process records here
//! HISTORY/1.4711/            a run that begins at this position; later ones begin where it ends, or after a gap
//! HISTORY/unfinished/        a run that is being made, or removed
//! ```
//! A run is a directory as an embedded store has it, without sled: one snapshot of where it begins, then the log, and
//! snapshots of later positions. It has the other store's instance, epoch, revisions and times, so that it is restored and
//! verified as a store is.

mod keep;
mod pick;
mod run;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    Ground, Options, acknowledged, condition,
    disk::Disk,
    layout::{Layout, Lock, OpenError, create_directory},
    log::segment::{self, Origin},
    snapshots,
    space::{Passing, Space},
};
use crate::store::{Epoch, Error, Millis, NUMBER_MAX, Position, Record, Revision, Snapshot, snapshot::Header};

pub(super) use pick::pick;
pub(in crate::store) use run::{Run, Unrecorded};

/// The name of what is not a run yet, or no longer.
const UNFINISHED: &str = "unfinished";

/// A directory of runs in which this process records, and nobody else.
pub(in crate::store) struct Runs {
    dir: PathBuf,
    options: Options,
    ground: Ground,
    #[expect(dead_code, reason = "held: nobody else records here")]
    lock: Lock,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Begin {
    /// The store's.
    pub(in crate::store) instance: [u8; 16],
    pub(in crate::store) position: Position,
    /// When that was made.
    pub(in crate::store) time: Millis,
}

/// Why a run was not begun. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum BeginError {
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// The records cannot be had.
    #[error(transparent)]
    Source(Error),
}

/// A run's directory. What is known of it is its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Listed {
    /// Where it begins.
    pub(in crate::store) position: Position,
    pub(in crate::store) path: PathBuf,
}

/// The directories of the runs in a history, oldest first; none if the directory is no history.
pub fn runs_in(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    // A store is none, whatever else lies in its directory.
    if Layout::new(dir.into()).format().exists() {
        return Ok(Vec::new());
    }
    Ok(list(dir)?.into_iter().map(|run| run.path).collect())
}

/// How far a store was recorded in a directory, whoever has that open: by its runs' names, and what stands beside their logs.
pub(in crate::store) fn recorded_to(dir: &Path, instance: [u8; 16]) -> Result<Option<Position>, OpenError> {
    let runs = match list(dir) {
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        runs => runs?,
    };
    let of_it = runs.iter().filter(|run| Runs::instance(run) == Some(instance));
    let end = |run: &Listed| {
        let acknowledged = acknowledged::read(&Layout::new(run.path.clone()), instance);
        acknowledged.map_or(run.position, |end| end.max(run.position))
    };
    Ok(of_it.map(end).max())
}

/// The runs in a directory, oldest first.
fn list(dir: &Path) -> Result<Vec<Listed>, OpenError> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::at(dir))? {
        let path = entry.map_err(OpenError::at(dir))?.path();
        if let Some(position) = path.file_name().and_then(|name| position(name.to_str()?)) {
            runs.push(Listed { position, path });
        }
    }
    runs.sort();
    Ok(runs)
}

fn position(name: &str) -> Option<Position> {
    let (epoch, revision) = name.split_once('.')?;
    let number = |text: &str| text.parse().ok().filter(|number| *number <= NUMBER_MAX);
    let position = Position { epoch: Epoch(number(epoch)?), revision: Revision(number(revision)?) };
    // Not `+1.007`.
    (position.to_string() == name).then_some(position)
}

/// Whoever else may write there may make a history up: its logs have checksums, and no proof of who wrote them.
fn check_owner(dir: &Path) -> Result<(), OpenError> {
    let metadata = fs::metadata(dir).map_err(OpenError::at(dir))?;
    let is_own = [rustix::process::geteuid().as_raw(), 0].contains(&metadata.uid());
    // A volume of Kubernetes is its group's (fsGroup), which is that of the server alone.
    let is_own_group = metadata.gid() == rustix::process::getegid().as_raw();
    let others = if is_own_group { 0o002 } else { 0o022 };
    if is_own && metadata.mode() & others == 0 {
        return Ok(());
    }
    let why = "others can write to it: chmod go-w it, or give a directory of this server's own";
    Err(OpenError::at(dir)(io::Error::new(io::ErrorKind::PermissionDenied, why)))
}

impl Runs {
    /// Opens the history in a directory, which is created if it is not there.
    pub(in crate::store) fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_on(dir, options, Ground::default())
    }

    pub(super) fn open_on(dir: &Path, options: Options, ground: Ground) -> Result<Self, OpenError> {
        create_directory(dir)?;
        check_owner(dir)?;
        let layout = Layout::new(dir.into());
        if layout.format().exists() {
            return Err(OpenError::Exists(dir.into()));
        }
        let runs = Self { dir: dir.into(), options, ground, lock: layout.lock()? };
        runs.tidy()?;
        Ok(runs)
    }

    /// All runs, oldest first.
    pub(in crate::store) fn list(&self) -> Result<Vec<Listed>, OpenError> {
        list(&self.dir)
    }

    /// The store of which a run is, if that can be read.
    pub(in crate::store) fn instance(run: &Listed) -> Option<[u8; 16]> {
        Layout::new(run.path.clone()).instance().ok()
    }

    /// Opens a run to record on.
    pub(in crate::store) fn run(&self, listed: &Listed) -> Result<Run, OpenError> {
        Run::open(listed.path.clone(), self.options, self.ground.clone())
    }

    /// Begins a run with the records that there are at its position, which `page` gives in the order of their keys.
    pub(in crate::store) fn begin(
        &self,
        begin: Begin,
        page: &mut dyn FnMut() -> Result<Option<Vec<Record>>, Error>,
    ) -> Result<Run, BeginError> {
        let listed = Listed { position: begin.position, path: self.dir.join(begin.position.to_string()) };
        if listed.path.exists() {
            return Err(OpenError::Exists(listed.path).into());
        }
        // A removal may have failed half way.
        self.tidy()?;
        let disk = &*self.ground.disk;
        let unfinished = self.dir.join(UNFINISHED);
        // Before anything is made: once it has its name, it must be made durable under it.
        let mut directory = disk.directory(&self.dir).map_err(OpenError::at(&self.dir))?;
        let mut missing = None;
        let made = self.make(&Layout::new(unfinished.clone()), begin, disk, &mut || {
            page().map_err(|error| {
                let source = io::Error::other(error.to_string());
                missing = Some(error);
                OpenError::Io { path: unfinished.clone(), source }
            })
        });
        match missing {
            Some(error) => return Err(BeginError::Source(error)),
            None => made?,
        }
        disk.rename(&unfinished, &listed.path).map_err(OpenError::at(&unfinished))?;
        directory.sync().map_err(OpenError::at(&self.dir))?;
        Ok(self.run(&listed)?)
    }

    fn make(
        &self,
        layout: &Layout,
        Begin { instance, position, time }: Begin,
        disk: &dyn Disk,
        page: &mut dyn FnMut() -> Result<Option<Vec<Record>>, OpenError>,
    ) -> Result<(), OpenError> {
        let first = Revision(position.revision.0 + 1);
        let log = segment::Header { origin: Origin::Recorded, instance, epoch: position.epoch, first, time, chain: 0 };
        let dir = layout.snapshots();
        let space = Space::new(Arc::clone(&self.ground.disk), layout.dir(), &self.options);
        let fill = || {
            snapshots::write(&dir, disk, Header { instance, position, time, chain: 0 }, |writer| {
                while let Some(records) = page()? {
                    if let Passing::Deletes(why) | Passing::Nothing(why) = space.ask(0) {
                        return Err(OpenError::at(&dir)(io::Error::new(io::ErrorKind::StorageFull, why)));
                    }
                    // What is put after the position is no part of it.
                    for record in records.iter().filter(|record| record.revision <= position.revision) {
                        let pushed = writer.push(&record.key, record.revision, &record.value);
                        pushed.map_err(OpenError::at(&dir))?;
                    }
                }
                Ok(())
            })
            .map(drop)
        };
        layout.create_with(&log, disk, fill)
    }

    /// Removes what an interruption left of a run that was made or removed.
    fn tidy(&self) -> Result<(), OpenError> {
        let unfinished = self.dir.join(UNFINISHED);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::at(&unfinished)(error)),
            _ => Ok(()),
        }
    }

    /// The earliest position that can be restored, with its time; and the size of all runs, in bytes.
    pub(in crate::store) fn extent(&self) -> (Option<(Position, Option<SystemTime>)>, u64) {
        let runs: Vec<_> = self.list().unwrap_or_default();
        let layout = |run: &Listed| Layout::new(run.path.clone());
        let oldest = runs.iter().find_map(|run| condition::oldest(&layout(run), run.position.epoch));
        (oldest, runs.iter().map(|run| condition::bytes(&layout(run))).sum())
    }

    /// What is wrong with a run of which nothing can be restored.
    pub(in crate::store) fn problem(&self) -> Option<String> {
        let is_lost = |run: &Listed| matches!(pick::Begun::of(run), Ok(None)) && run.path.exists();
        let lost = self.list().ok()?.into_iter().find(is_lost)?;
        Some(format!("{}: it has no snapshot that can be read: nothing of it can be restored", lost.path.display()))
    }

    /// Free on the disk, in bytes, if that is known.
    pub(in crate::store) fn free_bytes(&self) -> Option<u64> {
        self.ground.disk.room(&self.dir).ok().map(|room| room.free_bytes)
    }

    /// The snapshots of all runs, oldest first.
    pub(in crate::store) fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let mut all = Vec::new();
        for run in self.list().map_err(|error| Error::Unavailable(error.to_string()))? {
            all.extend(condition::snapshots(&Layout::new(run.path).snapshots())?);
        }
        Ok(all)
    }
}
