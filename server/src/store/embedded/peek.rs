//! Reads one record out of a store that a server may have open: for whoever must know whose files these are. The newest that
//! is found without the lock, which may be older than the store's.

use std::{fs::File, io::BufReader, path::Path};

use super::{
    layout::{Layout, OpenError, read_segment, segment_path},
    log::{segment, segment_revisions},
    runs, snapshots,
};
use crate::store::{
    Change, Key, Position,
    snapshot::{Damage, Reader},
};

/// Returns a position that the log reaches, of the store at `dir`: all that was acknowledged before the call is in it.
pub fn last(dir: &Path) -> Result<Position, OpenError> {
    let layout = Layout::new(dir.into());
    layout.instance()?;
    let log = layout.log();
    let first = *segment_revisions(&log)?.last().ok_or_else(|| OpenError::damaged(&log, "the log has no segments"))?;
    let path = segment_path(&log, first);
    let (bytes, _) = read_segment(&path).map_err(OpenError::unread(&path))?;
    let summary = segment::scan(&bytes, true, &mut |_| {}).map_err(|damage| OpenError::damaged(&path, damage))?;
    Ok(Position { epoch: summary.header.epoch, revision: summary.last })
}

/// The value of the record `key` in the store at `dir`, by its newest snapshot that can be read, or else by the first segment
/// of its log.
///
/// Of a snapshot's or backup's file, the record that it has; of a history, that of its newest run.
pub fn peek(source: &Path, key: &Key) -> Result<Option<Vec<u8>>, OpenError> {
    if source.is_file() {
        let reader = Reader::open(source).map_err(OpenError::of_snapshot(source))?;
        return in_snapshot(reader, key).map_err(OpenError::of_snapshot(source));
    }
    let run = runs::runs_in(source)?.pop();
    let dir = run.as_deref().unwrap_or(source);
    let layout = Layout::new(dir.into());
    layout.instance()?;
    for kept in snapshots::list(&layout.snapshots())?.iter().rev() {
        // One that is damaged, or goes just now, is passed over: others and the log say the same.
        let Ok(reader) = kept.open(None) else { continue };
        if let Ok(Some(found)) = in_snapshot(reader, key) {
            return Ok(Some(found));
        }
    }
    let mut found = None;
    if let Some(first) = segment_revisions(&layout.log())?.first() {
        let path = segment_path(&layout.log(), *first);
        let (bytes, _) = read_segment(&path).map_err(OpenError::unread(&path))?;
        let mut look = |group: segment::Group| {
            for change in group.commits.iter().flat_map(|commit| commit.changes.iter()) {
                if let Change::Put(put, value) = change
                    && put == key
                {
                    found = Some(value.to_vec());
                }
            }
        };
        // It is being written to, so that its end may not be whole.
        segment::scan(&bytes, true, &mut look).map_err(|damage| OpenError::damaged(&path, damage))?;
    }
    Ok(found)
}

fn in_snapshot(mut reader: Reader<BufReader<File>>, key: &Key) -> Result<Option<Vec<u8>>, Damage> {
    while let Some(records) = reader.frame()? {
        if let Some(record) = records.into_iter().find(|record| record.key == *key) {
            return Ok(Some(record.value.to_vec()));
        }
    }
    Ok(None)
}
