//! Reads one record out of a store that a server may have open: for whoever must know whose files these are. The newest that
//! is found without the lock, which may be older than the store's.

use std::path::Path;

use super::{
    layout::{Layout, OpenError, read_segment, segment_path},
    log::{segment, segment_revisions},
    snapshots,
};
use crate::store::{Change, Key};

/// The value of the record `key` in the store at `dir`, by its newest snapshot that can be read, or else by the first segment
/// of its log.
pub fn peek(dir: &Path, key: &Key) -> Result<Option<Vec<u8>>, OpenError> {
    let layout = Layout::new(dir.into());
    layout.instance()?;
    for kept in snapshots::list(&layout.snapshots())?.iter().rev() {
        // One that is damaged, or goes just now, is passed over: others and the log say the same.
        let Ok(mut reader) = kept.open(None) else { continue };
        while let Ok(Some(records)) = reader.frame() {
            if let Some(record) = records.into_iter().find(|record| record.key == *key) {
                return Ok(Some(record.value.to_vec()));
            }
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
