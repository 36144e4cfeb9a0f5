//! What one record was, as far back as a store, or a run of a history, can be restored.

use std::{collections::BTreeMap, path::Path};

use super::{
    layout::{Layout, OpenError},
    log::Recovered,
    snapshots,
};
use crate::store::{Change, Key, Revision};

/// Every value that the record `key` was put to and that is still in the store at `dir`, which nobody has open: by the
/// revision that put it. Not told is when it was deleted.
pub fn formerly(dir: &Path, key: &Key) -> Result<BTreeMap<Revision, Vec<u8>>, OpenError> {
    let layout = Layout::new(dir.into());
    let instance = layout.instance()?;
    let _lock = layout.lock_to_read()?;
    let mut values = BTreeMap::new();
    // The log may begin after the oldest of them.
    for kept in snapshots::list(&layout.snapshots())? {
        let mut reader = kept.open(Some(instance))?;
        while let Some(records) = reader.frame().map_err(OpenError::of_snapshot(&kept.path))? {
            let is_passed = records.last().is_some_and(|record| record.key >= *key);
            let found = records.into_iter().find(|record| record.key == *key);
            values.extend(found.map(|record| (record.revision, record.value.to_vec())));
            if is_passed {
                break;
            }
        }
    }
    Recovered::read(&layout.log(), instance)?.replay(Revision(0), &mut |commits| {
        for commit in commits {
            let put = commit.changes.iter().rev().find_map(|change| match change {
                Change::Put(put, value) if put == key => Some(value.to_vec()),
                _ => None,
            });
            values.extend(put.map(|value| (commit.revision, value)));
        }
        Ok(())
    })?;
    Ok(values)
}
