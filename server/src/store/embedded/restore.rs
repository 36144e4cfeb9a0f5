//! Makes a new store of what another one, or a backup, was at a position.
//!
//! The new store has the epoch after the old one's, so that nothing of before is mistaken for something of after: above
//! all, tokens that were revoked or used up since do not come back. It consists of one snapshot; its records are put in
//! place when it is opened. Before it is a store, that snapshot is read again and compared with the source.

use std::{path::Path, time::SystemTime};

use super::{
    disk::{Disk, RealDisk},
    layout::{Layout, OpenError},
    log::segment::{self, Origin},
    past::{Past, RestoreError, Target},
    snapshots::{self, Kept},
    verify::Records,
};
use crate::store::{Epoch, Key, Position, Revision, snapshot::Header};

/// The callback is told after this many steps.
const STEPS_BETWEEN: u64 = 256;

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The position in the old store.
    pub from: Position,
    /// The position of the new store.
    pub position: Position,
    /// When the last transaction in it was made.
    pub time: Option<SystemTime>,
    /// How many records it has: each was read again after it was written, and is as in the source.
    pub records: u64,
    /// Bytes at the end of the log that are not whole, as a crash leaves them; they are not in it.
    pub unfinished_bytes: u64,
    /// The source has nothing after it, though a later time was asked for.
    pub is_before_time: bool,
}

/// Restores `source`, a backup's file or the directory of a store that nobody has open, into the directory `to`, which
/// must not hold a store. The source is only read. Records whose keys begin with `left_out` do not come along. `progress` is
/// told how many of about how many steps are done: each record is written and compared.
pub fn restore(
    source: &Path,
    to: &Path,
    target: Target,
    left_out: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    restore_after(source, to, target, left_out, Epoch(0), progress)
}

/// The same in an epoch after this one and the source's: what came after the source may have had the next one already.
pub fn restore_after(
    source: &Path,
    to: &Path,
    target: Target,
    left_out: Option<&str>,
    after: Epoch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    // Said before anything is read, and before the source, which may be the same, is locked.
    if Layout::new(to.into()).format().exists() {
        return Err(OpenError::Exists(to.into()).into());
    }
    let mut instance = [0; 16];
    getrandom::fill(&mut instance).map_err(|_| RestoreError::NoRandomness)?;
    let mut past = Past::find(source, target, left_out)?;
    past.after = past.after.max(after);
    let position = past.next();
    let records = write(&past, to, instance, &RealDisk, progress)?;
    Ok(past.restored(position, records))
}

impl Past {
    /// Where a store begins that is made of it.
    fn next(&self) -> Position {
        Position { epoch: Epoch(self.after.0 + 1), revision: self.position.revision }
    }

    /// What was made of it.
    pub fn restored(&self, position: Position, records: u64) -> Restored {
        Restored {
            from: self.position,
            position,
            time: self.overlay.time.time(),
            records,
            unfinished_bytes: self.overlay.torn as u64,
            is_before_time: self.is_before_time,
        }
    }
}

/// Writes it into a directory, as a store of one snapshot; how many records it has.
pub(super) fn write(
    past: &Past,
    to: &Path,
    instance: [u8; 16],
    disk: &dyn Disk,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, OpenError> {
    let layout = Layout::new(to.into());
    let (position, time) = (past.next(), past.overlay.time);
    let begin = segment::Header {
        origin: Origin::Own,
        instance,
        epoch: position.epoch,
        first: Revision(position.revision.0 + 1),
        time,
        chain: 0,
    };
    let header = Header { instance, position, time, chain: 0 };
    let mut done = 0;
    let mut step = || {
        done += 1;
        if done % STEPS_BETWEEN == 0 {
            progress(done, 2 * past.about());
        }
    };
    let mut records = 0;
    let mut fill = || {
        snapshots::write(&layout.snapshots(), disk, header, |writer| {
            past.run(|record| {
                step();
                writer.push(&record.key, record.revision, &record.value).map_err(OpenError::at(to))
            })
        })?;
        let kept = Kept { position, path: snapshots::path(&layout.snapshots(), position) };
        records = compare(past, &kept, instance, &mut step)?;
        Ok(())
    };
    layout.create_with(&begin, disk, &mut fill)?;
    progress(done, done);
    Ok(records)
}

/// Reads a snapshot and compares it with what it was made of; how many records there are.
fn compare(past: &Past, kept: &Kept, instance: [u8; 16], step: &mut dyn FnMut()) -> Result<u64, OpenError> {
    let differs = |key: &Key| OpenError::damaged(&kept.path, format!("{key} is not in it as it is in the source"));
    let mut written = Records::of(&kept.path, kept.open(Some(instance))?);
    let mut count = 0;
    past.run(|expected| {
        count += 1;
        step();
        match written.next()? {
            Some(found) if found == expected => Ok(()),
            _ => Err(differs(&expected.key)),
        }
    })?;
    written.next()?.map_or(Ok(count), |found| Err(differs(&found.key)))
}
