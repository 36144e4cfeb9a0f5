//! Opens a store: checks everything, then mends the log, rolls sled forward, and starts the threads.

use std::{
    collections::BTreeMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use tokio::sync::mpsc;

use super::{
    Embedded, Ground, Options,
    applier::{self, GROUPS_BEHIND_MAX},
    checkpoint::Checkpoint,
    disk::Disk,
    index::{Digest, Evaluation, Index},
    layout::{Layout, OpenError},
    log::{Recovered, group::Logged},
    progress::Progress,
    sled::{self, Records},
    space::Space,
    writer::{REQUESTS_WAITING_MAX, Writer},
};
use crate::store::{Position, Revision, history::History};

pub(super) fn create(dir: PathBuf, disk: &dyn Disk) -> Result<(), OpenError> {
    let mut instance = [0; 16];
    getrandom::fill(&mut instance)
        .map_err(|error| OpenError::Io { path: dir.clone(), source: io::Error::other(error) })?;
    Layout::new(dir).create(instance, disk)
}

pub(super) fn open(dir: PathBuf, options: Options, ground: Ground) -> Result<Embedded, OpenError> {
    let Ground { disk, clock, history } = ground;
    let layout = Layout::new(dir);
    let instance = layout.instance()?;
    let lock = Arc::new(layout.lock()?);
    let recovered = Recovered::read(&layout.log(), instance)?;

    let begin = recovered.first();
    if begin > Revision(1) && !sled::exists(&layout.sled()) {
        return Err(behind(&layout, "its files are missing", begin));
    }
    let records = Arc::new(Records::open(&layout.sled(), options.cache_bytes, &*disk, lock)?);
    let none = Checkpoint {
        instance,
        position: Position { epoch: recovered.epoch(), revision: Revision(0) },
        digest: Digest::default(),
    };
    let damaged = |what: String| OpenError::damaged(&layout.sled(), what);
    let checkpoint = records.checkpoint().map_err(damaged)?.unwrap_or(none);
    check(&checkpoint, &none, &recovered, &layout)?;
    let mut revisions = BTreeMap::new();
    let insert = |record: crate::store::Record| {
        revisions.insert(record.key, record.revision);
        true
    };
    records.read(|_| {}, insert).map_err(damaged)?;
    let mut index = Index::new(revisions, checkpoint.digest);

    // Nothing has been changed up to here. What the log holds is made durable before anything is built on it.
    let mut log = recovered.mend(Arc::clone(&disk), options.log_segment_bytes)?;
    let rolled_forward = roll_forward(&recovered, &records, &mut index, checkpoint, &layout)?;
    if let Err(error) = log.retire(log.last()) {
        tracing::warn!(%error, "an old segment of the log could not be removed");
    }
    let head = Position { epoch: log.epoch(), revision: log.last() };
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
    let space = Space {
        disk,
        dir: layout.dir().into(),
        reserve_bytes: options.reserve_bytes,
        floor_bytes: options.floor_bytes,
        warned: false,
    };
    let writer = Writer {
        requests: receiver,
        held: None,
        log,
        index,
        instance,
        space,
        clock,
        history: Arc::clone(&history),
        progress: Arc::clone(&progress),
        groups,
        applier,
        records,
    };
    spawn("store-log", &layout, {
        let progress = Arc::clone(&progress);
        move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                progress.fail("the log's thread panicked".into());
            }
        }
    })?;
    Ok(Embedded { requests, history, progress, records: weak })
}

/// Whether sled and the log are of one store and overlap.
fn check(at: &Checkpoint, none: &Checkpoint, recovered: &Recovered, layout: &Layout) -> Result<(), OpenError> {
    let (applied, begin, end) = (at.position.revision, recovered.first(), recovered.last());
    if (at.instance, at.position.epoch) != (none.instance, none.position.epoch) {
        return Err(OpenError::damaged(&layout.sled(), "it belongs to another store or time"));
    }
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
        return Err(behind(layout, &format!("it ends at revision {}", applied.0), begin));
    }
    Ok(())
}

fn behind(layout: &Layout, what: &str, begin: Revision) -> OpenError {
    let what = format!("{what}, and the log begins at {}: what lies between is lost", begin.0);
    OpenError::damaged(&layout.sled(), what)
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
