//! Writes soft state behind, and forgets what is too old.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Weak,
    time::Duration,
};

use coffer_proto::{
    limits,
    name::{Scope, Workload},
};
use prost::Message;
use zeroize::Zeroizing;

use super::{super::Inner, Pending, Vault, pending::without_old};
use crate::{
    record::{StartRecord, StartsRecord, UsedRecord, UsedSecretRecord, key, seal_system},
    seal::Uid,
    store::{Change, Expect, Key, Transaction},
    vault::{Error, write::system_key},
    view::{Starts, State, Used},
};

/// How often what is new is written.
const INTERVAL: Duration = Duration::from_secs(5);
/// Every so many rounds everything is looked through for what is too old.
const FORGET_EVERY: u32 = 120;
/// Records in one transaction: each expects its scope, all expect the key, and a transaction has at most 100
/// expectations.
const RECORDS: usize = 90;
/// Workloads looked at under one guard.
const LOOKED_AT: usize = 1_000;
/// Bytes in one transaction.
const BYTES: usize = 1024 * 1024;
/// The share of the memory ceiling that soft state may take, in percent: whoever may start workloads may name any
/// number of them, and must not crowd out secrets by it.
const MEMORY_PERCENT: u64 = 10;

/// Runs until the vault is gone.
pub(in crate::vault) async fn write_behind(vault: Weak<Inner>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 1_u32.. {
        interval.tick().await;
        let Some(inner) = vault.upgrade() else { return };
        let vault = Vault(inner);
        let result = vault.write_soft_state(round % FORGET_EVERY == 0).await;
        if let Err(error) = result {
            tracing::debug!(%error, "starts and uses could not be written; trying again later");
        }
    }
}

/// One record to put or delete, and the scope that must still be there.
struct Write {
    change: Change,
    scope: Option<Key>,
}

impl Vault {
    /// Writes what is pending, and removes what is too old if `forget`. Also at the end of a server.
    pub async fn write_soft_state(&self, forget: bool) -> Result<(), Error> {
        let pending = self.0.soft.pending().clone();
        let (mut writes, system, epoch) = {
            let state = self.0.view.read();
            let mut writes = self.starts_to_write(&state, &pending)?;
            writes.extend(self.used_to_write(&state, &pending)?);
            (writes, system_key(&state)?.at.clone(), state.position().epoch)
        };
        if forget {
            writes.extend(self.starts_to_forget());
        }
        while !writes.is_empty() {
            let batch = next_batch(&mut writes);
            let mut expectations: Vec<_> = batch.iter().filter_map(|write| write.scope.clone()).collect();
            expectations.sort();
            expectations.dedup();
            let expectations = expectations
                .into_iter()
                .map(|key| (key, Expect::Present))
                .chain([(system.key.clone(), Expect::At(system.revision))])
                .collect();
            let changes = batch.into_iter().map(|write| write.change).collect();
            let transaction = Transaction::decided(epoch, expectations, changes);
            let transaction = transaction.map_err(|_| crate::seal::NoRandomness)?;
            match self.0.store.commit(transaction).await? {
                Ok(position) => self.0.view.reached(position).await?,
                // A scope was deleted meanwhile, or the key changed; the next round does without it.
                Err(_conflict) => return Ok(()),
            }
        }
        self.0.soft.pending().settle(&pending);
        Ok(())
    }

    fn starts_to_write(&self, state: &State, pending: &Pending) -> Result<Vec<Write>, Error> {
        let mut room = Room::new(self.0.limits.memory_bytes / 100 * MEMORY_PERCENT, state);
        let mut without_room = 0_usize;
        let mut puts = BTreeMap::new();
        let mut new: BTreeMap<&Scope, Vec<&Workload>> = BTreeMap::new();
        for workload in pending.starts.keys() {
            let scope = state.scope(workload.scope());
            let written = state.starts(workload).map(|starts| starts.as_ref().clone());
            let (is_new, old_bytes) = (written.is_none(), written.as_ref().map_or(0, Starts::bytes));
            let Some(merged) = pending.merged(workload, scope.map(|scope| scope.uid), written) else { continue };
            let mut merged = without_old(merged, self.now());
            if !room.take(workload.scope(), old_bytes, merged.bytes()) {
                // By the newest one it is told whether it must be restarted.
                merged.starts.truncate(1);
                if !room.take(workload.scope(), old_bytes, merged.bytes()) {
                    without_room += 1;
                    continue;
                }
            }
            if is_new {
                new.entry(workload.scope()).or_default().push(workload);
            }
            let change = self.put(state, key::starts(workload), &starts_record(&merged))?;
            let write = Write { change, scope: scope.map(|scope| scope.at.key.clone()) };
            puts.insert(workload.clone(), (last_seen(&merged), write));
        }
        if without_room > 0 {
            tracing::warn!(
                workloads = without_room,
                "no room to remember that these were started: raise limits.memory_bytes"
            );
        }
        let mut deletes = Vec::new();
        for (scope, new) in new {
            for workload in crowded_out(state, scope, new, &puts) {
                puts.remove(&workload);
                if state.starts(&workload).is_some() {
                    deletes.push(Write { change: Change::Delete(key::starts(&workload)), scope: None });
                }
            }
        }
        Ok(puts.into_values().map(|(_, write)| write).chain(deletes).collect())
    }

    fn used_to_write(&self, state: &State, pending: &Pending) -> Result<Vec<Write>, Error> {
        let mut writes = Vec::new();
        for (name, unwritten) in &pending.used {
            let Some(scope) = state.scope(name).filter(|scope| unwritten.scope_uid == Some(scope.uid)) else {
                continue;
            };
            let mut merged = state.used(name).map(|used| used.as_ref().clone()).unwrap_or_default();
            merged.scope_uid = Some(scope.uid);
            for (uid, used) in &unwritten.secrets {
                let last = merged.secrets.entry(*uid).or_default();
                *last = last.merge(*used);
            }
            // Of deleted secrets nothing is kept, which also bounds the record.
            let living: std::collections::HashSet<Uid> = scope.secrets.values().map(|secret| secret.meta.uid).collect();
            merged.secrets.retain(|uid, _| living.contains(uid));
            let change = self.put(state, key::used(name), &used_record(&merged))?;
            writes.push(Write { change, scope: Some(scope.at.key.clone()) });
        }
        Ok(writes)
    }

    /// Some at a time, because commits wait while the state is looked at.
    fn starts_to_forget(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut after = String::new();
        loop {
            let state = self.0.view.read();
            let known = state.started_from("", &after).filter(|workload| workload.as_str() > after.as_str());
            let known: Vec<_> = known.take(LOOKED_AT).collect();
            let Some(last) = known.last() else { return writes };
            after = last.to_string();
            let forgotten = known.iter().filter(|workload| self.starts(&state, workload).is_none());
            writes
                .extend(forgotten.map(|workload| Write { change: Change::Delete(key::starts(workload)), scope: None }));
        }
    }

    fn put(&self, state: &State, key: Key, message: &impl Message) -> Result<Change, Error> {
        let system = system_key(state)?;
        let plaintext = Zeroizing::new(message.encode_to_vec());
        let sealed = seal_system(state.store(), &system.key, &key, &plaintext)?;
        Ok(Change::Put(key, sealed.into()))
    }
}

/// The workloads of a scope that started longest ago, written or not, of which there is no more room for so many.
fn crowded_out(
    state: &State,
    scope: &Scope,
    new: Vec<&Workload>,
    puts: &BTreeMap<Workload, (Seen, Write)>,
) -> Vec<Workload> {
    let prefixes = [format!("{scope}/servers/"), format!("{scope}/sandboxes/")];
    let written = prefixes.iter().flat_map(|prefix| state.started_from(prefix, ""));
    // What is left of a deleted scope's counts for nothing, and is forgotten in time.
    let written = written.filter(|workload| state.starts(workload).is_some());
    let seen = |workload: Workload| {
        let written = || state.starts(&workload).map_or(Seen::default(), |starts| last_seen(starts));
        (puts.get(&workload).map_or_else(written, |(seen, _)| *seen), workload)
    };
    let mut all: Vec<_> = written.chain(new.into_iter().cloned()).map(seen).collect();
    let over = all.len().saturating_sub(limits::SCOPE_INSTANCE_WORKLOADS);
    all.sort();
    all.into_iter().take(over).map(|(_, workload)| workload).collect()
}

/// Seconds and nanoseconds.
type Seen = (i64, i32);

/// When a workload last gave cause to remember it.
fn last_seen(starts: &Starts) -> Seen {
    let known = starts.starts.first().map(|start| &start.time).into_iter().chain(&starts.token_replay_time);
    known.map(|time| (time.seconds, time.nanos)).max().unwrap_or_default()
}

/// What starts may still take. However many workloads one account, project or organization starts, as much as it takes is
/// left for all others: alone it has half of the room.
struct Room<'a> {
    left: u64,
    state: &'a State,
    taken: HashMap<Scope, u64>,
}

impl<'a> Room<'a> {
    fn new(bytes: u64, state: &'a State) -> Self {
        Self { left: bytes.saturating_sub(state.soft_bytes()), state, taken: HashMap::new() }
    }

    /// Takes what a record needs that is written over an old one, if there is so much. What shrinks always fits.
    fn take(&mut self, scope: &Scope, old: u64, new: u64) -> bool {
        let more = new.saturating_sub(old);
        let top = scope.top();
        let of_top = self.taken.entry(top).or_insert_with_key(|top| self.state.soft_bytes_of(top));
        let fits = more == 0 || *of_top + more <= self.left.saturating_sub(more);
        if fits {
            *of_top += more;
            self.left -= more;
        }
        fits
    }
}

fn next_batch(writes: &mut Vec<Write>) -> Vec<Write> {
    let mut bytes = 0;
    let fits = writes.iter().take(RECORDS).take_while(|write| {
        bytes += write.change.bytes();
        bytes <= BYTES
    });
    let count = fits.count().max(1);
    let rest = writes.split_off(count);
    std::mem::replace(writes, rest)
}

fn starts_record(starts: &Starts) -> StartsRecord {
    let start = |start: &crate::view::Start| StartRecord {
        uid: start.uid.0.to_vec(),
        time: Some(start.time),
        revision: start.revision.clone(),
        principal: start.principal.clone(),
    };
    StartsRecord {
        scope_uid: starts.scope_uid.map(|uid| uid.0.to_vec()).unwrap_or_default(),
        starts: starts.starts.iter().map(start).collect(),
        token_replay_time: starts.token_replay_time,
    }
}

fn used_record(used: &Used) -> UsedRecord {
    let mut secrets: Vec<_> = used.secrets.iter().collect();
    secrets.sort_by_key(|(uid, _)| **uid);
    let secret = |(uid, used): (&Uid, &crate::view::LastUsed)| {
        let uid = u128::from_be_bytes(uid.0);
        UsedSecretRecord {
            uid_high: (uid >> 64) as u64,
            uid_low: uid as u64,
            injected: used.injected,
            rendered: used.rendered,
        }
    };
    UsedRecord {
        scope_uid: used.scope_uid.map(|uid| uid.0.to_vec()).unwrap_or_default(),
        secrets: secrets.into_iter().map(secret).collect(),
    }
}
