//! The log's thread: takes what waits, makes it durable with one sync, publishes it, then answers.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    acknowledged::Acknowledged,
    applier::{GROUPS_BEHIND_MAX, Group},
    checkpoint::Checkpoint,
    index::{Evaluation, Index, Writes},
    log::{Append, Log, group},
    progress::Progress,
    sled::Records,
    snapshots::Boundary,
    space::{Passing, Space},
};
use crate::{
    clock::Clock,
    store::{Commit, Conflict, Error, Millis, Position, Revision, Transaction, history::History},
};

/// Most requests that wait for the thread; further callers wait to get in.
pub(super) const REQUESTS_WAITING_MAX: usize = 1_024;
/// Most transactions in a group.
const GROUP_TRANSACTIONS_MAX: usize = 512;
/// A group holds no more bytes than this, unless one transaction alone does.
const GROUP_BYTES: usize = 1 << 20;

/// Longest wait of a group for sled to come near the log: less than a call takes at most, so that its caller hears why.
pub(super) const SLED_PATIENCE: Duration = Duration::from_secs(8);
/// Longest wait of a close for sled to have it all.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

pub(super) type Outcome = Result<Result<Position, Conflict>, Error>;

/// What the handles ask for.
#[derive(Debug)]
pub(super) enum Request {
    /// One transaction, within the limits.
    Commit(Waiting),
    /// Everything up to here in segments that are not written any more.
    Divide(oneshot::Sender<Result<Boundary, Error>>),
    /// Shows whether the log takes writes again, if it did not.
    Probe,
    /// The end, in good order.
    Close(oneshot::Sender<Result<(), Error>>),
}

/// A transaction and who waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) transaction: Transaction,
    pub(super) answer: oneshot::Sender<Outcome>,
}

impl Waiting {
    fn answer(self, outcome: Outcome) {
        // Nobody may wait any more; what was done stays done.
        let _ = self.answer.send(outcome);
    }
}

/// Everything that the thread owns.
pub(super) struct Writer {
    pub(super) requests: mpsc::Receiver<Request>,
    /// A request that was taken and did not fit the group before.
    pub(super) held: Option<Request>,
    pub(super) log: Log,
    pub(super) index: Index,
    pub(super) acknowledged: Acknowledged,
    pub(super) instance: [u8; 16],
    pub(super) space: Space,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) history: Arc<History>,
    pub(super) progress: Arc<Progress>,
    pub(super) groups: std_mpsc::SyncSender<Group>,
    pub(super) applier: JoinHandle<()>,
    pub(super) records: Arc<Records>,
    /// How long a group waits for sled.
    pub(super) patience: Duration,
}

impl Writer {
    /// Runs until the store is closed or its last handle is gone.
    pub(super) fn run(mut self) {
        while let Some(request) = self.held.take().or_else(|| self.requests.blocking_recv()) {
            match request {
                Request::Commit(first) => {
                    let group = self.gather(first);
                    self.commit(group);
                }
                Request::Divide(answer) => {
                    let _ = answer.send(self.divide());
                }
                Request::Probe => self.probe(),
                Request::Close(answer) => {
                    let outcome = self.close();
                    let _ = answer.send(outcome);
                    return;
                }
            }
        }
    }

    /// The first and whatever waits behind it, up to a group's limits. Never waits itself.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let size = |waiting: &Waiting| group::encoded_bytes(&waiting.transaction.changes);
        let mut bytes = size(&first);
        let mut gathered = vec![first];
        while gathered.len() < GROUP_TRANSACTIONS_MAX {
            match self.requests.try_recv() {
                Ok(Request::Commit(next)) if bytes + size(&next) <= GROUP_BYTES => {
                    bytes += size(&next);
                    gathered.push(next);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        gathered
    }

    fn divide(&mut self) -> Result<Boundary, Error> {
        self.progress.check()?;
        self.log.divide().map_err(|error| match error {
            Append::Full(why) => Error::Exhausted(why),
            Append::Refused(why) => Error::Unavailable(why),
            Append::Failed(why) => {
                self.progress.fail(why.clone());
                Error::Failed(why)
            }
        })
    }

    fn probe(&mut self) {
        if !self.progress.is_refusing() || self.progress.check().is_err() {
            return;
        }
        match self.log.probe() {
            Ok(()) => self.progress.accept(),
            Err(Append::Full(why) | Append::Refused(why)) => self.progress.refuse(why),
            Err(Append::Failed(why)) => self.progress.fail(why),
        }
    }

    fn commit(&mut self, mut waiting: Vec<Waiting>) {
        if let Err(error) = self.progress.wait_until_behind_less(GROUPS_BEHIND_MAX, self.patience) {
            return waiting.into_iter().for_each(|waiting| waiting.answer(Err(error.clone())));
        }
        match self.space.passing(self.progress.behind_bytes()) {
            Passing::All => {}
            Passing::Deletes(why) => waiting = refuse_puts(waiting, &Error::Full(why)),
            Passing::Nothing(why) => return answer(waiting, &Error::Exhausted(why)),
        }
        let Err((waiting, why)) = self.group(waiting) else { return };
        if let Error::Exhausted(why) = why {
            // Deletes are small and free room: they are not turned away for the puts beside them.
            let (deletes, puts) = divide(waiting);
            // What puts are told is what became of the deletes.
            let full = if deletes.is_empty() { Error::Exhausted(why) } else { Error::Full(why) };
            match self.group(deletes) {
                Ok(()) => answer(puts, &full),
                Err((deletes, why)) => answer(puts.into_iter().chain(deletes), &why),
            }
        } else {
            answer(waiting, &why);
        }
    }

    /// Commits a group and answers, unless the system does not let it: then nothing has happened, and who waits is given back.
    fn group(&mut self, waiting: Vec<Waiting>) -> Result<(), (Vec<Waiting>, Error)> {
        let mut evaluation = Evaluation::new(&self.index);
        let mut last = self.log.last();
        let mut logged = Vec::new();
        let outcomes: Vec<_> = waiting
            .iter()
            .map(|Waiting { transaction, .. }| {
                evaluation.check(transaction)?;
                last = Revision(last.0 + 1);
                evaluation.apply(&transaction.changes, last);
                let changes = transaction.changes.as_slice().into();
                logged.push(group::Logged { id: transaction.id, revision: last, changes });
                Ok(Position { epoch: self.log.epoch(), revision: last })
            })
            .collect();
        let writes = evaluation.into_writes();
        match self.log.append(&logged, Millis::from(self.clock.now())) {
            Ok(()) => self.progress.accept(),
            Err(Append::Full(why)) => return Err((waiting, Error::Exhausted(why))),
            Err(Append::Refused(why)) => {
                self.progress.refuse(why.clone());
                return Err((waiting, Error::Unavailable(why)));
            }
            Err(Append::Failed(why)) => {
                self.fail(waiting, outcomes, why);
                return Ok(());
            }
        }
        if !logged.is_empty() {
            self.hand_on(logged, writes);
        }
        // Only now: a conflict, too, may speak of a revision of this very group.
        waiting.into_iter().zip(outcomes).for_each(|(waiting, outcome)| waiting.answer(Ok(outcome)));
        Ok(())
    }

    /// What is durable goes to followers and to sled.
    fn hand_on(&mut self, logged: Vec<group::Logged>, writes: Writes) {
        let epoch = self.log.epoch();
        let position = Position { epoch, revision: self.log.last() };
        let bytes = logged.iter().map(|logged| group::encoded_bytes(&logged.changes) as u64).sum();
        self.index.absorb(&writes);
        let checkpoint = Checkpoint { instance: self.instance, position, digest: self.index.digest() };
        self.acknowledged.set(&checkpoint);
        self.history.publish(
            logged.into_iter().map(|group::Logged { revision, changes, .. }| Commit {
                position: Position { epoch, revision },
                changes,
            }),
        );
        self.progress.handed(bytes);
        // There is room, this thread has waited for it. Sled's thread may be gone; then it has said why, and the next
        // group is refused.
        let _ = self.groups.send(Group { writes, checkpoint, bytes });
        if let Err(error) = self.log.retire(self.progress.retirable()) {
            tracing::warn!(%error, "an old segment of the log could not be removed");
        }
    }

    /// Whether the group stands is known only when the log is read again.
    fn fail(&self, waiting: Vec<Waiting>, outcomes: Vec<Result<Position, Conflict>>, why: String) {
        self.progress.fail(why.clone());
        for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
            waiting.answer(Err(match outcome {
                Ok(_) => Error::Unknown(why.clone()),
                Err(_) => Error::Failed(why.clone()),
            }));
        }
    }

    /// Waits for sled, says in the log that all is well, and lets go of everything.
    fn close(mut self) -> Result<(), Error> {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Commit(waiting) => waiting.answer(Err(Error::Unavailable("it is closed".into()))),
                Request::Divide(answer) => drop(answer.send(Err(Error::Unavailable("it is closed".into())))),
                Request::Probe => {}
                Request::Close(answer) => drop(answer.send(Ok(()))),
            }
        }
        let drained = self.progress.wait_until_behind_less(1, CLOSE_PATIENCE);
        let outcome = drained.and_then(|()| {
            self.log.close().map_err(|error| match error {
                Append::Full(why) => Error::Exhausted(why),
                Append::Refused(why) => Error::Unavailable(why),
                Append::Failed(why) => Error::Failed(why),
            })
        });
        self.history.close();
        drop(self.groups);
        // A thread that panicked has nothing more to say: its failure is in the outcome already. One that hangs never ends.
        if self.progress.moves().is_ok() || self.progress.check().is_err() {
            let _ = self.applier.join();
        }
        outcome.and(self.records.close().map_err(|error| Error::Unavailable(error.to_string())))
    }
}

/// Those that only delete, and the others.
fn divide(waiting: Vec<Waiting>) -> (Vec<Waiting>, Vec<Waiting>) {
    waiting.into_iter().partition(|waiting| waiting.transaction.only_deletes())
}

fn refuse_puts(waiting: Vec<Waiting>, why: &Error) -> Vec<Waiting> {
    let (deletes, puts) = divide(waiting);
    answer(puts, why);
    deletes
}

fn answer(waiting: impl IntoIterator<Item = Waiting>, why: &Error) {
    waiting.into_iter().for_each(|waiting| waiting.answer(Err(why.clone())));
}
