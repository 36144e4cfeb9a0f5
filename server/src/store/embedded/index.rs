//! Which records there are and where they stand: what expectations are checked against, and what sled is checked with.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest as _, Sha256};

use crate::store::{Change, Conflict, Expect, Key, Revision, Transaction};

/// What becomes of keys: put at a revision, or deleted.
pub(super) type Writes = BTreeMap<Key, Option<(Revision, Arc<[u8]>)>>;

/// Every record's key and revision.
#[derive(Debug)]
pub(super) struct Index {
    revisions: BTreeMap<Key, Revision>,
    digest: Digest,
}

/// Tells whether a set of records is the right one: none missing, none too many, none of another revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    /// How many.
    pub(super) records: u64,
    /// The sum of a hash of each key with its revision, so that a change of one record costs one record.
    pub(super) sum: u128,
}

impl Digest {
    /// Adds a record.
    pub(super) fn add(&mut self, key: &Key, revision: Revision) {
        self.records = self.records.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, revision));
    }

    fn remove(&mut self, key: &Key, revision: Revision) {
        self.records = self.records.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, revision));
    }
}

fn hash(key: &Key, revision: Revision) -> u128 {
    let hash = Sha256::new().chain_update(revision.0.to_le_bytes()).chain_update(key.as_str()).finalize();
    hash.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes))
}

impl Index {
    /// The index of these records, whose digest is known.
    pub(super) fn new(revisions: BTreeMap<Key, Revision>, digest: Digest) -> Self {
        Self { revisions, digest }
    }

    /// Of all its records.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Takes over what is durable now.
    pub(super) fn absorb(&mut self, writes: &Writes) {
        for (key, write) in writes {
            let before = match write {
                Some((revision, _)) => {
                    self.digest.add(key, *revision);
                    self.revisions.insert(key.clone(), *revision)
                }
                None => self.revisions.remove(key),
            };
            if let Some(revision) = before {
                self.digest.remove(key, revision);
            }
        }
    }
}

/// The transactions of one group, on top of what is durable.
#[derive(Debug)]
pub(super) struct Evaluation<'a> {
    index: &'a Index,
    writes: Writes,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        Self { index, writes: Writes::new() }
    }

    /// Checks a transaction's expectations.
    pub(super) fn check(&self, transaction: &Transaction) -> Result<(), Conflict> {
        for (key, expect) in &transaction.expectations {
            let found = match expect {
                Expect::NoneBelow => self.first_below(key),
                Expect::Absent | Expect::Present | Expect::At(_) => self.find(key),
            };
            if !expect.holds(found) {
                return Err(Conflict { key: key.clone(), found });
            }
        }
        Ok(())
    }

    fn find(&self, key: &Key) -> Option<Revision> {
        match self.writes.get(key) {
            Some(write) => write.as_ref().map(|(revision, _)| *revision),
            None => self.index.revisions.get(key).copied(),
        }
    }

    /// Where the first record stands whose key begins so: of what is durable and not deleted by this group, or put by it.
    fn first_below(&self, prefix: &Key) -> Option<Revision> {
        let is_below = |key: &Key| key.as_str().starts_with(prefix.as_str());
        let durable = self.index.revisions.range(prefix.clone()..).take_while(|(key, _)| is_below(key));
        let written = self.writes.range(prefix.clone()..).take_while(|(key, _)| is_below(key));
        let durable = durable.map(|(key, _)| key).find(|key| self.find(key).is_some());
        let written = written.map(|(key, _)| key).find(|key| self.find(key).is_some());
        durable.into_iter().chain(written).min().and_then(|key| self.find(key))
    }

    /// Makes changes, in order.
    pub(super) fn apply(&mut self, changes: &[Change], revision: Revision) {
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    self.writes.insert(key.clone(), Some((revision, Arc::clone(value))));
                }
                Change::Delete(key) => {
                    self.writes.insert(key.clone(), None);
                }
                Change::DeletePrefix(prefix) => self.delete_prefix(prefix),
            }
        }
    }

    fn delete_prefix(&mut self, prefix: &Key) {
        let begins = |key: &Key| key.as_str().starts_with(prefix.as_str());
        for (_, write) in self.writes.range_mut(prefix.clone()..).take_while(|(key, _)| begins(key)) {
            *write = None;
        }
        for (key, _) in self.index.revisions.range(prefix.clone()..).take_while(|(key, _)| begins(key)) {
            self.writes.insert(key.clone(), None);
        }
    }

    /// What has become of every key that was touched.
    pub(super) fn into_writes(self) -> Writes {
        self.writes
    }
}
