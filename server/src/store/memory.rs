//! The model: a store in memory, simple enough to be right by reading it. Every other store is compared with it.
//!
//! For tests alone: no configuration leads here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Change, Commit, Condition, Conflict, Epoch, Error, Expect, Follow, Key, Load, Position, Record, Revision, Store,
    Transaction,
    history::{History, Limits},
};

/// Most bytes of commits kept for followers.
const HISTORY_BYTES: usize = 64 << 20;
/// Most commits kept for followers, unless told otherwise.
const HISTORY_COMMITS: usize = 1 << 16;
/// Most records in a page. Small, so that tests see several.
const PAGE_RECORDS: usize = 16;

/// A store in memory. Clones are handles of one store.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    history: Arc<History>,
}

#[derive(Debug)]
struct State {
    records: BTreeMap<Key, (Revision, Arc<[u8]>)>,
    head: Position,
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_history(HISTORY_COMMITS)
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that keeps this many commits for followers; those further behind see a gap.
    pub fn with_history(commits: usize) -> Self {
        let head = Position { epoch: Epoch(1), revision: Revision(0) };
        let limits = Limits { commits, bytes: HISTORY_BYTES };
        let state = State { records: BTreeMap::new(), head };
        Self { state: Arc::new(Mutex::new(state)), history: Arc::new(History::new(head, limits)) }
    }

    /// As after a restore, which all followers are told to load.
    #[cfg(test)]
    pub(crate) fn raise_epoch(&self) {
        self.state().head.epoch.0 += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Memory {
    async fn load(&self) -> Result<Box<dyn Load>, Error> {
        let state = self.state();
        let record = |(key, (revision, value)): (&Key, &(Revision, Arc<[u8]>))| Record {
            key: key.clone(),
            value: Arc::clone(value),
            revision: *revision,
        };
        let records: Vec<_> = state.records.iter().map(record).collect();
        Ok(Box::new(Pages { position: state.head, records: records.into_iter() }))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, Error> {
        transaction.check()?;
        let mut state = self.state();
        transaction.check_epoch(state.head.epoch)?;
        for (key, expect) in &transaction.expectations {
            let found = match expect {
                Expect::NoneBelow => {
                    let first = state.records.range(key.clone()..).next();
                    first.filter(|(first, _)| first.as_str().starts_with(key.as_str())).map(|(_, record)| record)
                }
                _ => state.records.get(key),
            };
            let found = found.map(|(revision, _)| *revision);
            if !expect.holds(found) {
                return Ok(Err(Conflict { key: key.clone(), found }));
            }
        }
        // Steps of one and two: the contract allows gaps, so its users must meet some.
        let before = state.head.revision.0;
        let revision = Revision(before + 1 + before % 2);
        for change in &transaction.changes {
            match change {
                Change::Put(key, value) => drop(state.records.insert(key.clone(), (revision, Arc::clone(value)))),
                Change::Delete(key) => drop(state.records.remove(key)),
                Change::DeletePrefix(prefix) => {
                    state.records.retain(|key, _| !key.as_str().starts_with(prefix.as_str()))
                }
            }
        }
        state.head.revision = revision;
        // Published under the lock: followers see commits in the order they were made.
        self.history.publish([Commit { position: state.head, changes: transaction.changes.into() }]);
        Ok(Ok(state.head))
    }

    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, Error> {
        Ok(Box::new(self.history.follow(after)))
    }

    async fn latest(&self) -> Result<Position, Error> {
        Ok(self.state().head)
    }

    async fn condition(&self) -> Condition {
        Condition::of("memory")
    }
}

struct Pages {
    position: Position,
    records: std::vec::IntoIter<Record>,
}

#[async_trait]
impl Load for Pages {
    fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        let page: Vec<_> = self.records.by_ref().take(PAGE_RECORDS).collect();
        Ok((!page.is_empty()).then_some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Backend};

    crate::store_conformance!(Model);

    struct Model;

    #[async_trait]
    impl Backend for Model {
        async fn create(&self) -> [Arc<dyn Store>; 2] {
            let memory = Memory::with_history(conformance::HISTORY_COMMITS);
            [Arc::new(memory.clone()), Arc::new(memory)]
        }

        async fn reopen(&self, _: [Arc<dyn Store>; 2]) -> Option<[Arc<dyn Store>; 2]> {
            None
        }
    }
}
