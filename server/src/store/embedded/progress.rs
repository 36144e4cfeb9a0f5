//! What the threads of a store tell each other: how far sled is, and whether the store has failed.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::store::{Error, Revision};

/// Shared by the log's thread, sled's thread and the store's handles.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Sled holds everything up to here.
    applied: Revision,
    /// The log is needed only after this revision, as far as the past is concerned.
    keep_after: Revision,
    /// Groups handed to sled's thread and not applied yet.
    behind: usize,
    /// Their size.
    behind_bytes: u64,
    /// It was waited for in vain, and has not moved since.
    is_stuck: bool,
    /// Why the last group was not taken, of which nothing stands.
    refused: Option<String>,
    /// Why nothing is written any more.
    failed: Option<String>,
}

impl Progress {
    pub(super) fn new(applied: Revision) -> Self {
        Self {
            state: Mutex::new(State {
                applied,
                keep_after: Revision(0),
                behind: 0,
                behind_bytes: 0,
                is_stuck: false,
                refused: None,
                failed: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Sled holds everything up to here.
    pub(super) fn applied(&self) -> Revision {
        self.state().applied
    }

    /// The past is kept after this revision: what is before stands in a snapshot.
    pub(super) fn keep_after(&self, revision: Revision) {
        self.state().keep_after = revision;
    }

    /// The log up to here is needed by nobody: sled has it, and a snapshot.
    pub(super) fn retirable(&self) -> Revision {
        let state = self.state();
        state.applied.min(state.keep_after)
    }

    /// The size of what sled has still to write.
    pub(super) fn behind_bytes(&self) -> u64 {
        self.state().behind_bytes
    }

    /// A group of so many bytes is handed to sled's thread.
    pub(super) fn handed(&self, bytes: u64) {
        let mut state = self.state();
        state.behind += 1;
        state.behind_bytes += bytes;
    }

    /// A group of so many bytes has been applied.
    pub(super) fn advance(&self, applied: Revision, bytes: u64) {
        let mut state = self.state();
        state.applied = applied;
        state.behind -= 1;
        state.behind_bytes -= bytes;
        state.is_stuck = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing is written from now on. The first reason stays.
    pub(super) fn fail(&self, why: String) {
        tracing::error!(why, "the store has failed; it takes no writes until it is opened again");
        self.state().failed.get_or_insert(why);
        self.changed.notify_all();
    }

    /// The log did not take the last group, for now.
    pub(super) fn refuse(&self, why: String) {
        let before = self.state().refused.replace(why.clone());
        if before.is_none() {
            tracing::error!(why, "the log takes no writes for now; trying again");
        }
    }

    /// The log takes groups.
    pub(super) fn accept(&self) {
        if self.state().refused.take().is_some() {
            tracing::info!("the log takes writes again");
        }
    }

    /// Whether the log did not take the last group.
    pub(super) fn is_refusing(&self) -> bool {
        self.state().refused.is_some()
    }

    /// The reason, if it has failed.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.state().check()
    }

    /// Whether writes pass: it has not failed, sled moves, and the log took the last group.
    pub(super) fn moves(&self) -> Result<(), Error> {
        let state = self.state();
        state.check()?;
        match &state.refused {
            _ if state.is_stuck => Err(stuck(state.behind)),
            Some(why) => Err(Error::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Waits until fewer than `groups` are behind, or the store has failed. Sled can hang for good, after an error of the
    /// disk among others: who waited in vain once waits no more until it moves.
    pub(super) fn wait_until_behind_less(&self, groups: usize, patience: Duration) -> Result<(), Error> {
        let patience = if self.state().is_stuck { Duration::ZERO } else { patience };
        let waits = |state: &mut State| state.behind >= groups && state.failed.is_none();
        let waited = self.changed.wait_timeout_while(self.state(), patience, waits);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        state.check()?;
        if !timeout.timed_out() {
            return Ok(());
        }
        if !state.is_stuck {
            tracing::error!(groups = state.behind, "sled does not move; nothing is written until it does");
        }
        state.is_stuck = true;
        Err(stuck(state.behind))
    }

    /// Waits until sled holds everything up to a revision. Writing may have failed: reading goes on.
    pub(super) fn wait_until_applied(&self, revision: Revision, patience: Duration) -> Result<(), Error> {
        let until = Instant::now() + patience;
        let mut state = self.state();
        while state.applied < revision {
            if let Some(why) = &state.failed {
                return Err(Error::Failed(why.clone()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Unavailable("the records are behind the log".into()));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> Result<(), Error> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(Error::Failed(why.clone())))
    }
}

fn stuck(groups: usize) -> Error {
    Error::Unavailable(format!("the records are {groups} groups behind the log and do not move"))
}
