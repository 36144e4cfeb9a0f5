//! One transaction: sent, and its outcome known, or said to be unknown.

use std::{sync::atomic::Ordering, time::Duration};

use coffer_proto::etcd::TxnRequest;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Etcd,
    error::{Failure, unauthenticated},
    head::{Stored, revision},
    request::{Attempt, Outcome, SETTLE_MAX, Slot},
    transaction::{Around, Refusal, encode, malformed, refusal},
};
use crate::store::{Conflict, Error, Millis, Position, RESTORED, Transaction};

/// Until when a transaction may be sent. What comes of it is known, or that nobody knows it, within [`ANSWERED_MAX`].
const COMMIT_MAX: Duration = Duration::from_secs(2);
/// How long one member may take. Longer than a slow disk, shorter than an election.
const MEMBER_MAX: Duration = Duration::from_secs(1);
/// How long a transaction takes at most.
const ANSWERED_MAX: Duration = COMMIT_MAX.saturating_add(MEMBER_MAX).saturating_add(SETTLE_MAX);
/// How long a call takes at most of which a transaction is the last and longest part.
const CALL_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(ANSWERED_MAX.as_millis() + 1_000 < CALL_MAX.as_millis(), "callers must hear the outcome");
/// For the small question that goes first after a lost answer.
const PROBE_MAX: Duration = Duration::from_millis(1_500);
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
        let mut slot = Some(self.0.slots.take());
        let outcome = self.transact_with(transaction, &mut slot, deadline).await;
        if let Some(slot) = slot {
            self.0.slots.give_back(slot);
        }
        if let Ok(Ok(_)) = &outcome {
            self.begin_to_sweep();
        }
        outcome
    }

    async fn transact_with(&self, transaction: &Transaction, slot: &mut Option<Slot>, deadline: Instant) -> Answer {
        loop {
            // Where the question is not answered, nothing is sent, and nothing can happen later.
            if self.0.suspect.load(Ordering::Relaxed) {
                let left = deadline.saturating_duration_since(Instant::now());
                self.newest(PROBE_MAX.min(left)).await?;
            }
            let time = Millis::from(self.0.clock.now());
            let attempt = {
                let slot = slot.get_or_insert_with(|| self.0.slots.take());
                self.0.slots.attempt(&self.0.keys, slot, transaction.id, time)
            };
            let stored = self.stored();
            transaction.check_epoch(stored.epoch)?;
            self.check_not_replaced(stored.epoch)?;
            let around = Around { keys: &self.0.keys, stored, attempt: &attempt, time };
            let request = encode(transaction, around)?;
            let why = match self.send(transaction, &request, stored, &attempt, slot).await {
                Ok(answer) => return answer,
                Err(NotDone(why)) => why,
            };
            if Instant::now() + AGAIN_WAIT >= deadline {
                return Err(Error::Unavailable(why));
            }
            sleep(AGAIN_WAIT).await;
        }
    }

    /// Sends an attempt, which counts on this record of the store's own and its epoch. Afterwards it is known where its
    /// record stands, or the record is not used any more.
    async fn send(
        &self,
        transaction: &Transaction,
        request: &TxnRequest,
        stored: Stored,
        attempt: &Attempt,
        slot: &mut Option<Slot>,
    ) -> Result<Answer, NotDone> {
        let cluster = &self.0.cluster;
        let ours = |channel, request| self.txn_ours(channel, request);
        let floor = self.floor();
        let outcome = match cluster.ask(cluster.preferred(), MEMBER_MAX, request, ours).await {
            Ok(answer) => {
                self.0.suspect.store(false, Ordering::Relaxed);
                if answer.succeeded {
                    answer.header.map_or(Outcome::Unknown, |header| Outcome::Landed(header.revision))
                } else {
                    match refusal(&answer, transaction, stored, attempt) {
                        Ok(Refusal::Conflict(conflict)) => return Ok(Ok(Err(conflict))),
                        Ok(Refusal::Restored) => {
                            return Ok(Err(Error::Unavailable(RESTORED.into())));
                        }
                        Ok(Refusal::Settled(record)) => match attempt.outcome(record) {
                            // Swept away, or of another history: this attempt was not done, and never is. Nobody
                            // else uses the record, so the next one takes it as it is.
                            Outcome::Unknown => {
                                let found = record.map_or(0, |record| record.mod_revision);
                                // What stood there in an epoch that is over says nothing of this one.
                                let is_of_now = slot.as_ref().is_some_and(|slot| slot.epoch == stored.epoch);
                                if is_of_now && (1..attempt.before).contains(&found) {
                                    self.replaced(stored.epoch);
                                }
                                slot.iter_mut().for_each(|slot| slot.found(found, stored.epoch));
                                return Err(NotDone("the record of its outcome is not there any more".into()));
                            }
                            outcome => outcome,
                        },
                        Err(error) => return Ok(Err(error)),
                    }
                }
            }
            // etcd looks for room twice, before a transaction and after it, and says the same both times.
            Err(Failure::Refused(Error::Full(why))) => match self.look_up(attempt).await {
                Outcome::Never(_) => return Ok(Err(Error::Full(why))),
                outcome => outcome,
            },
            Err(Failure::Refused(error)) => return Ok(Err(error)),
            Err(Failure::Unauthenticated) => return Ok(Err(unauthenticated())),
            Err(Failure::OutOfRange) => return Ok(Err(malformed())),
            Err(Failure::Elsewhere(why)) => return Err(NotDone(why)),
            Err(Failure::Lost(why)) => {
                self.0.suspect.store(true, Ordering::Relaxed);
                tracing::debug!(why, "the answer to a transaction was lost");
                self.settle(attempt).await
            }
        };
        match outcome {
            Outcome::Landed(at) => {
                slot.iter_mut().for_each(|slot| slot.found(at, stored.epoch));
                // Whatever the epoch is by now.
                let position = Position { epoch: stored.epoch, revision: revision(at) };
                Ok(self.check_above(floor, position).map(Ok))
            }
            Outcome::Never(at) => {
                slot.iter_mut().for_each(|slot| slot.found(at, stored.epoch));
                Err(NotDone("its answer was lost, and it was given up".into()))
            }
            Outcome::Unknown => {
                *slot = None;
                Ok(Err(Error::Unknown("its answer was lost, and nobody tells what became of it".into())))
            }
        }
    }
}
