//! Opens a store: checks everything, then mends the log, rolls sled forward, and starts the threads.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Embedded, Ground, Options,
    acknowledged::{self, Acknowledged},
    applier::{self, GROUPS_BEHIND_MAX},
    checkpoint::Checkpoint,
    disk::Disk,
    index::{Digest, Evaluation, Index},
    layout::{Layout, Lock, OpenError},
    log::{Recovered, group::Logged, segment::Origin},
    progress::Progress,
    rebuild::rebuild,
    sled::{self, Fault, Records},
    snapshots::{Boundary, Keeper, KeeperParts, Retention},
    space::Space,
    writer::{REQUESTS_WAITING_MAX, Request, Writer},
};
use crate::store::{Error, Position, Revision, history::History};

pub(super) fn create(dir: PathBuf, disk: &dyn Disk) -> Result<(), OpenError> {
    let mut instance = [0; 16];
    getrandom::fill(&mut instance)
        .map_err(|error| OpenError::Io { path: dir.clone(), source: io::Error::other(error) })?;
    Layout::new(dir).create(instance, disk)
}

pub(super) fn is_empty(layout: &Layout) -> Result<bool, OpenError> {
    let instance = layout.instance()?;
    let _lock = layout.lock_to_read()?;
    let has_snapshots = layout.snapshots().exists();
    Ok(!has_snapshots && Recovered::read(&layout.log(), instance)?.last() == Revision(0))
}

pub(super) fn open(dir: PathBuf, options: Options, ground: Ground) -> Result<Embedded, OpenError> {
    let Ground { disk, clock, history, looks_every, sled_patience } = ground;
    let layout = Layout::new(dir);
    let instance = layout.instance()?;
    let lock = Arc::new(layout.lock()?);
    let recovered = Recovered::read(&layout.log(), instance)?;
    if recovered.origin() == Origin::Recorded {
        return Err(OpenError::History(layout.dir().into()));
    }
    acknowledged::check(&layout, &recovered, instance)?;

    let found = Found { layout: &layout, recovered: &recovered, instance, cache_bytes: options.cache_bytes };
    let Usable { records, checkpoint, mut index } = match found.open(&*disk, &lock)? {
        Ok(usable) => usable,
        Err(why) => {
            rebuild(&layout, &recovered, instance, &*disk, &lock, &why)?;
            let damaged = |why: String| OpenError::damaged(&layout.sled(), why);
            found.open(&*disk, &lock)?.map_err(damaged)?
        }
    };
    tidy(&layout);

    // Nothing has been changed up to here. What the log holds is made durable before anything is built on it.
    let log = recovered.mend(Arc::clone(&disk), options.log_segment_bytes)?;
    let rolled_forward = roll_forward(&recovered, &records, &mut index, checkpoint, &layout)?;
    let head = Position { epoch: log.epoch(), revision: log.last() };
    let at = Checkpoint { instance, position: head, digest: index.digest() };
    let acknowledged = Acknowledged::begin(&layout, Arc::clone(&disk), &at);
    tracing::info!(records = index.digest().records, rolled_forward, position = %head, "the store is open");

    let history = Arc::new(History::new(head, history));
    let progress = Arc::new(Progress::new(head.revision));
    let (requests, receiver) = mpsc::channel(REQUESTS_WAITING_MAX);
    let weak = Arc::downgrade(&records);
    let (groups, work) = std_mpsc::sync_channel(GROUPS_BEHIND_MAX);
    let applier = spawn("store-sled", &layout, {
        let (records, progress) = (Arc::clone(&records), Arc::clone(&progress));
        move || applier::run(records, &work, &progress)
    })?;
    let space = Space::new(Arc::clone(&disk), layout.dir(), &options);
    let keeper = Keeper::start(KeeperParts {
        layout: layout.clone(),
        disk: Arc::clone(&disk),
        clock: Arc::clone(&clock),
        instance,
        retention: Retention { time: options.retention, bytes_max: options.history_bytes_max },
        looks_every,
        progress: Arc::clone(&progress),
        divide: divide(requests.downgrade()),
        lock,
    })?;
    let condition = space.clone();
    let writer = Writer {
        requests: receiver,
        held: None,
        log,
        index,
        acknowledged,
        instance,
        space,
        clock,
        history: Arc::clone(&history),
        progress: Arc::clone(&progress),
        groups,
        applier,
        records,
        patience: sled_patience,
    };
    spawn("store-log", &layout, {
        let progress = Arc::clone(&progress);
        move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                progress.fail("the log's thread panicked".into());
            }
        }
    })?;
    Ok(Embedded { requests, history, progress, records: weak, keeper: Arc::new(keeper), space: condition, layout })
}

/// Asks the log's thread, as long as somebody else may, too.
fn divide(writer: mpsc::WeakSender<Request>) -> Box<dyn Fn() -> Result<Boundary, Error> + Send> {
    let closed = || Error::Unavailable("it is closed".into());
    Box::new(move || {
        let writer = writer.upgrade().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        writer.blocking_send(Request::Divide(answer)).map_err(|_| closed())?;
        drop(writer);
        answered.blocking_recv().map_err(|_| closed())?
    })
}

/// What there is besides the log.
struct Found<'a> {
    layout: &'a Layout,
    recovered: &'a Recovered,
    instance: [u8; 16],
    cache_bytes: u64,
}

/// A sled that is whole and reaches to the log.
struct Usable {
    records: Arc<Records>,
    checkpoint: Checkpoint,
    index: Index,
}

impl Found<'_> {
    /// Opens sled, or says why it cannot be used and must be made anew. An error is what nothing helps against.
    fn open(&self, disk: &dyn Disk, lock: &Arc<Lock>) -> Result<Result<Usable, String>, OpenError> {
        let path = self.layout.sled();
        if !sled::exists(&path) {
            let (begin, has_snapshot) = (self.recovered.first(), self.layout.snapshots().exists());
            if begin > Revision(1) || has_snapshot {
                return Ok(Err("its files are missing".into()));
            }
        }
        let records = match Records::open(&path, self.cache_bytes, disk, Arc::clone(lock)) {
            Ok(records) => Arc::new(records),
            Err(OpenError::Damaged { what, .. }) => return Ok(Err(what)),
            Err(error) => return Err(error),
        };
        let outcome = self.look(&records);
        match outcome {
            Ok(Ok((checkpoint, index))) => Ok(Ok(Usable { records, checkpoint, index })),
            Ok(Err(why)) => {
                // Its files are to be moved: nothing may have them open.
                records.close()?;
                Ok(Err(why))
            }
            Err(error) => Err(error),
        }
    }

    fn look(&self, records: &Records) -> Result<Result<(Checkpoint, Index), String>, OpenError> {
        let Self { recovered, instance, .. } = *self;
        let none = Checkpoint {
            instance,
            position: Position { epoch: recovered.epoch(), revision: Revision(0) },
            digest: Digest::default(),
        };
        let at = match records.checkpoint() {
            Ok(checkpoint) => checkpoint.unwrap_or(none),
            Err(fault) => return self.rebuildable(fault),
        };
        if (at.instance, at.position.epoch) != (none.instance, none.position.epoch) {
            return Ok(Err("it belongs to another store or time".into()));
        }
        let (applied, begin, end) = (at.position.revision, recovered.first(), recovered.last());
        if applied > end {
            let what = format!(
                "offset {}: the log ends at revision {}, and sled has applied {}: acknowledged transactions are missing",
                recovered.end(),
                end.0,
                applied.0
            );
            return Err(OpenError::damaged(&recovered.current_path(), what));
        }
        if begin.0 > applied.0 + 1 {
            return Ok(Err(format!("it ends at revision {}, before the log begins", applied.0)));
        }
        let mut revisions = BTreeMap::new();
        let insert = |record: crate::store::Record| {
            revisions.insert(record.key, record.revision);
            true
        };
        if let Err(fault) = records.read(|_| {}, insert) {
            return self.rebuildable(fault);
        }
        Ok(Ok((at, Index::new(revisions, at.digest))))
    }

    /// Damage is a reason to make sled anew. What the system refuses is none: the same would be refused then.
    fn rebuildable<T>(&self, fault: Fault) -> Result<Result<T, String>, OpenError> {
        match fault {
            Fault::Damage(why) => Ok(Err(why)),
            fault @ Fault::System(_) => Err(fault.of(&self.layout.sled())),
        }
    }
}

/// What an interrupted rebuild left.
fn tidy(layout: &Layout) {
    let unfinished = layout.dir().join("sled.new");
    if let Err(error) = fs::remove_dir_all(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, directory = %unfinished.display(), "an unfinished rebuild could not be removed");
    }
}

/// Gives sled what only the log has. Returns how many transactions that were.
fn roll_forward(
    recovered: &Recovered,
    records: &Records,
    index: &mut Index,
    from: Checkpoint,
    layout: &Layout,
) -> Result<usize, OpenError> {
    let apply = |writes: &_, checkpoint: &_| {
        let failed = |why: String| OpenError::Io { path: layout.sled(), source: io::Error::other(why) };
        records.apply(writes, checkpoint).map_err(failed)
    };
    let mut transactions = 0;
    recovered.replay(from.position.revision, &mut |commits: Vec<Logged>| {
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else { return Ok(()) };
        if first.revision <= from.position.revision {
            return Err(OpenError::damaged(&layout.sled(), "its checkpoint is in the middle of a group"));
        }
        let revision = last.revision;
        transactions += commits.len();
        let mut evaluation = Evaluation::new(index);
        commits.iter().for_each(|commit| evaluation.apply(&commit.changes, commit.revision));
        let writes = evaluation.into_writes();
        index.absorb(&writes);
        let position = Position { revision, ..from.position };
        apply(&writes, &Checkpoint { position, digest: index.digest(), ..from })
    })?;
    if transactions == 0 && from.position.revision == Revision(0) {
        // A store always has a checkpoint, from its first opening on.
        apply(&BTreeMap::new(), &from)?;
    }
    Ok(transactions)
}

fn spawn(
    name: &str,
    layout: &Layout,
    run: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(OpenError::at(layout.dir()))
}
