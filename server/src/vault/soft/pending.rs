//! What is not written yet.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::SystemTime,
};

use coffer_proto::{
    limits,
    name::{Scope, Workload},
};

use super::newest;
use crate::{
    seal::Uid,
    view::{LastUsed, OwnedSecret, ScopeState, Start, Starts, Used},
};

/// Workloads kept here while nothing can be written; starts of further ones are not known until something can.
const WORKLOADS_MAX: usize = 100_000;
/// Scopes kept here, in the same way.
const SCOPES_MAX: usize = 100_000;

/// Starts and uses since they were written last.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    pub starts: BTreeMap<Workload, Starts>,
    pub used: HashMap<Scope, Used>,
}

impl Pending {
    fn of(&mut self, workload: &Workload, scope_uid: Option<Uid>) -> Option<&mut Starts> {
        if self.starts.len() >= WORKLOADS_MAX && !self.starts.contains_key(workload) {
            return None;
        }
        let starts = self.starts.entry(workload.clone()).or_default();
        if starts.scope_uid != scope_uid && starts.scope_uid.is_some() {
            // Of a scope that was deleted meanwhile.
            *starts = Starts::default();
        }
        starts.scope_uid = scope_uid;
        Some(starts)
    }

    pub fn started(&mut self, workload: &Workload, scope_uid: Option<Uid>, start: Start) {
        if let Some(starts) = self.of(workload, scope_uid) {
            starts.starts.insert(0, start);
            newest(&mut starts.starts);
        }
    }

    pub fn replayed(&mut self, workload: &Workload, scope_uid: Option<Uid>, time: prost_types::Timestamp) {
        if let Some(starts) = self.of(workload, scope_uid) {
            starts.token_replay_time = Some(time);
        }
    }

    pub fn used(&mut self, secret: &OwnedSecret, used: LastUsed) {
        let scope = &secret.scope;
        if self.used.len() >= SCOPES_MAX && !self.used.contains_key(&scope.name) {
            return;
        }
        let of_scope = self.used.entry(scope.name.clone()).or_default();
        if of_scope.scope_uid != Some(scope.uid) {
            *of_scope = Used { scope_uid: Some(scope.uid), secrets: HashMap::new() };
        }
        let last = of_scope.secrets.entry(secret.entry.meta.uid).or_default();
        *last = last.merge(used);
    }

    pub fn last_used(&self, scope: &ScopeState, uid: Uid) -> LastUsed {
        let used = self.used.get(&scope.name).filter(|used| used.scope_uid == Some(scope.uid));
        used.and_then(|used| used.secrets.get(&uid)).copied().unwrap_or_default()
    }

    /// What is written of a workload with what is not.
    pub fn merged(&self, workload: &Workload, scope_uid: Option<Uid>, written: Option<Starts>) -> Option<Starts> {
        let pending = self.starts.get(workload);
        let pending = pending.filter(|pending| pending.scope_uid.is_none() || pending.scope_uid == scope_uid);
        match (written, pending) {
            (written, None) => written,
            (None, Some(pending)) => Some(pending.clone()),
            (Some(mut written), Some(pending)) => {
                written.scope_uid = scope_uid;
                written.starts.extend(pending.starts.iter().cloned());
                newest(&mut written.starts);
                written.token_replay_time = pending.token_replay_time.or(written.token_replay_time);
                Some(written)
            }
        }
    }

    /// The workloads here whose names begin with a prefix and come after `after`.
    pub fn workloads(&self, prefix: &str, after: &str) -> Vec<Workload> {
        let from = (Bound::Excluded(after.max(prefix)), Bound::Unbounded);
        let names = self.starts.range::<str, _>(from).map(|(workload, _)| workload);
        names.take_while(|workload| workload.as_str().starts_with(prefix)).cloned().collect()
    }

    /// The newest start of a workload, with what is written of it.
    pub fn newest(&self, workload: &Workload, scope_uid: Option<Uid>, written: Option<&Starts>) -> Option<Starts> {
        let pending = self.starts.get(workload);
        let pending = pending.filter(|pending| pending.scope_uid.is_none() || pending.scope_uid == scope_uid);
        if written.is_none() && pending.is_none() {
            return None;
        }
        let known = || pending.into_iter().chain(written);
        let mut starts: Vec<Start> = known().filter_map(|starts| starts.starts.first().cloned()).collect();
        newest(&mut starts);
        starts.truncate(1);
        let token_replay_time = known().find_map(|starts| starts.token_replay_time);
        Some(Starts { scope_uid, starts, token_replay_time })
    }

    /// Takes out what was written, if nothing has come since.
    pub fn settle(&mut self, written: &Pending) {
        for (workload, starts) in &written.starts {
            if self.starts.get(workload) == Some(starts) {
                self.starts.remove(workload);
            }
        }
        for (scope, used) in &written.used {
            if self.used.get(scope) == Some(used) {
                self.used.remove(scope);
            }
        }
    }
}

/// Without what is too old to be kept.
pub(super) fn without_old(mut starts: Starts, now: SystemTime) -> Starts {
    let oldest = prost_types::Timestamp::from(now - limits::INSTANCE_TTL).seconds;
    starts.starts.retain(|start| start.time.seconds > oldest);
    starts.token_replay_time = starts.token_replay_time.filter(|time| time.seconds > oldest);
    starts
}
