//! The thread that makes snapshots, when they are due or asked for, and lets go of what is too old.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use super::{
    super::{
        disk::Disk,
        layout::{Layout, Lock, OpenError, segment_path},
        log::segment_revisions,
        progress::Progress,
    },
    Boundary, Kept, Merge, Overlay, Retention, Until, check, list,
    retention::Aged,
    tidy, write,
};
use crate::{
    clock::Clock,
    store::{Error, Revision, Snapshot, snapshot::Header},
};

/// Callers that may wait for a snapshot.
const ASKING_MAX: usize = 64;
/// A snapshot is due when the log since the last one has this many bytes, and half as many as that one.
const DUE_BYTES: u64 = 64 << 20;
/// And when the last one is so old and something was committed since.
const DUE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Free bytes that a snapshot leaves to the rest.
const SPARE_BYTES: u64 = 96 << 20;

/// Where a caller waits.
type Ask = oneshot::Sender<Result<Snapshot, Error>>;

/// The thread's handle.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    asks: Mutex<Option<std_mpsc::SyncSender<Ask>>>,
    cancelled: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works with.
pub(in super::super) struct KeeperParts {
    pub(in super::super) layout: Layout,
    pub(in super::super) disk: Arc<dyn Disk>,
    pub(in super::super) clock: Arc<dyn Clock>,
    pub(in super::super) instance: [u8; 16],
    pub(in super::super) retention: Retention,
    pub(in super::super) looks_every: Duration,
    pub(in super::super) progress: Arc<Progress>,
    /// Divides the log where it ends. Holds nothing that keeps the store open.
    pub(in super::super) divide: Box<dyn Fn() -> Result<Boundary, Error> + Send>,
    #[expect(dead_code, reason = "held: the directory is free when this is gone, too")]
    pub(in super::super) lock: Arc<Lock>,
}

impl Keeper {
    /// Begins the thread.
    pub(in super::super) fn start(parts: KeeperParts) -> Result<Self, OpenError> {
        let (asks, asked) = std_mpsc::sync_channel(ASKING_MAX);
        let cancelled = Arc::new(AtomicBool::new(false));
        let dir = parts.layout.dir().to_owned();
        let worker =
            Worker { snapshots: parts.layout.snapshots(), parts, cancelled: Arc::clone(&cancelled), short: false };
        let thread = thread::Builder::new().name("store-snapshots".into()).spawn(move || worker.run(&asked));
        let thread = thread.map_err(OpenError::at(&dir))?;
        Ok(Self { asks: Mutex::new(Some(asks)), cancelled, thread: Mutex::new(Some(thread)) })
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

struct Worker {
    parts: KeeperParts,
    snapshots: PathBuf,
    cancelled: Arc<AtomicBool>,
    /// It was said that less is kept than was asked for.
    short: bool,
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
                }
                Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn snapshot(&self) -> Result<Snapshot, Error> {
        let kept = list(&self.snapshots).map_err(failed)?;
        let boundary = match (self.parts.divide)() {
            // Dividing the log takes less than the snapshot, which says how much it needs.
            Err(error @ Error::Exhausted(_)) => return Err(self.check_room(&kept).err().unwrap_or(error)),
            boundary => boundary?,
        };
        if let Some(newest) = kept.last().filter(|newest| newest.position == boundary.position) {
            // Read to its end: it may be about to leave as a backup, and one that cannot be restored is none.
            match newest.examine(self.parts.instance) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error @ OpenError::Io { .. }) => return Err(failed(error)),
                Err(error) => tracing::error!(%error, "the newest snapshot is damaged, and is made anew"),
            }
        }
        self.check_room(&kept)?;
        let began = std::time::Instant::now();
        // Newest first: an older one takes more of the log, and is only for when the newer are damaged.
        let bases = kept.iter().rev().filter(|kept| kept.position < boundary.position).map(Some).chain([None]);
        let mut last = Error::Failed("no snapshot and log reach back to each other".into());
        for base in bases {
            match self.make(base, &boundary) {
                Ok(Some(snapshot)) => {
                    let took = began.elapsed();
                    tracing::info!(position = %snapshot.position, records = snapshot.records, ?took, "made a snapshot");
                    return Ok(snapshot);
                }
                Ok(None) => {}
                Err(error @ OpenError::Damaged { .. }) => {
                    tracing::error!(%error, "a snapshot cannot be made of this; trying an older one");
                    last = failed(error);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(last)
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
        let kept = list(&self.snapshots)?;
        let newest = kept.last();
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
        let mut aged: Vec<Aged> = Vec::new();
        for kept in list(&self.snapshots)? {
            let reader = match kept.open(Some(self.parts.instance)) {
                Ok(reader) => reader,
                Err(error @ OpenError::Io { .. }) => return Err(error),
                // A damaged one stands for nothing.
                Err(_) => continue,
            };
            aged.push(Aged { time: reader.header().time, bytes: size(&kept.path), kept });
        }
        let ends: Vec<Revision> = aged.iter().skip(1).map(|aged| aged.kept.position.revision).collect();
        for (at, aged) in aged.iter_mut().enumerate() {
            aged.bytes +=
                bytes_between(aged.kept.position.revision, ends.get(at).copied().unwrap_or(Revision(u64::MAX)));
        }
        let before = aged.first().map_or(Revision(u64::MAX), |first| first.kept.position.revision);
        let verdict = self.parts.retention.judge(&aged, bytes_between(Revision(0), before), self.parts.clock.now());
        if verdict.is_short && !self.short {
            tracing::warn!(
                bytes_max = self.parts.retention.bytes_max,
                "snapshots and log are too large for the retention: less of the past is kept than was asked for"
            );
        }
        self.short = verdict.is_short;
        for kept in verdict.doomed {
            self.parts.disk.remove(&kept.path).map_err(OpenError::at(&kept.path))?;
            tracing::info!(position = %kept.position, "removed an old snapshot");
        }
        self.parts.progress.keep_after(verdict.keep_after);
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
