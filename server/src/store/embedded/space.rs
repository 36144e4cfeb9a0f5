//! Watches the free space, so that the store is full before the disk is.
//!
//! Sled must never meet the end of the disk: its first failed write stops it for good. So what counts as free is what
//! the file system says, less what has been acknowledged and is still on its way to sled; and the reserve leaves room
//! for sled to grow its file, and for deletes, which need room in the log before they free any. Reads never need room.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Options, disk::Disk};

/// The reserve is this share of the file system, unless configured, in percent, within the bounds below.
const RESERVE_PERCENT: u64 = 5;
/// Smallest reserve, in bytes: two of sled's segments of 8 MiB, and a group in the log.
const RESERVE_BYTES_MIN: u64 = 20 << 20;
/// Largest reserve, in bytes.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// What sled has still to write counts this many times, because it writes a record with parts of the page around it.
const SLED_WRITES: u64 = 2;

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
#[derive(Clone, Debug)]
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Below this many free bytes only deletes pass; by default 5 %, but 20 MiB at least and 64 MiB at most.
    reserve_bytes: Option<u64>,
    /// Below this many none do; by default a quarter of the reserve.
    floor_bytes: Option<u64>,
    /// It was said that only some pass.
    warned: bool,
}

impl Space {
    /// Of a store in this directory.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Self {
        let Options { reserve_bytes, floor_bytes, .. } = *options;
        Self { disk, dir: dir.into(), reserve_bytes, floor_bytes, warned: false }
    }

    /// How many bytes the file system says are free, if it tells.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.disk.room(&self.dir).ok().map(|room| room.free_bytes)
    }

    /// What passes now, while sled has still so many bytes to write. Asking takes 1 µs, and a sync a hundred times that.
    pub(super) fn passing(&mut self, behind_bytes: u64) -> Passing {
        let passing = self.ask(behind_bytes);
        let is_short = passing != Passing::All;
        if is_short && !self.warned {
            tracing::warn!(?passing, "the disk is nearly full");
        }
        self.warned = is_short;
        passing
    }

    /// The same, without a word in the log.
    pub(super) fn ask(&self, behind_bytes: u64) -> Passing {
        let room = match self.disk.room(&self.dir) {
            Ok(room) => room,
            Err(error) => {
                // The write itself will tell; refusing everything for this would be worse.
                tracing::warn!(%error, "the free space is not known");
                return Passing::All;
            }
        };
        let usual = (room.total_bytes / 100 * RESERVE_PERCENT).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let free_bytes = room.free_bytes.saturating_sub(behind_bytes * SLED_WRITES);
        let reserve = self.reserve_bytes.unwrap_or(usual);
        let floor = self.floor_bytes.unwrap_or(reserve / 4);
        let why = |kind: &str, limit: u64| format!("{free_bytes} bytes are free, the {kind} is {limit}");
        match free_bytes {
            free if free < floor => Passing::Nothing(why("floor", floor)),
            free if free < reserve => Passing::Deletes(why("reserve", reserve)),
            _ => Passing::All,
        }
    }
}
