//! Soft state: which workloads were started with what, and when secrets were used. It lives in memory, is merged with what
//! was written before, and written behind every few seconds, outside audit and consistency; a crash loses the last of it.
//!
//! - `pending`: what is not written yet.
//! - `behind`: writes it.
//! - `environments`: which names an environment revision stood for, as long as there is room.

mod behind;
mod environments;
mod pending;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coffer_proto::{
    limits,
    name::{Principal, VariableName, Workload},
};

use super::{Vault, environment::Environment};
use crate::{
    seal::{NoRandomness, Uid},
    view::{LastUsed, OwnedSecret, Start, Starts, State},
};

pub(super) use behind::write_behind;
use environments::Environments;
pub(super) use environments::Names;
use pending::Pending;

/// The soft state of a vault that is not in its store.
#[derive(Default)]
pub(super) struct Soft {
    pending: Mutex<Pending>,
    environments: Mutex<Environments>,
}

impl Soft {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn environments(&self) -> MutexGuard<'_, Environments> {
        self.environments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// A workload was started with an environment, or given it while it runs.
    pub(super) fn started(
        &self,
        workload: &Workload,
        scope_uid: Option<Uid>,
        principal: &Principal,
        revision: &str,
    ) -> Result<(), NoRandomness> {
        let time: prost_types::Timestamp = self.now().into();
        let start =
            Start { uid: Uid::random()?, time, revision: revision.to_owned(), principal: principal.to_string() };
        self.0.soft.pending().started(workload, scope_uid, start);
        self.0.view.tell_start(workload);
        Ok(())
    }

    /// The values of an environment were handed out.
    pub(super) fn injected(&self, environment: &Environment) {
        let used = LastUsed { injected: prost_types::Timestamp::from(self.now()).seconds, rendered: 0 };
        let mut pending = self.0.soft.pending();
        environment.effective.values().for_each(|secret| pending.used(secret, used));
    }

    /// Secrets were rendered into a template.
    pub(super) fn rendered<'a>(&self, secrets: impl IntoIterator<Item = &'a OwnedSecret>) {
        let used = LastUsed { injected: 0, rendered: prost_types::Timestamp::from(self.now()).seconds };
        let mut pending = self.0.soft.pending();
        secrets.into_iter().for_each(|secret| pending.used(secret, used));
    }

    /// A used-up start token of a workload was presented again.
    pub(super) fn replayed(&self, workload: &Workload) {
        let scope_uid = self.0.view.read().scope(workload.scope()).map(|scope| scope.uid);
        self.0.soft.pending().replayed(workload, scope_uid, self.now().into());
        self.0.view.tell_start(workload);
    }

    /// When a secret was used last.
    pub(super) fn last_used(&self, state: &State, secret: &OwnedSecret) -> LastUsed {
        let uid = secret.entry.meta.uid;
        let written = state.used(&secret.scope.name).and_then(|used| used.secrets.get(&uid)).copied();
        written.unwrap_or_default().merge(self.0.soft.pending().last_used(&secret.scope, uid))
    }

    /// The starts of a workload that are still kept, newest first; none if it was not started or is forgotten.
    pub(super) fn starts(&self, state: &State, workload: &Workload) -> Option<Starts> {
        let scope_uid = state.scope(workload.scope()).map(|scope| scope.uid);
        let written = state.starts(workload).map(|starts| starts.as_ref().clone());
        let merged = self.0.soft.pending().merged(workload, scope_uid, written)?;
        let kept = pending::without_old(merged, self.now());
        (!kept.starts.is_empty() || kept.token_replay_time.is_some()).then_some(kept)
    }

    /// The newest of them alone.
    pub(super) fn newest_start(&self, state: &State, workload: &Workload) -> Option<Starts> {
        let scope_uid = state.scope(workload.scope()).map(|scope| scope.uid);
        let written = state.starts(workload).map(Arc::as_ref);
        let newest = self.0.soft.pending().newest(workload, scope_uid, written)?;
        let kept = pending::without_old(newest, self.now());
        (!kept.starts.is_empty() || kept.token_replay_time.is_some()).then_some(kept)
    }

    /// The workloads whose names begin with a prefix and come after `after` and that may have starts, in order; at most
    /// so many.
    pub(super) fn started_from(&self, state: &State, prefix: &str, after: &str, most: usize) -> Vec<Workload> {
        let unwritten = self.0.soft.pending().workloads(prefix, after);
        let written = state.started_from(prefix, after).filter(|workload| workload.as_str() > after);
        let mut all: Vec<_> = written.take(most).chain(unwritten).collect();
        all.sort();
        all.dedup();
        all.truncate(most);
        all
    }

    /// The names that differ between an older environment and this one; `None` if the old one is not remembered.
    pub(super) fn changed_since(&self, revision: &str, names: &Names) -> Option<Vec<VariableName>> {
        self.0.soft.environments().changed_since(revision, names)
    }

    /// Keeps the names of an environment that is handed out, so that its receiver can be told what changed since.
    pub(super) fn handed_out(&self, revision: &str, environment: &Environment) {
        if !self.0.soft.environments().knows(revision) {
            self.remember(revision, &Arc::new(Names::of(environment)));
        }
    }

    /// Keeps the names of an environment, so that later ones can be compared with it.
    pub(super) fn remember(&self, revision: &str, names: &Arc<Names>) {
        self.0.soft.environments().remember(revision, names);
    }
}

/// The newest of a workload's starts, as many as are kept.
fn newest(starts: &mut Vec<Start>) {
    starts.sort_by_key(|start| std::cmp::Reverse((start.time.seconds, start.time.nanos, start.uid)));
    starts.dedup_by_key(|start| start.uid);
    starts.truncate(limits::WORKLOAD_INSTANCES);
}

#[cfg(test)]
mod tests;
