//! Makes sled anew, from a snapshot and the log after it, when what is there cannot be used.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    checkpoint::Checkpoint,
    disk::Disk,
    index::{Digest, Writes},
    layout::{Layout, Lock, OpenError},
    log::Recovered,
    sled::Records,
    snapshots::{self, Kept},
};
use crate::store::{Position, Revision};

/// Bytes of records applied at once.
const BATCH_BYTES: usize = 1 << 20;
/// Directories of damaged files that are kept, for whoever wants to know what happened.
const DAMAGED_MAX: usize = 2;

/// Puts a sled in place that has everything up to a snapshot, or nothing if the log reaches back to the beginning. The log
/// after it is applied when the store opens.
pub(super) fn rebuild(
    layout: &Layout,
    recovered: &Recovered,
    instance: [u8; 16],
    disk: &dyn Disk,
    lock: &Arc<Lock>,
    why: &str,
) -> Result<(), OpenError> {
    let unfinished = layout.dir().join("sled.new");
    let had_some = layout.sled().exists() || recovered.last() > recovered.first();
    let mut kept = snapshots::list(&layout.snapshots())?;
    kept.retain(|kept| fits(kept, recovered));
    let bases = kept.iter().rev().map(Some).chain((recovered.first() == Revision(1)).then_some(None));
    for base in bases {
        match fill(&unfinished, base, recovered, instance, disk, lock) {
            Ok(records) => {
                put_in_place(layout, &unfinished, disk)?;
                let from = base.map_or("the log alone".to_owned(), |base| base.path.display().to_string());
                // A restored store begins so.
                match had_some {
                    true => tracing::warn!(
                        why,
                        from,
                        records,
                        "the records behind the log were not usable, and are made anew"
                    ),
                    false => tracing::info!(from, records, "the records behind the log are made"),
                }
                return Ok(());
            }
            Err(error @ OpenError::Damaged { .. }) => {
                tracing::error!(%error, "a snapshot is not usable; trying an older one");
            }
            Err(error) => return Err(error),
        }
    }
    let what = format!("{why}, and the log begins at {}: no snapshot stands for what is before", recovered.first().0);
    Err(OpenError::damaged(&layout.sled(), what))
}

/// Whether the log goes on where the snapshot ends.
fn fits(kept: &Kept, recovered: &Recovered) -> bool {
    let Position { epoch, revision } = kept.position;
    epoch == recovered.epoch() && recovered.first().0 <= revision.0 + 1 && revision <= recovered.last()
}

fn fill(
    path: &Path,
    base: Option<&Kept>,
    recovered: &Recovered,
    instance: [u8; 16],
    disk: &dyn Disk,
    lock: &Arc<Lock>,
) -> Result<u64, OpenError> {
    remove(path)?;
    // No cache worth the name: it is written once and then opened anew.
    let records = Records::open(path, 1 << 20, disk, Arc::clone(lock))?;
    let failed = |why: String| OpenError::Io { path: path.into(), source: io::Error::other(why) };
    let mut digest = Digest::default();
    let position = Position { epoch: recovered.epoch(), revision: Revision(0) };
    // Until the end it says that nothing is here: an unfinished one is never taken for whole.
    let unfinished = Checkpoint { instance, position, digest };
    let mut batch: Writes = BTreeMap::new();
    let mut bytes = 0;
    if let Some(kept) = base {
        let damaged = |damage| OpenError::of_snapshot(&kept.path)(damage);
        let mut reader = kept.open(Some(instance))?;
        if !recovered.continues(reader.header().position.revision, reader.header().chain) {
            return Err(OpenError::damaged(&kept.path, "the log does not go on where it ends"));
        }
        while let Some(frame) = reader.frame().map_err(damaged)? {
            for record in frame {
                digest.add(&record.key, record.revision);
                bytes += record.key.as_str().len() + record.value.len();
                batch.insert(record.key, Some((record.revision, record.value)));
            }
            if bytes >= BATCH_BYTES {
                records.apply(&std::mem::take(&mut batch), &unfinished).map_err(failed)?;
                bytes = 0;
            }
        }
    }
    let position = base.map_or(position, |kept| kept.position);
    records.apply(&batch, &Checkpoint { instance, position, digest }).map_err(failed)?;
    Arc::new(records).close()?;
    Ok(digest.records)
}

/// The new files take the name; the old ones are kept aside.
fn put_in_place(layout: &Layout, new: &Path, disk: &dyn Disk) -> Result<(), OpenError> {
    let old = layout.sled();
    if old.try_exists().map_err(OpenError::at(&old))? {
        let aside = set_aside(layout)?;
        disk.rename(&old, &aside).map_err(OpenError::at(&old))?;
        tracing::warn!(directory = %aside.display(), "the records that were not usable are kept here");
    }
    disk.rename(new, &old).map_err(OpenError::at(new))?;
    disk.sync_directory(layout.dir()).map_err(OpenError::at(layout.dir()))
}

/// A name for what is damaged; of earlier ones few stay.
fn set_aside(layout: &Layout) -> Result<PathBuf, OpenError> {
    let dir = layout.dir();
    let number = |name: &str| name.strip_prefix("sled.damaged-")?.parse::<u64>().ok();
    let entries = fs::read_dir(dir).map_err(OpenError::at(dir))?.flatten();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |last| last + 1);
    for old in numbers.iter().rev().skip(DAMAGED_MAX - 1) {
        remove(&dir.join(format!("sled.damaged-{old}")))?;
    }
    Ok(dir.join(format!("sled.damaged-{next}")))
}

fn remove(path: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::at(path)(error)),
        _ => Ok(()),
    }
}
