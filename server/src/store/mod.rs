//! The store: durable, ordered transactions on sealed records.
//!
//! It sees keys and sealed bytes, never a value, and it is untrusted: whatever it returns is checked when it is opened.
//! Four verbs, the same for every implementation and decorator:
//!
//! - [`Store::load`]: everything, of one position.
//! - [`Store::commit`]: one transaction, all or nothing; its conflict is a value, not an error.
//! - [`Store::changes`]: what was committed after a position, whole transactions in order, or [`Next::Gap`].
//! - [`Store::latest`]: the position every later read must have reached.
//!
//! `conformance` is the contract as tests; every store and decorator passes it.

mod careful;
#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod etcd;
#[cfg(test)]
pub(crate) mod faulty;
mod history;
#[cfg(test)]
pub(crate) mod memory;
mod moment;
mod operate;
pub mod snapshot;
mod time;

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;

use crate::escape;

pub use moment::Moment;
pub use operate::{Backup, CHUNK_BYTES, Chunks, Condition, Snapshot, Writes};
pub use time::Millis;

/// Most changes in one transaction.
pub const TRANSACTION_CHANGES: usize = 1_024;
/// Most expectations in one transaction.
pub const TRANSACTION_EXPECTATIONS: usize = 100;
/// Largest transaction: the sum of its keys and values, in bytes.
pub const TRANSACTION_BYTES: usize = 1_280 * 1024;
/// Largest record, in bytes.
pub const RECORD_BYTES: usize = 96 * 1024;
/// Longest key, in bytes.
pub const KEY_BYTES: usize = 1_024;

/// What a transaction is refused with whose epoch is not the store's any more.
const RESTORED: &str = "it was restored meanwhile";

/// Largest revision and epoch that are believed. Nobody counts so far, and what comes after can be computed.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Orders the transactions of one epoch: increases with each, with gaps. The first is at least 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Rises at every restore, so that revisions of before and after are never mistaken for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A point in the store's history. Epochs count first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch.
    pub epoch: Epoch,
    /// The last revision included.
    pub revision: Revision,
}

/// Names a record. Sorted by its bytes; printable, and never secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// A record as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its sealed bytes.
    pub value: Arc<[u8]>,
    /// The transaction that put it last.
    pub revision: Revision,
}

/// What must hold of a key for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is no such record.
    Absent,
    /// There is one, whichever.
    Present,
    /// There is one, last put at this revision.
    At(Revision),
    /// There is no record whose key begins with this one, nor this one itself.
    NoneBelow,
}

/// What a transaction does to a key. Applied in order; a later change of the same key wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts a record.
    Put(Key, Arc<[u8]>),
    /// Deletes a record, if there is one.
    Delete(Key),
    /// Deletes every record whose key begins with this one.
    DeletePrefix(Key),
}

/// Names a transaction, so that a store can find out what became of it. Random.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 16]);

/// All of its changes happen if all of its expectations hold, otherwise none.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Its name.
    pub id: TransactionId,
    /// Of which epoch everything is that it was decided on: a revision of another epoch may be another record's. In any
    /// other one it is [`Error::Unavailable`]; `None` if nothing was read for it.
    pub epoch: Option<Epoch>,
    /// What must hold, of any keys.
    pub expectations: Vec<(Key, Expect)>,
    /// What happens, in order. At least one.
    pub changes: Vec<Change>,
}

/// The first expectation that did not hold. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key.
    pub key: Key,
    /// Where its record stands instead, if there is one.
    pub found: Option<Revision>,
}

/// A committed transaction, as followers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where it stands.
    pub position: Position,
    /// What it did, in order: as it was given, or what that came to, if the store tells no more.
    pub changes: Arc<[Change]>,
}

/// Everything, of one position, in pages.
#[async_trait]
pub trait Load: Send {
    /// The position that all pages show.
    fn position(&self) -> Position;
    /// The next page, ordered by key, or `None` after the last. A page has at least one record and at most about 1 MiB.
    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error>;
}

/// What comes next for a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next transaction.
    Commit(Commit),
    /// History from here on is not kept any more, or the epoch rose: load again.
    Gap,
}

/// Follows the store. Dropping it ends it.
#[async_trait]
pub trait Follow: Send {
    /// Waits for the next transaction. Cancel-safe. After `Gap` or an error: ask [`Store::changes`] anew.
    async fn next(&mut self) -> Result<Next, Error>;
}

/// A store. Handles are cheap to share; every method may be called by many tasks at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Everything, of one position that includes all that was acknowledged before the call.
    async fn load(&self) -> Result<Box<dyn Load>, Error>;

    /// One transaction. `Ok(Ok(position))` is durable: it survives process death and power loss.
    ///
    /// Dropping the future does not undo: the transaction happens wholly or not at all, unseen.
    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, Error>;

    /// The transactions after a position, in order, none missing, none twice. What is not kept any more, of another
    /// epoch or ahead of the store is a gap, which the follower tells.
    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, Error>;

    /// A position that includes every transaction acknowledged before the call.
    async fn latest(&self) -> Result<Position, Error>;

    /// How it is. Answers at once, also when the store has failed.
    async fn condition(&self) -> Condition;

    /// Writes a snapshot of a position that includes all that was acknowledged before the call; the newest one is it
    /// already if nothing was committed since. One at a time: others wait.
    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Err(Error::Unavailable("this store keeps no snapshots".into()))
    }

    /// The snapshots kept, oldest first.
    async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        Ok(Vec::new())
    }

    /// A snapshot as [`Store::snapshot`] makes one, to be taken elsewhere.
    async fn backup(&self) -> Result<Backup, Error> {
        Err(Error::Unavailable("this store keeps no snapshots".into()))
    }
}

/// Why a store could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not answer now; nothing happened. Trying again may help.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// No room for what adds; nothing happened. Deletes still pass, and reads.
    #[error("the store is full: {0}")]
    Full(String),
    /// No room for anything; nothing happened. Reads still pass.
    #[error("the store takes no writes: {0}")]
    Exhausted(String),
    /// No room for a snapshot: how much it needs, and how much is free. Writes may pass.
    #[error("{0}")]
    NoRoom(String),
    /// What is of the past is not kept here, or not now; why. Nothing else is wrong.
    #[error("{0}")]
    NoHistory(String),
    /// The transaction may have happened or not, and may yet: an answer was lost, or a write or sync failed half way.
    #[error("the outcome of the transaction is not known: {0}")]
    Unknown(String),
    /// It will not work again without an operator: a failed sync, damage, a format it does not know.
    #[error("the store has failed: {0}")]
    Failed(String),
    /// The transaction breaks a limit of this module; nothing happened. A mistake of the caller.
    #[error("the transaction is invalid: {0}")]
    Invalid(String),
}

impl Key {
    /// A key.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TransactionId {
    /// A new random id.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Epoch {
    /// Refuses the store's epoch where it is not this one.
    pub(crate) fn check(self, of_store: Self) -> Result<(), Error> {
        if self == of_store { Ok(()) } else { Err(Error::Unavailable(RESTORED.into())) }
    }
}

impl Transaction {
    /// What was decided in an epoch, by a new name.
    pub fn decided(
        epoch: Epoch,
        expectations: Vec<(Key, Expect)>,
        changes: Vec<Change>,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self { id: TransactionId::random()?, epoch: Some(epoch), expectations, changes })
    }

    /// Checks the limits of this module.
    pub fn check(&self) -> Result<(), Error> {
        let invalid = |what: String| Err(Error::Invalid(what));
        if self.changes.is_empty() {
            return invalid("it changes nothing".into());
        }
        if self.changes.len() > TRANSACTION_CHANGES {
            return invalid(format!("{} changes; at most {TRANSACTION_CHANGES}", self.changes.len()));
        }
        if self.expectations.len() > TRANSACTION_EXPECTATIONS {
            return invalid(format!("{} expectations; at most {TRANSACTION_EXPECTATIONS}", self.expectations.len()));
        }
        for key in self.expectations.iter().map(|(key, _)| key).chain(self.changes.iter().map(Change::key)) {
            if key.as_str().is_empty() || key.as_str().len() > KEY_BYTES {
                return invalid(format!("a key of {} bytes; 1 to {KEY_BYTES}", key.as_str().len()));
            }
        }
        for change in &self.changes {
            if let Change::Put(key, value) = change
                && value.len() > RECORD_BYTES
            {
                return invalid(format!("{key}: a record of {} bytes; at most {RECORD_BYTES}", value.len()));
            }
        }
        let bytes: usize = self.changes.iter().map(Change::bytes).sum();
        if bytes > TRANSACTION_BYTES {
            return invalid(format!("{bytes} bytes; at most {TRANSACTION_BYTES}"));
        }
        Ok(())
    }

    /// Refuses it in another epoch than that in which it was decided.
    pub(crate) fn check_epoch(&self, epoch: Epoch) -> Result<(), Error> {
        self.epoch.map_or(Ok(()), |decided| decided.check(epoch))
    }

    /// Whether it only frees room: such transactions pass when the store is full.
    pub fn only_deletes(&self) -> bool {
        self.changes.iter().all(|change| !matches!(change, Change::Put(..)))
    }
}

impl Change {
    /// The key or prefix it concerns.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(key, _) | Change::Delete(key) | Change::DeletePrefix(key) => key,
        }
    }

    /// Its size: key and value, in bytes.
    pub fn bytes(&self) -> usize {
        let value = if let Change::Put(_, value) = self { value.len() } else { 0 };
        self.key().as_str().len() + value
    }
}

impl Expect {
    /// Whether it holds, given where the key's record stands; for [`Expect::NoneBelow`], where the first record does whose
    /// key begins so.
    pub fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Expect::Absent | Expect::NoneBelow => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::At(revision) => found == Some(revision),
        }
    }
}

/// For people: who can write the store's files chooses the text, and must not steer a terminal.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::text(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be EPOCH.REVISION, for example 1.4711")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, revision) = text.split_once('.').ok_or(InvalidPosition)?;
        let number =
            |text: &str| text.parse::<u64>().ok().filter(|number| *number <= NUMBER_MAX).ok_or(InvalidPosition);
        Ok(Self { epoch: Epoch(number(epoch)?), revision: Revision(number(revision)?) })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.revision.0)
    }
}
