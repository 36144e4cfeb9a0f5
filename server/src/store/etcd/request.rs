//! What became of a transaction whose answer was lost.
//!
//! A handle has as many records in etcd as it has transactions under way at most, and each transaction rewrites one of them
//! that no other uses meanwhile. It expects the record as the one before left it. Who does not know whether an attempt
//! landed rewrites its record as given up, under the same expectation: if that succeeds, the attempt did not land and never
//! will, whatever is still on its way to a member; if the record was rewritten already, it says that the attempt landed, and
//! at which revision. That it was not rewritten proves nothing: the attempt may be under way.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use coffer_proto::etcd::{KeyValue, TxnRequest, TxnResponse};
use tokio::time::{Instant, sleep};

use super::{
    Etcd,
    connect::SHORT,
    keys::Keys,
    transaction::{Is, compare, first, get, put, within},
};
use crate::store::{Epoch, Error, Millis, TransactionId};

/// How long it is tried to learn an outcome. Longer than an election.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(5);
/// Before it is tried again.
const SETTLE_WAIT: Duration = Duration::from_millis(100);

const LANDED: u8 = 1;
const GIVEN_UP: u8 = 0;

/// The records of one handle.
#[derive(Debug)]
pub(super) struct Slots {
    /// Tells its records from those of other handles. Random.
    session: TransactionId,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    free: Vec<Slot>,
    /// How many there are.
    count: u32,
}

/// A record that nobody else uses. One that is not given back is not used again.
#[derive(Debug)]
pub(super) struct Slot {
    number: u32,
    /// Where its record stands; 0 if there is none.
    pub(super) revision: i64,
    /// The epoch in which it was found there.
    pub(super) epoch: Epoch,
}

impl Slot {
    /// Its record stands there.
    pub(super) fn found(&mut self, revision: i64, epoch: Epoch) {
        (self.revision, self.epoch) = (revision, epoch);
    }
}

/// One sending of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    id: TransactionId,
    time: Millis,
    /// Of its record.
    pub(super) key: Vec<u8>,
    /// Where the record stands before.
    pub(super) before: i64,
}

/// What became of an attempt, and where its record stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It landed.
    Landed(i64),
    /// It did not and never will.
    Never(i64),
    /// Nobody answers, or the record was not ours.
    Unknown,
}

impl Slots {
    /// Of a new handle, which has none yet.
    pub(super) fn new() -> Result<Self, Error> {
        let no_randomness = |_| Error::Unavailable("the system gives no randomness".into());
        Ok(Self { session: TransactionId::random().map_err(no_randomness)?, inner: Mutex::default() })
    }

    pub(super) fn take(&self) -> Slot {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.free.pop().unwrap_or_else(|| {
            inner.count += 1;
            Slot { number: inner.count, revision: 0, epoch: Epoch(0) }
        })
    }

    /// Takes back a record of which it is known where it stands.
    pub(super) fn give_back(&self, slot: Slot) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).free.push(slot);
    }

    pub(super) fn attempt(&self, keys: &Keys, slot: &Slot, id: TransactionId, time: Millis) -> Attempt {
        let key = keys.request(&format!("{:?}/{}", self.session, slot.number));
        Attempt { id, time, key, before: slot.revision }
    }
}

impl Attempt {
    /// The record as the attempt expects it.
    pub(super) fn expected(&self) -> Is {
        if self.before == 0 { Is::Absent } else { Is::Revision(self.before) }
    }

    /// The record that it puts: `state 1 | id 16 | time in milliseconds 8`.
    pub(super) fn landed(&self) -> Vec<u8> {
        self.record(LANDED)
    }

    fn record(&self, state: u8) -> Vec<u8> {
        [&[state][..], &self.id.0, &self.time.0.to_le_bytes()].concat()
    }

    /// What a record says that is not the expected one.
    pub(super) fn outcome(&self, record: Option<&KeyValue>) -> Outcome {
        match record {
            Some(record) if record.value == self.record(LANDED) => Outcome::Landed(record.mod_revision),
            Some(record) if record.value == self.record(GIVEN_UP) => Outcome::Never(record.mod_revision),
            _ => Outcome::Unknown,
        }
    }
}

impl Etcd {
    /// Finds out what became of an attempt, or sees to it that nothing will.
    pub(super) async fn settle(&self, attempt: &Attempt) -> Outcome {
        let give_up = TxnRequest {
            compare: vec![compare(attempt.key.clone(), None, attempt.expected())],
            // Within, it passes although there may be no room.
            success: within(vec![put(attempt.key.clone(), attempt.record(GIVEN_UP))], 1),
            failure: vec![get(attempt.key.clone(), 0)],
        };
        match self.learn(&give_up).await {
            Some(answer) if answer.succeeded => {
                answer.header.map_or(Outcome::Unknown, |header| Outcome::Never(header.revision))
            }
            Some(answer) => attempt.outcome(answer.responses.first().and_then(first).flatten()),
            None => Outcome::Unknown,
        }
    }

    /// Reads what became of an attempt that is not under way any more. Unlike to settle it, that takes no room.
    pub(super) async fn look_up(&self, attempt: &Attempt) -> Outcome {
        let look = TxnRequest { success: vec![get(attempt.key.clone(), 0)], ..TxnRequest::default() };
        let Some(answer) = self.learn(&look).await else { return Outcome::Unknown };
        let Some(record) = answer.responses.first().and_then(first) else { return Outcome::Unknown };
        if record.map_or(0, |record| record.mod_revision) == attempt.before {
            return Outcome::Never(attempt.before);
        }
        attempt.outcome(record)
    }

    async fn learn(&self, ask: &TxnRequest) -> Option<TxnResponse> {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask_ours(SHORT.within(left), ask.clone()).await {
                Ok(answer) => return Some(answer),
                Err(failure) => {
                    let why = failure.unread().to_string();
                    tracing::warn!(why, "the outcome of a transaction cannot be learnt; trying again");
                }
            }
            if Instant::now() + SETTLE_WAIT >= deadline {
                return None;
            }
            sleep(SETTLE_WAIT).await;
        }
    }
}
