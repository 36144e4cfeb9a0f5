//! One run, open to be recorded on.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::super::{
    Ground, Options,
    acknowledged::{self, Acknowledged},
    checkpoint::Checkpoint,
    index::Digest,
    layout::{Layout, OpenError},
    log::{
        Append, Log, Recovered,
        frame::RECORDED_BYTES_MAX,
        recorded::{self, Recorded},
        segment::Origin,
    },
    progress::Progress,
    snapshots::{self, Boundary, Keeper, KeeperParts, Kept, Retention},
    space::{Passing, Space},
};
use crate::store::{Error, Millis, Position, Snapshot, TransactionId};

/// A run. Its calls block, but for [`Run::snapshot`].
#[derive(Debug)]
pub(in crate::store) struct Run {
    shared: Arc<Shared>,
    keeper: Keeper,
}

#[derive(Debug)]
struct Shared {
    instance: [u8; 16],
    space: Space,
    progress: Arc<Progress>,
    end: Mutex<End>,
}

/// Where it ends.
#[derive(Debug)]
struct End {
    log: Log,
    acknowledged: Acknowledged,
    last_id: Option<TransactionId>,
    is_closed: bool,
}

/// Why commits are not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Unrecorded {
    /// There is no room, or the system lacks something else, and nothing of them stands. The same can be tried again.
    Full(String),
    /// They may stand or not: the run must be opened again.
    Failed(String),
    /// They are larger than anything in a run. Only another run can go on behind them.
    TooLarge,
}

impl Run {
    pub(super) fn open(dir: PathBuf, options: Options, ground: Ground) -> Result<Self, OpenError> {
        let Ground { disk, clock, looks_every, .. } = ground;
        let layout = Layout::new(dir);
        let instance = layout.instance()?;
        let lock = Arc::new(layout.lock()?);
        let recovered = Recovered::read(&layout.log(), instance)?;
        if recovered.origin() != Origin::Recorded {
            return Err(OpenError::damaged(&layout.log(), "it records nothing: it is a store's own"));
        }
        acknowledged::check(&layout, &recovered, instance)?;
        check_base(&layout, &recovered, instance)?;
        let log = recovered.mend(Arc::clone(&disk), options.log_segment_bytes)?;
        let position = Position { epoch: log.epoch(), revision: log.last() };
        let at = Checkpoint { instance, position, digest: Digest::default() };
        let acknowledged = Acknowledged::begin(&layout, Arc::clone(&disk), &at);
        let progress = Arc::new(Progress::new(position.revision));
        let space = Space::new(Arc::clone(&disk), layout.dir(), &options);
        let end = End { log, acknowledged, last_id: recovered.last_id(), is_closed: false };
        let shared = Arc::new(Shared { instance, space, progress: Arc::clone(&progress), end: Mutex::new(end) });
        let keeper = Keeper::start(KeeperParts {
            layout,
            disk,
            clock,
            instance,
            retention: Retention { time: options.retention, bytes_max: options.history_bytes_max },
            looks_every,
            progress,
            divide: divide(Arc::downgrade(&shared)),
            lock,
        })?;
        Ok(Self { shared, keeper })
    }

    /// The instance of the store that it records.
    pub(in crate::store) fn instance(&self) -> [u8; 16] {
        self.shared.instance
    }

    /// How far it has come.
    pub(in crate::store) fn position(&self) -> Position {
        self.shared.end().position()
    }

    /// When the last of it was made.
    pub(in crate::store) fn time(&self) -> Millis {
        self.shared.end().log.time()
    }

    /// The name of the last transaction in it, if it stands in the log.
    pub(in crate::store) fn last_id(&self) -> Option<TransactionId> {
        self.shared.end().last_id
    }

    /// Adds commits of its epoch that come after the last one, in order. Durable when it returns `Ok`.
    pub(in crate::store) fn record(&self, commits: &[Recorded]) -> Result<(), Unrecorded> {
        let bytes: usize = commits.iter().map(recorded::encoded_bytes).sum();
        if bytes > RECORDED_BYTES_MAX {
            return Err(Unrecorded::TooLarge);
        }
        let Shared { instance, progress, space, .. } = &*self.shared;
        progress.check().map_err(|error| Unrecorded::Failed(error.to_string()))?;
        // The audit log, too, may be on this disk.
        if let Passing::Deletes(why) | Passing::Nothing(why) = space.ask(0) {
            return Err(Unrecorded::Full(why));
        }
        let mut end = self.shared.end();
        if end.is_closed {
            return Err(Unrecorded::Failed("it is closed".into()));
        }
        match end.log.record(commits.to_vec()) {
            Ok(()) => {}
            Err(Append::Full(why) | Append::Refused(why)) => return Err(Unrecorded::Full(why)),
            Err(Append::Failed(why)) => {
                progress.fail(why.clone());
                return Err(Unrecorded::Failed(why));
            }
        }
        end.last_id = commits.last().map(|recorded| recorded.commit.id).or(end.last_id);
        let position = end.position();
        end.acknowledged.set(&Checkpoint { instance: *instance, position, digest: Digest::default() });
        // Nothing is behind the log here.
        progress.handed(0);
        progress.advance(position.revision, 0);
        if let Err(error) = end.log.retire(progress.retirable()) {
            tracing::warn!(%error, "an old segment of the history's log could not be removed");
        }
        Ok(())
    }

    /// A snapshot of all that was recorded before.
    pub(in crate::store) async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.keeper.snapshot().await
    }

    /// Ends it in good order, once no snapshot is under way. Afterwards nothing is recorded.
    pub(in crate::store) fn close(&self) {
        self.keeper.stop();
        let mut end = self.shared.end();
        if !end.is_closed
            && self.shared.progress.check().is_ok()
            && let Err(error) = end.log.close()
        {
            tracing::warn!(?error, "the history is not closed in good order; its next start repairs it");
        }
        end.is_closed = true;
    }
}

/// Refuses a run of which nothing could be restored, whatever is added: one without a snapshot, read to its end, that its log
/// follows.
fn check_base(layout: &Layout, recovered: &Recovered, instance: [u8; 16]) -> Result<(), OpenError> {
    let is_followed = |kept: &&Kept| {
        let Position { epoch, revision } = kept.position;
        epoch == recovered.epoch() && recovered.first().0 <= revision.0 + 1 && revision <= recovered.last()
    };
    let mut refused = OpenError::damaged(&layout.snapshots(), "there is no snapshot that the log follows");
    for kept in snapshots::list(&layout.snapshots())?.iter().rev().filter(is_followed) {
        match kept.examine(instance) {
            Ok(_) => return Ok(()),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

impl Shared {
    /// Nothing in here panics while it holds the end half way, so a poisoned one is whole.
    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn divide(&self) -> Result<Boundary, Error> {
        self.progress.check()?;
        let mut end = self.end();
        if end.is_closed {
            return Err(Error::Unavailable("it is closed".into()));
        }
        end.log.divide().map_err(|error| match error {
            Append::Full(why) => Error::Exhausted(why),
            Append::Refused(why) => Error::Unavailable(why),
            Append::Failed(why) => {
                self.progress.fail(why.clone());
                Error::Failed(why)
            }
        })
    }
}

impl End {
    fn position(&self) -> Position {
        Position { epoch: self.log.epoch(), revision: self.log.last() }
    }
}

fn divide(shared: Weak<Shared>) -> Box<dyn Fn() -> Result<Boundary, Error> + Send> {
    Box::new(move || {
        let shared = shared.upgrade().ok_or_else(|| Error::Unavailable("it is closed".into()))?;
        shared.divide()
    })
}
