//! Sled's thread: applies groups in order, behind the log.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
};

use super::{checkpoint::Checkpoint, index::Writes, progress::Progress, sled::Records};

/// Most groups that sled may be behind the log; then the log waits. Together with the size of a group it bounds the
/// memory that waits here, and what an opening has to roll forward.
pub(super) const GROUPS_BEHIND_MAX: usize = 64;

/// A group that is in the log.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) writes: Writes,
    pub(super) checkpoint: Checkpoint,
    /// Its size, in bytes.
    pub(super) bytes: u64,
}

/// Runs until the log's thread ends, or sled fails. Nothing is lost by that: the log has it all, and keeps it.
pub(super) fn run(records: Arc<Records>, groups: &mpsc::Receiver<Group>, progress: &Progress) {
    for group in groups {
        let outcome = catch_unwind(AssertUnwindSafe(|| records.apply(&group.writes, &group.checkpoint)));
        match outcome.unwrap_or_else(|_| Err("the thread panicked".into())) {
            Ok(()) => progress.advance(group.checkpoint.position.revision, group.bytes),
            Err(why) => return progress.fail(format!("writing records behind the log: {why}")),
        }
    }
}
