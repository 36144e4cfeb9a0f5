//! One transaction: sent, and its outcome known, or said to be unknown.

use std::{sync::atomic::Ordering, time::Duration};

use coffer_proto::etcd::{TxnRequest, TxnResponse};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Etcd,
    connect::{Wait, txn},
    error::{Failure, unauthenticated},
    head::{Head, revision},
    request::{Attempt, Outcome},
    transaction::{Around, Refusal, encode, malformed, refusal},
};
use crate::store::{Conflict, Error, Millis, Position, Transaction};

/// How long a transaction is tried, unless its outcome must be learnt.
const COMMIT_MAX: Duration = Duration::from_secs(2);
/// How long one member may take. Longer than a slow disk, shorter than an election.
const MEMBER_MAX: Duration = Duration::from_secs(1);
/// For the small question that goes first after a lost answer.
const PROBE_WAIT: Wait = Wait { member_max: Duration::from_millis(400), total_max: Duration::from_millis(1_500) };
/// Before the members are asked again.
const AGAIN_WAIT: Duration = Duration::from_millis(50);

type Answer = Result<Result<Position, Conflict>, Error>;

/// An attempt that was not made, or never will be, and why.
struct NotDone(String);

impl Etcd {
    /// Commits within the limits of this module. Nothing is under way any more when it returns, but for an outcome that is
    /// unknown.
    pub(super) async fn transact(&self, transaction: &Transaction) -> Answer {
        transaction.check()?;
        let deadline = Instant::now() + COMMIT_MAX;
        let busy = |_| Error::Unavailable("too many transactions are under way".into());
        let turn = timeout_at(deadline, self.0.in_flight.acquire()).await.map_err(busy)?;
        let _turn = turn.map_err(|_| Error::Unavailable("it is closed".into()))?;
        let mut number = 0;
        loop {
            // Where the question is not answered, nothing is sent, and nothing can happen later.
            if self.0.suspect.load(Ordering::Relaxed) {
                self.newest(PROBE_WAIT).await?;
            }
            let why = match self.attempt_once(transaction, number, deadline).await {
                Ok(answer) => return answer,
                Err(NotDone(why)) => why,
            };
            if Instant::now() + AGAIN_WAIT >= deadline {
                return Err(Error::Unavailable(why));
            }
            sleep(AGAIN_WAIT).await;
            number += 1;
        }
    }

    async fn attempt_once(&self, transaction: &Transaction, number: u32, until: Instant) -> Result<Answer, NotDone> {
        let attempt = match timeout_at(until, self.attempt(transaction.id, number)).await {
            Ok(Ok(attempt)) => Some(attempt),
            // No lease is given then, and so no record: deletes pass, and an outcome may stay unknown.
            Ok(Err(Error::Full(_))) if transaction.only_deletes() => None,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(_) => return Err(NotDone("etcd gives no lease in time".into())),
        };
        let (stored, epoch) = self.stored();
        let head = Head { epoch, id: transaction.id, time: Millis::from(self.0.clock.now()) }.encode();
        let around = Around { keys: &self.0.keys, stored, attempt: attempt.as_ref(), head };
        let request = match encode(transaction, around) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        self.send(transaction, &request, stored, attempt.as_ref()).await
    }

    async fn send(
        &self,
        transaction: &Transaction,
        request: &TxnRequest,
        stored: i64,
        attempt: Option<&Attempt>,
    ) -> Result<Answer, NotDone> {
        let cluster = &self.0.cluster;
        let floor = self.floor();
        match cluster.ask(cluster.preferred(), MEMBER_MAX, request, txn).await {
            Ok(answer) => {
                self.0.suspect.store(false, Ordering::Relaxed);
                Ok(self.answered(transaction, &answer, stored, attempt).and_then(|outcome| match outcome {
                    Ok(position) => self.check_above(floor, position).map(Ok),
                    Err(conflict) => Ok(Err(conflict)),
                }))
            }
            Err(Failure::Refused(error)) => Ok(Err(error)),
            Err(Failure::Unauthenticated) => Ok(Err(unauthenticated())),
            Err(Failure::OutOfRange) => Ok(Err(malformed())),
            Err(Failure::Elsewhere(why)) => Err(NotDone(why)),
            Err(Failure::LeaseEnded) => {
                if let Some(attempt) = attempt {
                    self.forget_lease(attempt.lease).await;
                }
                Err(NotDone("the lease has ended".into()))
            }
            Err(Failure::Lost(why)) => {
                self.0.suspect.store(true, Ordering::Relaxed);
                let Some(attempt) = attempt else { return Ok(Err(Error::Unknown(why))) };
                match self.settle(attempt).await {
                    Outcome::Landed(position) => Ok(self.check_above(floor, position).map(Ok)),
                    Outcome::Never => Err(NotDone(why)),
                    Outcome::Unknown => Ok(Err(Error::Unknown(why))),
                }
            }
        }
    }

    fn answered(
        &self,
        transaction: &Transaction,
        answer: &TxnResponse,
        stored: i64,
        attempt: Option<&Attempt>,
    ) -> Answer {
        if answer.succeeded {
            let at = answer.header.as_ref().ok_or_else(malformed)?;
            return Ok(Ok(Position { epoch: self.epoch(), revision: revision(at.revision) }));
        }
        match refusal(answer, transaction, stored, attempt)? {
            Refusal::Conflict(conflict) => Ok(Err(conflict)),
            Refusal::Restored => Err(Error::Unavailable("the store was restored meanwhile".into())),
            Refusal::Settled(record) => match self.settled(record) {
                Outcome::Landed(position) => Ok(Ok(position)),
                Outcome::Never | Outcome::Unknown => Err(Error::Unavailable("it was given up before".into())),
            },
        }
    }
}
