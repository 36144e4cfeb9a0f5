//! The embedded store: a write-ahead log, and sled behind it.
//!
//! ```text
//!   commit ─► writer ─► log: append, one fdatasync for all that wait ─► followers ─► answer
//!                                            │
//!                                            └─► applier ─► sled (at most 64 groups behind) ─► load
//! ```
//! The log is the truth and one history; sled only holds the records of it, so that the log can be cut behind. Opening
//! checks both, changes nothing if either is damaged, and rolls sled forward from the log. After an error of a sync
//! nothing is answered with success and nothing is retried: the store has failed until it is opened again.

mod acknowledged;
mod applier;
mod checkpoint;
mod condition;
mod disk;
mod formerly;
mod index;
mod layout;
mod load;
pub mod log;
mod open;
mod pages;
mod past;
mod peek;
mod progress;
mod rebuild;
mod restore;
mod runs;
mod sled;
mod snapshots;
mod space;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use self::{
    disk::{Disk, RealDisk},
    layout::Layout,
    progress::Progress,
    sled::Records,
    snapshots::Keeper,
    space::{Passing, Space},
    writer::{Request, SLED_PATIENCE, Waiting},
};
pub use self::{
    formerly::formerly,
    layout::OpenError,
    past::{Past, RestoreError, Target},
    peek::{last, peek},
    restore::{Restored, restore, restore_after},
    runs::runs_in,
    verify::{Verified, verify},
};
pub(in crate::store) use self::{
    log::{group::Logged, recorded::Recorded},
    runs::{Begin, BeginError, Run, Runs, Unrecorded, recorded_to},
};
use super::{
    Backup, Condition, Conflict, Error, Follow, Load, Position, Snapshot, Store, Transaction,
    history::{History, Limits},
};
use crate::clock::{Clock, SystemClock};

/// How much of the past is kept for followers.
const HISTORY: Limits = Limits { commits: 8_192, bytes: 32 << 20 };

/// How often it is looked whether a snapshot is due, and what is too old.
const LOOKS_EVERY: Duration = Duration::from_secs(60);

/// Clocks differ by less than this: what is later is ahead of the clock.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// What can be configured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Sled's cache, in bytes; at most 256 MiB is used.
    pub cache_bytes: u64,
    /// The log begins a new segment when one has this many bytes.
    pub log_segment_bytes: u64,
    /// Below this many free bytes only deletes pass. By default 5 % of the file system, but 20 MiB at least and
    /// 64 MiB at most.
    pub reserve_bytes: Option<u64>,
    /// Below this many free bytes nothing is written. By default a quarter of the reserve.
    pub floor_bytes: Option<u64>,
    /// Every position of this long ago and since can be restored.
    pub retention: Duration,
    /// Most bytes of log and snapshots; beyond it less of the past is kept, but always the newest snapshot and the log after
    /// it.
    pub history_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            log_segment_bytes: 64 << 20,
            reserve_bytes: None,
            floor_bytes: None,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            history_bytes_max: 8 << 30,
        }
    }
}

/// What a store stands on; tests stand it on something worse.
#[derive(Clone)]
struct Ground {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    history: Limits,
    /// How often it is looked whether a snapshot is due, and what is too old.
    looks_every: Duration,
    /// How long a commit waits for sled when it is too far behind.
    sled_patience: Duration,
}

impl Default for Ground {
    fn default() -> Self {
        let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock));
        Self { disk, clock, history: HISTORY, looks_every: LOOKS_EVERY, sled_patience: SLED_PATIENCE }
    }
}

/// A store in a directory. Clones are handles of one store.
///
/// Dropping the last handle is as safe as killing the process; [`Embedded::close`] leaves less to do for the next
/// opening and says when the directory is free.
#[derive(Clone, Debug)]
pub struct Embedded {
    requests: mpsc::Sender<Request>,
    history: Arc<History>,
    progress: Arc<Progress>,
    records: Weak<Records>,
    keeper: Arc<Keeper>,
    space: Space,
    layout: Layout,
}

impl Embedded {
    /// Creates an empty store, of epoch 1 and a new instance. Refuses a directory that holds one, or parts of one.
    pub async fn create(dir: impl AsRef<Path>) -> Result<(), OpenError> {
        let dir = dir.as_ref().to_owned();
        blocking(dir.clone(), move || open::create(dir, &RealDisk)).await
    }

    /// Opens the store in a directory, which nobody else may have open.
    pub async fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::open_on(dir.as_ref(), options, Ground::default()).await
    }

    async fn open_on(dir: &Path, options: Options, ground: Ground) -> Result<Self, OpenError> {
        let dir = dir.to_owned();
        blocking(dir.clone(), move || open::open(dir, options, ground)).await
    }

    /// Ends the store in good order: what was asked before is done, sled has it all, the log says so, the directory is
    /// free once no load is under way. Afterwards every handle answers with [`Error::Unavailable`]. After an error the
    /// store is as after a kill.
    pub async fn close(&self) -> Result<(), Error> {
        let keeper = Arc::clone(&self.keeper);
        // It may be in the middle of a frame; its thread ends soon.
        let _ = tokio::task::spawn_blocking(move || keeper.stop()).await;
        let (answer, answered) = oneshot::channel();
        match self.requests.send(Request::Close(answer)).await {
            Ok(()) => answered.await.map_err(|_| self.ended())?,
            Err(_) => Ok(()),
        }
    }

    /// Why the writer does not answer.
    fn ended(&self) -> Error {
        self.progress.check().err().unwrap_or_else(|| Error::Unavailable("it is closed".into()))
    }
}

#[async_trait]
impl Store for Embedded {
    /// Sled stands still while its records are read: take the pages without pause. A reader that takes none for ten
    /// seconds is cut off, since in the end commits wait for it.
    async fn load(&self) -> Result<Box<dyn Load>, Error> {
        Ok(Box::new(load::load(self.records.clone(), Arc::clone(&self.progress), self.history.head()).await?))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, Error> {
        transaction.check()?;
        // It is the same one as long as the store is open.
        transaction.check_epoch(self.history.head().epoch)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Commit(Waiting { transaction, answer });
        self.requests.send(request).await.map_err(|_| self.ended())?;
        answered.await.unwrap_or_else(|_| Err(Error::Unknown("the store ended before it answered".into())))
    }

    /// A position that the store has not reached, or of another epoch, is a gap.
    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, Error> {
        Ok(Box::new(self.history.follow(after)))
    }

    async fn latest(&self) -> Result<Position, Error> {
        Ok(self.history.head())
    }

    async fn condition(&self) -> Condition {
        let store = self.clone();
        let looked = tokio::task::spawn_blocking(move || condition::of(&store)).await;
        looked.unwrap_or_else(|_| Condition::of(condition::KIND))
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.keeper.snapshot().await
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let dir = self.layout.snapshots();
        let looked = tokio::task::spawn_blocking(move || condition::snapshots(&dir)).await;
        looked.map_err(|_| Error::Unavailable("the snapshots cannot be listed".into()))?
    }

    async fn backup(&self) -> Result<Backup, Error> {
        let snapshot = self.keeper.snapshot().await?;
        condition::backup(&self.layout.snapshots(), snapshot).await
    }
}

/// Whether nothing was ever in a store that nobody has open. Only reads.
pub async fn is_empty(dir: impl AsRef<Path>) -> Result<bool, OpenError> {
    let layout = Layout::new(dir.as_ref().to_owned());
    blocking(dir.as_ref().to_owned(), move || open::is_empty(&layout)).await
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    dir: PathBuf,
    run: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let failed = |error| OpenError::Io { path: dir, source: io::Error::other(error) };
    tokio::task::spawn_blocking(run).await.map_err(failed)?
}
