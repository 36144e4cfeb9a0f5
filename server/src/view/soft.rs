//! Soft state in the view: starts of workloads, and when secrets were used. What is not written yet is the vault's.

use std::{collections::HashMap, sync::Arc};

use coffer_proto::name::{Scope, Workload};
use prost::Message as _;

use super::{
    apply::{ENTRY_BYTES, uid},
    state::State,
    tally,
};
use crate::{
    record::{self, StartsRecord, UsedRecord, key},
    seal::Uid,
    store::Key,
};

/// The newest starts of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Starts {
    /// The incarnation of its scope; none if the scope did not exist.
    pub scope_uid: Option<Uid>,
    /// Newest first.
    pub starts: Vec<Start>,
    /// When a used-up start token was presented again.
    pub token_replay_time: Option<prost_types::Timestamp>,
}

/// One start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Unique for ever.
    pub uid: Uid,
    /// When.
    pub time: prost_types::Timestamp,
    /// With which environment.
    pub revision: String,
    /// Who fetched it.
    pub principal: String,
}

/// When secrets of a scope were used last, by uid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// The incarnation of the scope.
    pub scope_uid: Option<Uid>,
    /// Those that were.
    pub secrets: HashMap<Uid, LastUsed>,
}

/// When one secret was used last, in seconds since 1970; 0 if never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastUsed {
    /// By a start.
    pub injected: i64,
    /// By a template.
    pub rendered: i64,
}

impl LastUsed {
    /// The later of both, each.
    pub fn merge(self, other: LastUsed) -> LastUsed {
        LastUsed { injected: self.injected.max(other.injected), rendered: self.rendered.max(other.rendered) }
    }
}

impl State {
    /// The starts of a workload that are written. Those of a deleted scope are nobody's.
    pub fn starts(&self, workload: &Workload) -> Option<&Arc<Starts>> {
        let starts = self.starts.get(&key::starts(workload))?;
        let scope_uid = self.scope(workload.scope()).map(|scope| scope.uid);
        // A workload may have started before its scope was made.
        (starts.scope_uid.is_none() || starts.scope_uid == scope_uid).then_some(starts)
    }

    /// The workloads with written starts whose names begin with a prefix and come after `after`, in order.
    pub fn started_from(&self, prefix: &str, after: &str) -> impl Iterator<Item = Workload> + use<'_> {
        let prefix = format!("start/{prefix}");
        let start = Key::new(format!("start/{after}"));
        let range = self.starts.range(start.max(Key::new(prefix.as_str()))..);
        range
            .take_while(move |(key, _)| key.as_str().starts_with(&prefix))
            .inspect(|_| tally::add())
            .filter_map(|(key, _)| Workload::parse(key.as_str().strip_prefix("start/")?).ok())
    }

    /// When a scope's secrets were used, as far as it is written.
    pub fn used(&self, scope: &Scope) -> Option<&Arc<Used>> {
        let used = self.used.get(scope)?;
        let uid = self.scope(scope).map(|scope| scope.uid);
        (used.scope_uid == uid).then_some(used)
    }

    /// The part of the memory that soft state takes, in bytes.
    pub fn soft_bytes(&self) -> u64 {
        self.soft_bytes
    }

    /// The part of it that one account, project or organization takes.
    pub fn soft_bytes_of(&self, top: &Scope) -> u64 {
        self.soft_bytes_of.get(top).copied().unwrap_or(0)
    }

    fn add_soft(&mut self, top: Scope, bytes: u64) {
        self.memory_bytes += bytes;
        self.soft_bytes += bytes;
        *self.soft_bytes_of.entry(top).or_default() += bytes;
    }

    fn remove_soft(&mut self, top: &Scope, bytes: u64) {
        self.memory_bytes -= bytes;
        self.soft_bytes -= bytes;
        if let Some(of_top) = self.soft_bytes_of.get_mut(top) {
            *of_top -= bytes;
            if *of_top == 0 {
                self.soft_bytes_of.remove(top);
            }
        }
    }

    pub(super) fn put_starts(&mut self, key: &Key, bytes: &[u8]) -> Result<(), record::Error> {
        let understood = record::Error::NotUnderstood;
        let plaintext = self.open(key, bytes)?;
        let stored = StartsRecord::decode(plaintext.as_slice()).map_err(|_| understood)?;
        let start = |start: record::StartRecord| {
            let uid = uid(&start.uid)?.ok_or(understood)?;
            let time = start.time.ok_or(understood)?;
            Ok(Start { uid, time, revision: start.revision, principal: start.principal })
        };
        let starts = Starts {
            scope_uid: uid(&stored.scope_uid)?,
            starts: stored.starts.into_iter().map(start).collect::<Result<_, record::Error>>()?,
            token_replay_time: stored.token_replay_time,
        };
        self.delete_starts(key);
        self.add_soft(top_of(key).ok_or(understood)?, starts.bytes());
        self.starts.insert(key.clone(), Arc::new(starts));
        Ok(())
    }

    pub(super) fn delete_starts(&mut self, key: &Key) {
        if let (Some(old), Some(top)) = (self.starts.remove(key), top_of(key)) {
            self.remove_soft(&top, old.bytes());
        }
    }

    /// The keys of starts below a prefix.
    pub(super) fn starts_below(&self, prefix: &str) -> Vec<Key> {
        let range = self.starts.range(Key::new(prefix)..).map(|(key, _)| key);
        range.take_while(|key| key.as_str().starts_with(prefix)).cloned().collect()
    }

    pub(super) fn put_used(&mut self, scope: Scope, key: &Key, bytes: &[u8]) -> Result<(), record::Error> {
        let plaintext = self.open(key, bytes)?;
        let stored = UsedRecord::decode(plaintext.as_slice()).map_err(|_| record::Error::NotUnderstood)?;
        let secret = |secret: record::UsedSecretRecord| {
            let uid = (u128::from(secret.uid_high) << 64) | u128::from(secret.uid_low);
            (Uid(uid.to_be_bytes()), LastUsed { injected: secret.injected, rendered: secret.rendered })
        };
        let secrets = stored.secrets.into_iter().map(secret).collect();
        let used = Used { scope_uid: uid(&stored.scope_uid)?, secrets };
        self.delete_used(&scope);
        self.add_soft(scope.top(), used_bytes(&used));
        self.used.insert(scope, Arc::new(used));
        Ok(())
    }

    pub(super) fn delete_used(&mut self, scope: &Scope) {
        if let Some(old) = self.used.remove(scope) {
            self.remove_soft(&scope.top(), used_bytes(&old));
        }
    }
}

/// About what a start takes: its own text and its part of the record.
const START_BYTES: u64 = 400;
/// About what a used secret takes, in a map and in the record.
const USED_BYTES: u64 = 100;

impl Starts {
    /// About what they take, in bytes.
    pub fn bytes(&self) -> u64 {
        ENTRY_BYTES + START_BYTES * self.starts.len() as u64
    }
}

/// Whose the starts are that have this key.
fn top_of(key: &Key) -> Option<Scope> {
    match key::parse(key) {
        Some(key::Kind::Starts(workload)) => Some(workload.scope().top()),
        _ => None,
    }
}

fn used_bytes(used: &Used) -> u64 {
    ENTRY_BYTES + USED_BYTES * used.secrets.len() as u64
}
