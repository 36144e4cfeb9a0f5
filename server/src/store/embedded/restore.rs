//! Makes a new store of what another one, or a backup, was at a position.
//!
//! The new store has the epoch after the old one's, so that nothing of before is mistaken for something of after: above
//! all, tokens that were revoked or used up since do not come back. It consists of one snapshot; its records are put in
//! place when it is opened.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    CLOCK_SLACK, acknowledged,
    disk::RealDisk,
    layout::{Layout, OpenError},
    log::{begun_segments, segment},
    snapshots::{self, Kept, Merge, Overlay, Until},
};
use crate::{
    clock::{Clock as _, SystemClock},
    store::{
        Epoch, Millis, Position, Revision,
        snapshot::{Header, Reader},
    },
};

/// Which position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The last one that there is.
    Newest,
    /// This one.
    Position(Position),
    /// The last one of this time or before.
    Time(SystemTime),
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The position in the old store.
    pub from: Position,
    /// The position of the new store.
    pub position: Position,
    /// When the last transaction in it was made.
    pub time: Option<SystemTime>,
    /// How many records it has.
    pub records: u64,
    /// Bytes at the end of the log that are not whole, as a crash leaves them; they are not in it.
    pub unfinished_bytes: u64,
    /// The source has nothing after it, though a later time was asked for.
    pub is_before_time: bool,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The source cannot be read, or the new store not be written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source does not have that position or time.
    #[error("{}: {what}", .source_path.display())]
    OutOfReach {
        /// The source.
        source_path: PathBuf,
        /// What it has instead.
        what: String,
    },
    /// The log lost its end. What is before can be restored by its position.
    #[error("{}: it ends at {last}, and {acknowledged} was acknowledged: acknowledged transactions are missing", .log.display())]
    EndMissing {
        /// The log.
        log: PathBuf,
        /// The last position that is there.
        last: Position,
        /// One that was.
        acknowledged: Position,
    },
    /// No randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
}

/// Restores `source`, a backup's file or the directory of a store that nobody has open, into the directory `to`, which
/// must not hold a store. The source is only read. Records whose keys begin with `left_out` do not come along. `progress` is told how many records of how many are written.
///
/// Of a directory its snapshots and its log count; sled has no part in it.
pub fn restore(
    source: &Path,
    to: &Path,
    target: Target,
    left_out: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    // Said before anything is read, and before the source, which may be the same, is locked.
    if Layout::new(to.into()).format().exists() {
        return Err(OpenError::Exists(to.into()).into());
    }
    let mut instance = [0; 16];
    getrandom::fill(&mut instance).map_err(|_| RestoreError::NoRandomness)?;
    let mut restore = Restore { source, to, target, left_out, instance, progress };
    match fs::metadata(source).map_err(OpenError::at(source))?.is_dir() {
        true => restore.directory(),
        false => restore.file(),
    }
}

struct Restore<'a> {
    source: &'a Path,
    to: &'a Path,
    target: Target,
    left_out: Option<&'a str>,
    instance: [u8; 16],
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Restore<'_> {
    fn file(&mut self) -> Result<Restored, RestoreError> {
        let reader = Reader::open(self.source).map_err(|damage| OpenError::damaged(self.source, damage))?;
        let header @ Header { position, time, instance, .. } = *reader.header();
        drop(reader);
        let is_it = match self.target {
            Target::Newest => true,
            Target::Position(wanted) => wanted == position,
            Target::Time(wanted) => time <= Millis::from(wanted),
        };
        if !is_it {
            return Err(self.out_of_reach(format!("it has {} only", shown(position, time))));
        }
        let kept = Kept { position, path: self.source.into() };
        let overlay = Overlay::after(&header);
        self.write(Some(&kept), instance, &overlay, position.epoch)
    }

    fn directory(&mut self) -> Result<Restored, RestoreError> {
        let layout = Layout::new(self.source.into());
        let instance = layout.instance()?;
        let _lock = layout.lock_to_read()?;
        let (segments, _) = begun_segments(&layout.log())?;
        let mut kept = snapshots::list(&layout.snapshots())?;
        kept.retain(|kept| self.is_before_target(kept));
        let reaches_back = segments.first() == Some(&Revision(1));
        let bases = kept.iter().rev().map(Some).chain(reaches_back.then_some(None));
        let mut failed = None;
        for base in bases {
            match self.on_base(&layout, base, &segments, instance) {
                Err(RestoreError::Open(error @ OpenError::Damaged { .. })) => {
                    tracing::warn!(%error, "this cannot be restored from; trying an older snapshot");
                    failed.get_or_insert(error);
                }
                outcome => return outcome,
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Err(self.out_of_reach(before_everything(&layout)?)),
        }
    }

    /// Whether a snapshot can be a base; its name says its position, its header its time.
    fn is_before_target(&self, kept: &Kept) -> bool {
        match self.target {
            Target::Newest => true,
            Target::Position(wanted) => kept.position <= wanted,
            Target::Time(wanted) => kept.open(None).is_ok_and(|reader| reader.header().time <= Millis::from(wanted)),
        }
    }

    fn on_base(
        &mut self,
        layout: &Layout,
        base: Option<&Kept>,
        segments: &[Revision],
        instance: [u8; 16],
    ) -> Result<Restored, RestoreError> {
        let after = base.map_or(Revision(0), |base| base.position.revision);
        let mut overlay = match base {
            Some(kept) => Overlay::after(kept.open(Some(instance))?.header()),
            None => Overlay::begin(instance),
        };
        let until = match self.target {
            Target::Newest => Until::Revision(Revision(u64::MAX)),
            Target::Position(wanted) => Until::Revision(wanted.revision),
            Target::Time(wanted) => Until::Time(Millis::from(wanted)),
        };
        let target = self.target;
        let is_reached = |at: Revision| matches!(target, Target::Position(wanted) if wanted.revision == at);
        let needed = match snapshots::needed(segments.to_vec(), after) {
            Some(needed) => needed,
            None if is_reached(after) => Vec::new(),
            None => {
                let what =
                    format!("it has nothing of what follows revision {}, up to which there is a snapshot", after.0);
                return Err(OpenError::damaged(&layout.log(), what).into());
            }
        };
        for (at, first) in needed.iter().enumerate() {
            if is_reached(overlay.last) || !overlay.add(&layout.log(), *first, at + 1 == needed.len(), until)? {
                break;
            }
        }
        let Some(epoch) = overlay.epoch() else {
            return Err(self.out_of_reach("it has no log".into()));
        };
        let reached = Position { epoch, revision: overlay.last };
        if let Target::Position(wanted) = self.target
            && wanted != reached
        {
            return Err(
                self.out_of_reach(format!("it has nothing of {wanted}; it ends at {}", shown(reached, overlay.time)))
            );
        }
        let ahead = |time: &Millis| *time > Millis::from(SystemClock.now() + CLOCK_SLACK);
        if let Some(next) = overlay.left_out.filter(ahead)
            && matches!(self.target, Target::Time(_))
        {
            return Err(self.out_of_reach(format!(
                "what follows {} is said to be of {}, which this machine's clock has not reached: when it was made cannot \
                 be told, so a position must be given, of which the audit log has the times",
                shown(reached, overlay.time),
                shown_time(next)
            )));
        }
        if overlay.left_out.is_none() && !matches!(self.target, Target::Position(_)) {
            self.check_end(layout, reached)?;
        }
        if reached.revision == Revision(0) {
            return Err(self.out_of_reach("there was nothing in it at that time".into()));
        }
        self.write(base, instance, &overlay, epoch)
    }

    fn write(
        &mut self,
        base: Option<&Kept>,
        of: [u8; 16],
        overlay: &Overlay,
        epoch: Epoch,
    ) -> Result<Restored, RestoreError> {
        let disk = RealDisk;
        let layout = Layout::new(self.to.into());
        let (instance, time) = (self.instance, overlay.time);
        let from = Position { epoch, revision: overlay.last };
        let position = Position { epoch: Epoch(epoch.0 + 1), revision: overlay.last };
        let begin = segment::Header {
            instance,
            epoch: position.epoch,
            first: Revision(position.revision.0 + 1),
            time,
            chain: 0,
        };
        let total = base.and_then(|base| base.look().ok()).map_or(0, |base| base.records) + overlay.puts_count();
        let mut records = 0;
        let mut fill = || {
            let merge = Merge::new(base, of, overlay)?;
            let header = Header { instance, position, time, chain: 0 };
            snapshots::write(&layout.snapshots(), &disk, header, |writer| {
                merge.run(|record| {
                    if self.left_out.is_some_and(|prefix| record.key.as_str().starts_with(prefix)) {
                        return Ok(());
                    }
                    records += 1;
                    if records % 256 == 0 {
                        (self.progress)(records, total);
                    }
                    let pushed = writer.push(&record.key, record.revision, &record.value);
                    pushed.map_err(OpenError::at(self.to))
                })
            })
            .map(drop)
        };
        layout.create_with(&begin, &disk, &mut fill)?;
        (self.progress)(records, records);
        let is_before_time = match self.target {
            Target::Time(wanted) => overlay.left_out.is_none() && time < Millis::from(wanted),
            Target::Newest | Target::Position(_) => false,
        };
        let unfinished_bytes = overlay.torn as u64;
        Ok(Restored { from, position, time: time.time(), records, unfinished_bytes, is_before_time })
    }

    /// What ends where the log does must not lack what was acknowledged.
    fn check_end(&self, layout: &Layout, reached: Position) -> Result<(), RestoreError> {
        let instance = layout.instance()?;
        match acknowledged::read(layout, instance) {
            Some(acknowledged) if acknowledged.epoch == reached.epoch && acknowledged > reached => {
                let kept = snapshots::list(&layout.snapshots())?;
                let newest = kept.iter().rev().find(|kept| kept.examine(instance).is_ok());
                let last = newest.map_or(reached, |kept| kept.position.max(reached));
                Err(RestoreError::EndMissing { log: layout.log(), last, acknowledged })
            }
            _ => Ok(()),
        }
    }

    fn out_of_reach(&self, what: String) -> RestoreError {
        RestoreError::OutOfReach { source_path: self.source.into(), what }
    }
}

fn before_everything(layout: &Layout) -> Result<String, OpenError> {
    let what = "neither its snapshots nor its log reach back so far";
    Ok(match snapshots::list(&layout.snapshots())?.first() {
        Some(first) => format!("{what}: it begins at {}", shown(first.position, first.open(None)?.header().time)),
        None => what.into(),
    })
}

fn shown(position: Position, time: Millis) -> String {
    match time.time() {
        Some(_) => format!("{position} of {}", shown_time(time)),
        None => position.to_string(),
    }
}

fn shown_time(time: Millis) -> String {
    time.time().map_or_else(String::new, |time| humantime::format_rfc3339_millis(time).to_string())
}
