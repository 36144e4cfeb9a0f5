//! The thread that makes snapshots, when they are due or asked for, and lets go of what is too old.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    super::{
        CLOCK_SLACK, Records,
        disk::Disk,
        layout::{Layout, Lock, OpenError, segment_path},
        log::segment_revisions,
        progress::Progress,
        writer::Request,
    },
    Boundary, Kept, Merge, Overlay, Retention, Until, check,
    health::Health,
    list, path,
    retention::Aged,
    tidy, write,
};
use crate::{
    clock::Clock,
    store::{Epoch, Error, Millis, Position, Revision, Snapshot, snapshot::Header},
};

/// Callers that may wait for a snapshot.
const ASKING_MAX: usize = 64;
/// A snapshot is due when the log since the last one has this many bytes, and half as many as that one.
const DUE_BYTES: u64 = 64 << 20;
/// And when the last one is so old and something was committed since.
const DUE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a snapshot is read to its end.
const READ_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Free bytes that a snapshot leaves to the rest.
const SPARE_BYTES: u64 = 96 << 20;

/// Where a caller waits.
type Ask = oneshot::Sender<Result<Snapshot, Error>>;

/// The thread's handle.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    asks: Mutex<Option<std_mpsc::SyncSender<Ask>>>,
    health: Arc<Health>,
    cancelled: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works with.
pub(in super::super) struct KeeperParts {
    pub(in super::super) layout: Layout,
    pub(in super::super) disk: Arc<dyn Disk>,
    pub(in super::super) clock: Arc<dyn Clock>,
    pub(in super::super) instance: [u8; 16],
    pub(in super::super) epoch: Epoch,
    /// Weak, so that they can be closed.
    pub(in super::super) records: Weak<Records>,
    pub(in super::super) retention: Retention,
    pub(in super::super) looks_every: Duration,
    pub(in super::super) progress: Arc<Progress>,
    /// Weak, so that the store ends when nobody else asks.
    pub(in super::super) writer: mpsc::WeakSender<Request>,
    #[expect(dead_code, reason = "held: the directory is free when this is gone, too")]
    pub(in super::super) lock: Arc<Lock>,
}

impl Keeper {
    /// Begins the thread.
    pub(in super::super) fn start(parts: KeeperParts) -> Result<Self, OpenError> {
        let (asks, asked) = std_mpsc::sync_channel(ASKING_MAX);
        let cancelled = Arc::new(AtomicBool::new(false));
        let dir = parts.layout.dir().to_owned();
        let health = Arc::new(Health::default());
        let worker = Worker {
            snapshots: parts.layout.snapshots(),
            parts,
            cancelled: Arc::clone(&cancelled),
            health: Arc::clone(&health),
            read: BTreeMap::new(),
            base: None,
        };
        let thread = thread::Builder::new().name("store-snapshots".into()).spawn(move || worker.run(&asked));
        let thread = thread.map_err(OpenError::at(&dir))?;
        Ok(Self { asks: Mutex::new(Some(asks)), health, cancelled, thread: Mutex::new(Some(thread)) })
    }

    /// A snapshot of all that was acknowledged before.
    pub(in super::super) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let closed = || Error::Unavailable("it is closed".into());
        let (answer, answered) = oneshot::channel();
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match asks.ok_or_else(closed)?.try_send(answer) {
            Ok(()) => answered.await.map_err(|_| closed())?,
            Err(std_mpsc::TrySendError::Full(_)) => Err(Error::Unavailable("others wait for a snapshot".into())),
            Err(std_mpsc::TrySendError::Disconnected(_)) => Err(closed()),
        }
    }

    /// How the snapshots are.
    pub(in super::super) fn health(&self) -> &Health {
        &self.health
    }

    /// What an operator should look at.
    pub(in super::super) fn problems(&self) -> Vec<String> {
        let mut problems = self.health.problems();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.as_ref().is_some_and(JoinHandle::is_finished) {
            problems.push("the thread that makes snapshots has ended: look at the server's log, and restart it".into());
        }
        problems
    }

    /// Ends the thread, and what it is making.
    pub(in super::super) fn stop(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        drop(self.asks.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that panicked left an unfinished file at most.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Nobody waits for it: whoever opens the directory next does.
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Worker {
    pub(super) parts: KeeperParts,
    pub(super) snapshots: PathBuf,
    pub(super) cancelled: Arc<AtomicBool>,
    health: Arc<Health>,
    /// When snapshots were last read to their end.
    read: BTreeMap<PathBuf, SystemTime>,
    /// What stands for everything before it; it was read to its end when it began to.
    base: Option<Kept>,
}

impl Worker {
    fn run(mut self, asked: &std_mpsc::Receiver<Ask>) {
        tidy(&self.snapshots, &*self.parts.disk);
        self.retain();
        loop {
            match asked.recv_timeout(self.parts.looks_every) {
                Ok(ask) => {
                    let made = self.snapshot();
                    self.retain();
                    // Nobody may wait any more; the snapshot is made all the same.
                    let _ = ask.send(made);
                }
                Err(std_mpsc::RecvTimeoutError::Timeout) => {
                    if self.is_due().unwrap_or(false)
                        && let Err(error) = self.snapshot()
                    {
                        tracing::warn!(%error, "the snapshot that is due is not made; trying again later");
                    }
                    self.retain();
                    self.read_one();
                }
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The snapshots of this store, oldest first. What else has the name of one stands for nothing.
    fn kept(&self) -> Result<Vec<Kept>, OpenError> {
        let head = Position { epoch: self.parts.epoch, revision: self.parts.progress.head().0 };
        let mut kept = list(&self.snapshots)?;
        self.health.there_are(&kept);
        kept.retain(|kept| {
            let opened = match (kept.position.epoch, kept.position <= head) {
                (epoch, true) if epoch == head.epoch => kept.open(Some(self.parts.instance)).map(drop),
                _ => Err(OpenError::damaged(&kept.path, "the store was never at its position")),
            };
            opened.inspect_err(|error| self.health.damaged(kept, error)).is_ok()
        });
        Ok(kept)
    }

    /// Reads a snapshot to its end.
    fn examine(&mut self, kept: &Kept) -> Result<Snapshot, OpenError> {
        let outcome = kept.examine(self.parts.instance, || check(&self.cancelled, &self.snapshots));
        match &outcome {
            Ok(_) => {
                self.health.whole(&kept.path);
                self.read.insert(kept.path.clone(), self.parts.clock.now());
            }
            Err(error @ OpenError::Damaged { .. }) => self.health.damaged(kept, error),
            Err(_) => {}
        }
        outcome
    }

    /// Reads one to its end that was not for a day: damage is to be known while the others still stand for it.
    fn read_one(&mut self) {
        let Ok(mut kept) = list(&self.snapshots) else { return };
        self.read.retain(|path, _| kept.iter().any(|kept| kept.path == *path));
        let now = self.parts.clock.now();
        let is_unread = |kept: &Kept| {
            let read = self.read.get(&kept.path);
            read.is_none_or(|read| now.duration_since(*read).is_ok_and(|age| age > READ_EVERY))
        };
        kept.retain(is_unread);
        if let Some(kept) = kept.last() {
            // Also one that cannot be read was looked at.
            self.read.insert(kept.path.clone(), now);
            let _ = self.examine(kept);
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, Error> {
        let kept = self.kept().map_err(failed)?;
        let boundary = match self.boundary() {
            // Dividing the log takes less than the snapshot, which says how much it needs.
            Err(error @ Error::Exhausted(_)) => return Err(self.check_room(&kept).err().unwrap_or(error)),
            boundary => boundary?,
        };
        if let Some(newest) = kept.last().filter(|newest| newest.position == boundary.position) {
            // Read to its end: it may be about to leave as a backup, and one that cannot be restored is none.
            match self.examine(newest) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => tracing::error!(%error, "the newest snapshot is damaged, and is made anew"),
            }
        }
        self.check_room(&kept)?;
        let began = std::time::Instant::now();
        // Newest first: an older one takes more of the log, and is only for when the newer are damaged.
        let bases = kept.iter().rev().filter(|kept| kept.position < boundary.position).map(Some).chain([None]);
        let made = |snapshot: Snapshot| {
            let took = began.elapsed();
            tracing::info!(position = %snapshot.position, records = snapshot.records, ?took, "made a snapshot");
            self.health.whole(&path(&self.snapshots, snapshot.position));
            snapshot
        };
        for base in bases {
            match self.make(base, &boundary) {
                Ok(Some(snapshot)) => return Ok(made(snapshot)),
                Ok(None) => {}
                Err(error @ OpenError::Damaged { .. }) => {
                    tracing::error!(%error, "a snapshot cannot be made of this; trying an older one");
                    if let (Some(base), OpenError::Damaged { file, .. }) = (base, &error)
                        && *file == base.path
                    {
                        self.health.damaged(base, &error);
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
        tracing::error!("no snapshot and log make a new one together: it is made of the records that are served");
        self.make_of_records().map(made).map_err(failed)
    }

    /// Divides the log here.
    pub(super) fn boundary(&self) -> Result<Boundary, Error> {
        let closed = || Error::Unavailable("it is closed".into());
        let writer = self.parts.writer.upgrade().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        writer.blocking_send(Request::Divide(answer)).map_err(|_| closed())?;
        drop(writer);
        answered.blocking_recv().map_err(|_| closed())?
    }

    /// `None`: the log does not reach back to this base.
    fn make(&self, base: Option<&Kept>, boundary: &Boundary) -> Result<Option<Snapshot>, OpenError> {
        let log = self.parts.layout.log();
        let after = base.map_or(Revision(0), |base| base.position.revision);
        let segments = needed(segment_revisions(&log)?, after);
        let Some(segments) = segments else { return Ok(None) };
        let mut overlay = match base {
            Some(kept) => Overlay::after(kept.open(Some(self.parts.instance))?.header()),
            None => Overlay::begin(self.parts.instance),
        };
        let until = Until::Revision(boundary.position.revision);
        for first in segments.into_iter().filter(|first| *first <= boundary.position.revision) {
            check(&self.cancelled, &log)?;
            overlay.add(&log, first, false, until)?;
        }
        if overlay.last != boundary.position.revision {
            return Err(OpenError::damaged(&log, "it ends before what was acknowledged"));
        }
        let (instance, Boundary { position, time, chain }) = (self.parts.instance, *boundary);
        let merge = Merge::new(base, instance, &overlay)?;
        let snapshot =
            write(&self.snapshots, &*self.parts.disk, Header { instance, position, time, chain }, |writer| {
                merge.run(|record| {
                    check(&self.cancelled, &self.snapshots)?;
                    let pushed = writer.push(&record.key, record.revision, &record.value);
                    pushed.map_err(OpenError::at(&self.snapshots))
                })
            })?;
        Ok(Some(snapshot))
    }

    /// A snapshot must not take the room that commits need.
    fn check_room(&self, kept: &[Kept]) -> Result<(), Error> {
        let since = kept.last().map_or(Revision(0), |newest| newest.position.revision);
        let base = kept.last().map_or(0, |newest| size(&newest.path));
        let needed = base + self.log_bytes(since).map_err(failed)? + SPARE_BYTES;
        match self.parts.disk.room(self.parts.layout.dir()) {
            Ok(room) if room.free_bytes < needed => Err(no_room(needed, room.free_bytes)),
            // Where it is not known the write itself will tell.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn is_due(&self) -> Result<bool, OpenError> {
        let kept = self.kept()?;
        let newest = kept.iter().rev().find(|kept| !self.health.is_damaged(kept));
        let is_lost = |lost: &Kept| {
            lost.position.revision <= self.parts.progress.head().0
                && newest.is_none_or(|newest| newest.position < lost.position)
        };
        if list(&self.snapshots)?.iter().any(is_lost) {
            return Ok(true);
        }
        let since = newest.map_or(Revision(0), |newest| newest.position.revision);
        let bytes = self.log_bytes(since)?;
        if bytes > DUE_BYTES.max(newest.map_or(0, |newest| size(&newest.path)) / 2) {
            return Ok(true);
        }
        let made = newest.map_or_else(|| fs::metadata(self.parts.layout.format()), |newest| fs::metadata(&newest.path));
        let made = made.and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_old = self.parts.clock.now().duration_since(made).is_ok_and(|age| age > DUE_AGE);
        Ok(is_old && self.parts.progress.applied() > since)
    }

    /// Size of the log after a revision, roughly: whole segments.
    fn log_bytes(&self, after: Revision) -> Result<u64, OpenError> {
        let log = self.parts.layout.log();
        let all = segment_revisions(&log)?;
        let segments = needed(all.clone(), after).unwrap_or(all);
        Ok(segments.iter().map(|first| size(&segment_path(&log, *first))).sum())
    }

    /// Removes snapshots that are too old, and tells the log's thread what it need not keep.
    fn retain(&mut self) {
        if let Err(error) = self.try_retain() {
            tracing::warn!(%error, "what is too old is not removed; trying again later");
        }
    }

    fn try_retain(&mut self) -> Result<(), OpenError> {
        let log = self.parts.layout.log();
        let segments = segment_revisions(&log)?;
        let bytes_between = |from: Revision, to: Revision| -> u64 {
            let within = segments.iter().filter(|first| **first > from && **first <= to);
            within.map(|first| size(&segment_path(&log, *first))).sum()
        };
        let now = self.parts.clock.now();
        let slack = Millis::from(now + CLOCK_SLACK);
        let time = self.parts.progress.head().1;
        self.health.ahead(Some(time).filter(|time| *time > slack));
        let mut kept = self.kept()?;
        kept.retain(|kept| !self.health.is_damaged(kept));
        let verdict = loop {
            let mut aged: Vec<Aged> = Vec::new();
            for kept in &kept {
                let header_time = kept.open(Some(self.parts.instance))?.header().time;
                // Made while the clock was ahead, it would stay until the clock is there, too.
                let modified = || fs::metadata(&kept.path).and_then(|metadata| metadata.modified()).map(Millis::from);
                let time = if header_time > slack { modified().unwrap_or(header_time) } else { header_time };
                aged.push(Aged { time, bytes: size(&kept.path), log_bytes: 0, kept: kept.clone() });
            }
            let ends: Vec<Revision> = aged.iter().skip(1).map(|aged| aged.kept.position.revision).collect();
            for (at, aged) in aged.iter_mut().enumerate() {
                let end = ends.get(at).copied().unwrap_or(Revision(u64::MAX));
                aged.log_bytes = bytes_between(aged.kept.position.revision, end);
            }
            let before = aged.first().map_or(Revision(u64::MAX), |first| first.kept.position.revision);
            let verdict = self.parts.retention.judge(&aged, bytes_between(Revision(0), before), now);
            match &verdict.base {
                // What it stands for goes, so it is read to its end before.
                Some(base) if self.base.as_ref() != Some(base) || !verdict.doomed.is_empty() => {
                    match self.examine(base) {
                        Ok(_) => break verdict,
                        Err(OpenError::Damaged { .. }) => kept.retain(|kept| kept != base),
                        Err(error) => return Err(error),
                    }
                }
                _ => break verdict,
            }
        };
        if verdict.is_short && !self.health.short(verdict.is_short) {
            tracing::warn!(
                bytes_max = self.parts.retention.bytes_max,
                "snapshots and log are too large for the retention: less of the past is kept than was asked for"
            );
        }
        self.health.short(verdict.is_short);
        self.base = verdict.base;
        let keep_after = self.base.as_ref().map_or(Revision(0), |base| base.position.revision);
        // What is damaged and so old is no loss any more.
        let damaged = list(&self.snapshots)?.into_iter().filter(|kept| {
            self.health.is_damaged(kept) && self.base.as_ref().is_some_and(|base| kept.position < base.position)
        });
        for kept in verdict.doomed.into_iter().chain(damaged) {
            self.parts.disk.remove(&kept.path).map_err(OpenError::at(&kept.path))?;
            self.health.whole(&kept.path);
            tracing::info!(position = %kept.position, "removed a snapshot that is not needed");
        }
        self.parts.progress.keep_after(keep_after);
        Ok(())
    }
}

/// The segments that hold what is after a revision, if the log reaches back that far.
pub(in super::super) fn needed(mut segments: Vec<Revision>, after: Revision) -> Option<Vec<Revision>> {
    let begin = segments.iter().rposition(|first| first.0 <= after.0 + 1)?;
    segments.drain(..begin);
    Some(segments)
}

fn no_room(needed_bytes: u64, free_bytes: u64) -> Error {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Error::NoRoom(format!(
        "a new snapshot wants {} MiB free on the server's disk, of which {} MiB are to stay free; {} MiB are free",
        mib(needed_bytes),
        mib(SPARE_BYTES),
        free_bytes >> 20
    ))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn failed(error: OpenError) -> Error {
    let is_full = matches!(&error, OpenError::Io { source, .. } if super::super::disk::is_full(source));
    let why = error.to_string();
    if is_full { Error::NoRoom(why) } else { Error::Unavailable(why) }
}
