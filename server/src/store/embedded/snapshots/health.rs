//! What is wrong with what is kept of the past, for the store's operator.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{super::layout::OpenError, Kept};
use crate::store::Millis;

/// Written by the thread that keeps, read by whoever asks.
#[derive(Debug, Default)]
pub(in super::super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What is wrong with snapshots, by their files.
    damaged: BTreeMap<PathBuf, String>,
    /// Less is kept than was asked for.
    is_short: bool,
    /// The log's time, where the clock has not reached it.
    ahead: Option<Millis>,
}

impl Health {
    /// A snapshot is damaged. Said in the log when it is new.
    pub(super) fn damaged(&self, kept: &Kept, error: &OpenError) {
        let is_new = self.state().damaged.insert(kept.path.clone(), error.to_string()).is_none();
        if is_new {
            tracing::error!(%error, "a snapshot is damaged: what only it stands for cannot be restored");
        }
    }

    /// A snapshot was read to its end, or written.
    pub(super) fn whole(&self, path: &Path) {
        self.state().damaged.remove(path);
    }

    /// These are there; what was known of others does not matter any more.
    pub(super) fn there_are(&self, kept: &[Kept]) {
        self.state().damaged.retain(|path, _| kept.iter().any(|kept| kept.path == *path));
    }

    pub(in super::super) fn is_damaged(&self, kept: &Kept) -> bool {
        self.state().damaged.contains_key(&kept.path)
    }

    /// Whether less is kept than was asked for. Returns what was said before.
    pub(super) fn short(&self, is_short: bool) -> bool {
        std::mem::replace(&mut self.state().is_short, is_short)
    }

    pub(super) fn ahead(&self, ahead: Option<Millis>) {
        self.state().ahead = ahead;
    }

    /// What an operator should look at.
    pub(in super::super) fn problems(&self) -> Vec<String> {
        let state = self.state();
        let mut problems: Vec<_> =
            state.damaged.values().map(|error| format!("a snapshot is damaged: {error}")).collect();
        if state.is_short {
            problems.push(
                "less of the past is kept than history.retention asks for: with it, snapshots and log would be larger than \
                 history.max_bytes"
                    .into(),
            );
        }
        if let Some(time) = state.ahead.and_then(Millis::time) {
            problems.push(format!(
                "the log's time is {}, which the clock has not reached: until then a restore by time cannot tell what stood when",
                humantime::format_rfc3339_seconds(time)
            ));
        }
        problems
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
