//! What a store, or a backup, was at a position: its records as they stood then, in order, as often as they are asked for.
//!
//! It does not know what becomes of them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    CLOCK_SLACK, acknowledged,
    layout::{Layout, Lock, OpenError},
    log::begun_segments,
    runs,
    snapshots::{self, Kept, Merge, Overlay, Until},
};
use crate::{
    clock::{Clock as _, SystemClock},
    store::{
        Epoch, Millis, Position, Record, Revision,
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
    /// What is wanted is in a run of a history of which nothing can be restored, or after it. What is before can be
    /// restored by its position.
    #[error("{}: what is wanted may be in this run, which has no snapshot that can be read; before it the history ends at {last}", .run.display())]
    RunLost {
        /// The run's directory.
        run: PathBuf,
        /// The last position before it.
        last: Position,
    },
    /// No randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
}

/// What a source was. It stays locked while this is there.
#[derive(Debug)]
pub struct Past {
    pub(super) position: Position,
    pub(super) overlay: Overlay,
    pub(super) is_before_time: bool,
    base: Option<Kept>,
    instance: [u8; 16],
    left_out: Option<String>,
    /// What is made of it begins an epoch after this one.
    pub(super) after: Epoch,
    /// About how many records it has; those that are left out count.
    records: u64,
    #[expect(dead_code, reason = "held: nobody writes there meanwhile")]
    lock: Option<Lock>,
}

impl Past {
    /// Finds `target` in `source`, a backup's file, or the directory of a store that nobody has open or of a history, which is
    /// only read, and to its end: it is known that all is whole. Records whose keys begin with `left_out` are not given.
    ///
    /// Of a directory its snapshots and its log count; sled has no part in it.
    pub fn find(source: &Path, target: Target, left_out: Option<&str>) -> Result<Self, RestoreError> {
        if !fs::metadata(source).map_err(OpenError::at(source))?.is_dir() {
            return Search { source, target, left_out }.file();
        }
        let run = runs::pick(source, target)?;
        Search { source: run.as_deref().unwrap_or(source), target, left_out }.directory()
    }

    /// About how many records there are.
    pub(super) fn about(&self) -> u64 {
        self.records
    }

    /// Gives every record, ordered by key.
    pub(super) fn run(&self, mut each: impl FnMut(Record) -> Result<(), OpenError>) -> Result<(), OpenError> {
        let is_left_out = |key: &str| self.left_out.as_ref().is_some_and(|prefix| key.starts_with(prefix));
        Merge::new(self.base.as_ref(), self.instance, &self.overlay)?
            .run(|record| if is_left_out(record.key.as_str()) { Ok(()) } else { each(record) })
    }
}

struct Search<'a> {
    source: &'a Path,
    target: Target,
    left_out: Option<&'a str>,
}

impl Search<'_> {
    fn file(&self) -> Result<Past, RestoreError> {
        let reader = Reader::open(self.source).map_err(OpenError::of_snapshot(self.source))?;
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
        self.found(Some(&kept), instance, overlay, position.epoch)
    }

    fn directory(&self) -> Result<Past, RestoreError> {
        let layout = Layout::new(self.source.into());
        let instance = layout.instance()?;
        let lock = layout.lock_to_read()?;
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
                outcome => return outcome.map(|past| Past { lock, ..past }),
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
        &self,
        layout: &Layout,
        base: Option<&Kept>,
        segments: &[Revision],
        instance: [u8; 16],
    ) -> Result<Past, RestoreError> {
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
            let reached = shown(reached, overlay.time);
            return Err(self.out_of_reach(match overlay.left_out {
                Some(_) => format!("it has no {wanted}; the last one before that is {reached}"),
                None => format!("it has nothing of {wanted}; it ends at {reached}"),
            }));
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
        self.found(base, instance, overlay, epoch)
    }

    /// All of the base is read, so that another can be tried before anything is made of this one.
    fn found(
        &self,
        base: Option<&Kept>,
        instance: [u8; 16],
        overlay: Overlay,
        epoch: Epoch,
    ) -> Result<Past, RestoreError> {
        let of_base = base.map(|base| base.examine(instance)).transpose()?.map_or(0, |snapshot| snapshot.records);
        let is_before_time = match self.target {
            Target::Time(wanted) => overlay.left_out.is_none() && overlay.time < Millis::from(wanted),
            Target::Newest | Target::Position(_) => false,
        };
        Ok(Past {
            position: Position { epoch, revision: overlay.last },
            is_before_time,
            base: base.cloned(),
            instance,
            left_out: self.left_out.map(str::to_owned),
            after: epoch,
            records: of_base + overlay.puts_count(),
            overlay,
            lock: None,
        })
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

pub(super) fn shown(position: Position, time: Millis) -> String {
    match time.time() {
        Some(_) => format!("{position} of {}", shown_time(time)),
        None => position.to_string(),
    }
}

fn shown_time(time: Millis) -> String {
    time.time().map_or_else(String::new, |time| humantime::format_rfc3339_millis(time).to_string())
}
