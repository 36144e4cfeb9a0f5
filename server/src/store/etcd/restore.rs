//! Makes a store in etcd of what another one was.
//!
//! ```text
//!   {prefix}restore put, where nothing was ─► what an interrupted one left removed ─► restore put anew
//!       ─► records, many a transaction, several under way ─► restore put anew
//!       ─► all of them read again and compared ─► one transaction: restore deleted, store and head put
//! ```
//! Every transaction expects `restore` as this one put it last, and without `head` and `store` there is no store: one that
//! was interrupted is never taken for one. The next one puts its own `restore` in the place of the old one, so that nothing
//! of the old one lands any more, removes its records, and begins anew. In the same way nothing lands any more of a stage
//! that is over, when the network or a member has kept a first sending that was sent again since.

use std::{sync::Arc, time::Duration};

use coffer_proto::etcd::{Compare, KeyValue, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use tokio::task::{JoinError, JoinSet};

use super::{
    Etcd, EtcdOptions, OpenError,
    connect::{SHORT, Wait, range, txn},
    head::{Head, Stored, revision},
    keys::Keys,
    moment::Strict,
    open::{no_randomness, random},
    transaction::{Is, compare, delete, first, get, malformed, put, within},
    walk::Walk,
};
use crate::{
    clock::SystemClock,
    store::{Epoch, Error, Key, Moment, Position, Record, TRANSACTION_CHANGES, TransactionId, moment::Records},
};

/// Most records in one transaction.
const BATCH_RECORDS_MAX: usize = TRANSACTION_CHANGES;
/// A transaction is sent before its keys and values have more bytes than this, which leaves room for the prefix and for
/// what etcd puts around them.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Operations in one transaction within; there are at most 16 of those, and 128 is etcd's limit of both together.
const BATCH_WITHIN: usize = 64;
/// Transactions under way at once.
const UNDER_WAY_MAX: usize = 4;
/// For a transaction of the largest size.
const BATCH_WAIT: Wait = Wait { member_max: Duration::from_secs(5), total_max: Duration::from_secs(60) };
/// Records removed at once, of an interrupted restore.
const REMOVED_MAX: i64 = 1_000;

const MAGIC: &[u8; 6] = b"coffer";
const FORMAT: u8 = 1;

/// Why nothing was restored into etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// There is something already, or etcd does not do what it should.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another restore has begun there, or somebody removed the record of this one.
    #[error("another restore below {0} took the place of this one")]
    Replaced(String),
    /// What is read of etcd is not what was written.
    #[error("{0} is not in etcd as it is in the source")]
    Differs(Key),
    /// The source cannot be read any more.
    #[error("the source: {0}")]
    Source(Error),
}

impl From<Error> for RestoreError {
    fn from(error: Error) -> Self {
        Self::Open(error.into())
    }
}

impl Etcd {
    /// Makes a store of `origin`, of a new instance and the next epoch, where there is nothing but what an interrupted
    /// restore left. `progress` is told how many of how many steps are done: two for each record. Where the new store
    /// begins, and how many records it has: each was read again and is as in the source.
    pub async fn restore(
        options: EtcdOptions,
        origin: &dyn Moment,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(Position, u64), RestoreError> {
        let mut steps = Steps { done: 0, total: 2 * origin.about(), progress };
        let mut restore = Restore::begin(options).await?;
        restore.clear().await?;
        restore.fill(origin, &mut steps).await?;
        let records = restore.compare(origin, &mut steps).await?;
        Ok((restore.finish(origin).await?, records))
    }
}

/// Tells how far it is.
pub(super) struct Steps<'a> {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) progress: &'a mut (dyn FnMut(u64, u64) + Send),
}

impl Steps<'_> {
    fn add(&mut self, steps: usize) {
        self.done += steps as u64;
        (self.progress)(self.done, self.total);
    }
}

/// A restore under way.
#[derive(Clone)]
pub(super) struct Restore {
    store: Etcd,
    /// Where its own record stands, as it was put last.
    at: i64,
}

impl Restore {
    /// Puts the record that says that a restore is under way.
    pub(super) async fn begin(options: EtcdOptions) -> Result<Self, RestoreError> {
        let store = Etcd::connect(options, Arc::new(SystemClock)).await?;
        let (cluster, keys) = (&store.0.cluster, &store.0.keys);
        let mark = mark()?;
        let answer = cluster.read(SHORT, &marking(keys, &mark, keys.vacant()), txn).await?;
        let at = match (stands(&answer, &mark), found(&answer)) {
            (Some(at), _) => at,
            (None, Some(old)) => {
                let of_old = compare(keys.restore(), None, Is::Revision(old.mod_revision));
                let answer = cluster.read(SHORT, &marking(keys, &mark, vec![of_old]), txn).await?;
                stands(&answer, &mark).ok_or_else(|| RestoreError::Replaced(keys.prefix().to_owned()))?
            }
            (None, None) => return Err(OpenError::Exists(keys.prefix().to_owned()).into()),
        };
        Ok(Self { store, at })
    }

    /// Ends a stage: puts its record anew, so that nothing lands any more that was sent until now.
    async fn end_stage(&mut self) -> Result<(), RestoreError> {
        let mark = mark()?;
        let request = marking(&self.store.0.keys, &mark, vec![self.expected()]);
        let answer = self.store.0.cluster.read(BATCH_WAIT, &request, txn).await?;
        self.at = stands(&answer, &mark).ok_or_else(|| self.replaced())?;
        Ok(())
    }

    /// Removes what an interrupted restore left.
    pub(super) async fn clear(&mut self) -> Result<(), RestoreError> {
        let mut walk = Walk::below(self.store.0.keys.records().from);
        while let Some(next) = walk.range() {
            let look = RangeRequest {
                key: next.from,
                range_end: next.end,
                limit: REMOVED_MAX,
                keys_only: true,
                ..RangeRequest::default()
            };
            let answer = self.store.0.cluster.read(BATCH_WAIT, &look, range).await?;
            if let (Some(first), Some(last)) = (answer.kvs.first(), answer.kvs.last()) {
                let after = [&last.key[..], &[0]].concat();
                self.send(vec![delete(first.key.clone(), after)]).await?;
            }
            walk.seen(answer.kvs.iter().map(|key| key.key.as_slice()), answer.more);
        }
        self.end_stage().await
    }

    /// Writes the records.
    pub(super) async fn fill(&mut self, origin: &dyn Moment, steps: &mut Steps<'_>) -> Result<(), RestoreError> {
        let mut records = Records::of(origin.load());
        let mut under_way = JoinSet::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let next = records.next().await.map_err(RestoreError::Source)?;
            let size = next.as_ref().map_or(0, |record| record.key.as_str().len() + record.value.len());
            let is_full = batch.len() == BATCH_RECORDS_MAX || bytes + size > BATCH_BYTES_MAX;
            if (is_full || next.is_none()) && !batch.is_empty() {
                if under_way.len() == UNDER_WAY_MAX {
                    landed(under_way.join_next().await, steps)?;
                }
                let (sender, batch) = (self.clone(), std::mem::take(&mut batch));
                under_way.spawn(async move { sender.write(batch).await });
                bytes = 0;
            }
            let Some(record) = next else { break };
            bytes += size;
            batch.push(record);
        }
        while let Some(done) = under_way.join_next().await {
            landed(Some(done), steps)?;
        }
        self.end_stage().await
    }

    async fn write(self, batch: Vec<Record>) -> Result<usize, RestoreError> {
        let count = batch.len();
        let mut puts =
            batch.iter().map(|record| put(self.store.0.keys.record(record.key.as_str()), record.value.to_vec()));
        // etcd counts only what stands on top against its quota.
        let mut operations: Vec<_> = puts.next().into_iter().collect();
        operations.extend(within(puts.collect(), BATCH_WITHIN));
        self.send(operations).await.map(|_| count)
    }

    /// Reads all records again, of one revision, and compares them with the source; how many there are.
    pub(super) async fn compare(&self, origin: &dyn Moment, steps: &mut Steps<'_>) -> Result<u64, RestoreError> {
        let now = self.send(vec![get(self.store.0.keys.restore(), 0)]).await?;
        let position = Position { epoch: Epoch(0), revision: revision(now) };
        let mut written = Records::of(Box::new(Strict::of(&self.store, now, position)));
        let mut source = Records::of(origin.load());
        let mut count = 0;
        loop {
            let expected = source.next().await.map_err(RestoreError::Source)?;
            match (expected, written.next().await?) {
                (None, None) => return Ok(count),
                (Some(expected), Some(found)) if expected.key == found.key && expected.value == found.value => {
                    count += 1;
                    steps.add(1);
                }
                (Some(expected), Some(found)) => return Err(RestoreError::Differs(expected.key.min(found.key))),
                (Some(record), None) | (None, Some(record)) => return Err(RestoreError::Differs(record.key)),
            }
        }
    }

    /// Makes it a store.
    pub(super) async fn finish(self, origin: &dyn Moment) -> Result<Position, RestoreError> {
        let keys = &self.store.0.keys;
        let epoch = Epoch(origin.position().epoch.0 + 1);
        let id = TransactionId::random().map_err(no_randomness)?;
        let instance = random()?;
        let head = Head { instance, epoch, id, time: origin.time(), deletes: 0 }.encode();
        let stored = Stored { instance, epoch }.encode();
        let finish = TxnRequest {
            compare: vec![self.expected()],
            success: vec![
                delete(keys.restore(), Vec::new()),
                put(keys.store(), stored.clone()),
                put(keys.head(), head),
            ],
            failure: vec![get(keys.store(), 0)],
        };
        let answer = self.store.0.cluster.read(BATCH_WAIT, &finish, txn).await?;
        let at = match found(&answer) {
            _ if answer.succeeded => answer.header.as_ref().ok_or_else(malformed)?.revision,
            // An answer that was lost was asked for again.
            Some(found) if found.value == stored => found.mod_revision,
            _ => return Err(self.replaced()),
        };
        Ok(Position { epoch, revision: revision(at) })
    }

    /// Sends what may be done twice, if nobody took the place of this restore; the revision of etcd after it.
    async fn send(&self, success: Vec<RequestOp>) -> Result<i64, RestoreError> {
        let request = TxnRequest { compare: vec![self.expected()], success, failure: Vec::new() };
        let answer = self.store.0.cluster.read(BATCH_WAIT, &request, txn).await?;
        match answer.header {
            Some(header) if answer.succeeded => Ok(header.revision),
            _ => Err(self.replaced()),
        }
    }

    fn expected(&self) -> Compare {
        compare(self.store.0.keys.restore(), None, Is::Revision(self.at))
    }

    fn replaced(&self) -> RestoreError {
        RestoreError::Replaced(self.store.0.keys.prefix().to_owned())
    }
}

/// What says that a restore is under way; no two are the same.
fn mark() -> Result<Vec<u8>, OpenError> {
    Ok([&MAGIC[..], &[FORMAT], &random()?].concat())
}

/// Puts the mark where this holds, and otherwise reads the one there is.
fn marking(keys: &Keys, mark: &[u8], compare: Vec<Compare>) -> TxnRequest {
    TxnRequest { compare, success: vec![put(keys.restore(), mark.to_vec())], failure: vec![get(keys.restore(), 0)] }
}

/// Where this mark stands, if it was put.
fn stands(answer: &TxnResponse, mark: &[u8]) -> Option<i64> {
    match found(answer) {
        _ if answer.succeeded => answer.header.as_ref().map(|header| header.revision),
        // An answer that was lost was asked for again.
        Some(found) if found.value == mark => Some(found.mod_revision),
        _ => None,
    }
}

/// What a transaction found that was not done.
fn found(answer: &TxnResponse) -> Option<&KeyValue> {
    answer.responses.first().and_then(first).flatten()
}

/// Counts what a transaction wrote.
fn landed(
    done: Option<Result<Result<usize, RestoreError>, JoinError>>,
    steps: &mut Steps<'_>,
) -> Result<(), RestoreError> {
    match done {
        Some(Ok(written)) => steps.add(written?),
        Some(Err(_)) => return Err(Error::Unavailable("a transaction ended by itself".into()).into()),
        None => {}
    }
    Ok(())
}
