//! What an operator asks of a store, beside its four verbs: how it is, its snapshots, a backup.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{Error, Position};

/// How a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which kind of store: `embedded` or `etcd`.
    pub kind: &'static str,
    /// Which writes pass.
    pub writes: Writes,
    /// The earliest position that can be restored from what is kept, and its time, which the very beginning has not.
    pub oldest: Option<(Position, Option<SystemTime>)>,
    /// Size of the log and of all snapshots, in bytes.
    pub history_bytes: u64,
    /// Why history that is to be kept is not kept now.
    pub history_problem: Option<String>,
    /// Free for the store, or for its history if that alone is here, in bytes, if that is known.
    pub free_bytes: Option<u64>,
}

impl Condition {
    /// Of a store that takes all writes and keeps no history.
    pub fn of(kind: &'static str) -> Self {
        let (writes, history_problem) = (Writes::All, None);
        Self { kind, writes, oldest: None, history_bytes: 0, history_problem, free_bytes: None }
    }
}

/// Which writes a store takes. Reads go on whatever stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// All.
    All,
    /// Only transactions that free room, and why.
    Deletes(String),
    /// None, and why.
    Nothing(String),
}

/// A snapshot: the sealed records of one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The position.
    pub position: Position,
    /// When its last transaction was made; nothing for a store in which there never was one.
    pub time: Option<SystemTime>,
    /// How many records.
    pub records: u64,
    /// Size of its file, in bytes.
    pub bytes: u64,
}

/// A backup under way: a snapshot and the bytes of its file.
pub struct Backup {
    /// Which it is.
    pub snapshot: Snapshot,
    /// Its bytes, in order.
    pub chunks: Box<dyn Chunks>,
}

/// Largest chunk of a backup, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes in order.
#[async_trait]
pub trait Chunks: Send {
    /// The next bytes, 1 to [`CHUNK_BYTES`] of them, or `None` after the last.
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error>;
}
