//! Watches the free space, so that the store is full before the disk is.
//!
//! The reserve is for what has been acknowledged and is still on its way to sled (64 groups of about 1 MiB at most),
//! and for deletes, which need room in the log before they free any. Reads never need room.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::disk::Disk;

/// How often the file system is asked, at most.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Largest reserve, unless configured, in bytes.
const RESERVE_BYTES: u64 = 64 << 20;
/// The reserve's share of the file system, unless configured, in percent.
const RESERVE_PERCENT: u64 = 5;

/// Which transactions there is room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// All.
    All,
    /// Those that only delete; why.
    Deletes(String),
    /// None; why.
    Nothing(String),
}

/// The free space, asked now and then.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// Below this many free bytes only deletes pass; by default 64 MiB or 5 %, whichever is smaller.
    pub(super) reserve_bytes: Option<u64>,
    /// Below this many none do; by default a quarter of the reserve.
    pub(super) floor_bytes: Option<u64>,
    pub(super) every: Duration,
    pub(super) last: Option<(Instant, Passing)>,
}

impl Space {
    /// What passes now.
    pub(super) fn passing(&mut self) -> Passing {
        if let Some((at, passing)) = &self.last
            && at.elapsed() < self.every
        {
            return passing.clone();
        }
        let passing = self.ask();
        if self.last.as_ref().is_none_or(|(_, before)| *before == Passing::All) && passing != Passing::All {
            tracing::warn!(?passing, "the disk is nearly full");
        }
        self.last = Some((Instant::now(), passing.clone()));
        passing
    }

    fn ask(&self) -> Passing {
        let room = match self.disk.room(&self.dir) {
            Ok(room) => room,
            Err(error) => {
                // The write itself will tell; refusing everything for this would be worse.
                tracing::warn!(%error, "the free space is not known");
                return Passing::All;
            }
        };
        let usual = RESERVE_BYTES.min(room.total_bytes / 100 * RESERVE_PERCENT);
        let reserve = self.reserve_bytes.unwrap_or(usual);
        let floor = self.floor_bytes.unwrap_or(reserve / 4);
        let why = |kind: &str, limit: u64| format!("{} bytes are free, the {kind} is {limit}", room.free_bytes);
        match room.free_bytes {
            free if free < floor => Passing::Nothing(why("floor", floor)),
            free if free < reserve => Passing::Deletes(why("reserve", reserve)),
            _ => Passing::All,
        }
    }
}
