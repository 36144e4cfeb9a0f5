//! What became of a transaction whose answer was lost.
//!
//! Each attempt at a transaction puts a record of itself, which must not be there yet. Who does not know whether it landed
//! puts that record as given up: if that succeeds, the attempt did not land and never will; if it is there already, it
//! says that it landed, and at which revision. That it is absent proves nothing: the attempt may be under way.
//!
//! The record is under a lease, which also ends the attempt: etcd refuses to put anything under a lease that has ended, so
//! what comes to a member after a minute does not land any more.

use std::time::Duration;

use coffer_proto::etcd::{KeyValue, LeaseGrantRequest, TxnRequest};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{
    Etcd,
    connect::{SHORT, lease_grant, txn},
    error::Failure,
    head::revision,
    transaction::{Is, compare, first, get, put},
};
use crate::store::{Error, Position, TransactionId};

/// How long a lease lasts, in seconds: much longer than it is used and an outcome is asked for.
const LEASE_S: i64 = 60;
/// How long a lease is used. Its records end together, in one step of etcd, so there should not be too many.
const LEASE_USE_MAX: Duration = Duration::from_secs(15);
/// How long it is tried to learn an outcome.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// Before it is tried again.
const SETTLE_WAIT: Duration = Duration::from_millis(100);

const LANDED: &[u8] = &[1];
const GIVEN_UP: &[u8] = &[0];

/// One sending of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// Of its record.
    pub(super) key: Vec<u8>,
    /// Of its record.
    pub(super) lease: i64,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It landed.
    Landed(Position),
    /// It did not and never will.
    Never,
    /// Nobody answers.
    Unknown,
}

/// The lease of the records, given by etcd when there is one to put.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<Option<(i64, Instant)>>);

impl Attempt {
    /// The value of its record.
    pub(super) fn landed(&self) -> Vec<u8> {
        LANDED.into()
    }
}

impl Etcd {
    /// A new attempt at a transaction; the first has number 0.
    pub(super) async fn attempt(&self, id: TransactionId, number: u32) -> Result<Attempt, Error> {
        Ok(Attempt { key: self.0.keys.request(&format!("{id:?}.{number}")), lease: self.lease().await? })
    }

    async fn lease(&self) -> Result<i64, Error> {
        let mut current = self.0.leases.0.lock().await;
        if let Some((lease, since)) = *current
            && since.elapsed() < LEASE_USE_MAX
        {
            return Ok(lease);
        }
        let since = Instant::now();
        let request = LeaseGrantRequest { ttl: LEASE_S, id: 0 };
        let lease = self.0.cluster.read(SHORT, &request, lease_grant).await?.id;
        *current = Some((lease, since));
        Ok(lease)
    }

    /// The next attempt takes a new lease.
    pub(super) async fn forget_lease(&self, ended: i64) {
        let mut current = self.0.leases.0.lock().await;
        if current.is_some_and(|(lease, _)| lease == ended) {
            *current = None;
        }
    }

    /// Finds out what became of an attempt, or sees to it that nothing will.
    pub(super) async fn settle(&self, attempt: &Attempt) -> Outcome {
        let give_up = TxnRequest {
            compare: vec![compare(attempt.key.clone(), None, Is::Absent)],
            success: vec![put(attempt.key.clone(), GIVEN_UP.into(), attempt.lease)],
            failure: vec![get(attempt.key.clone(), 0)],
        };
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            match self.0.cluster.ask_any(SHORT, &give_up, txn).await {
                Ok(answer) if answer.succeeded => return Outcome::Never,
                Ok(answer) => {
                    let record = answer.responses.first().and_then(first).flatten();
                    return record.map_or(Outcome::Unknown, |record| self.settled(record));
                }
                // It did not land if it was not there before, but who knows.
                Err(Failure::LeaseEnded) => return Outcome::Unknown,
                Err(failure) => tracing::warn!(?failure, "the outcome of a transaction cannot be learnt; trying again"),
            }
            if Instant::now() >= deadline {
                return Outcome::Unknown;
            }
            sleep(SETTLE_WAIT).await;
        }
    }

    /// What an attempt's record says.
    pub(super) fn settled(&self, record: &KeyValue) -> Outcome {
        match record.value.as_slice() {
            LANDED => Outcome::Landed(Position { epoch: self.epoch(), revision: revision(record.mod_revision) }),
            _ => Outcome::Never,
        }
    }
}
