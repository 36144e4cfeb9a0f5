//! The audit log: who did what, from where, on which names, decided how. Never a value, a hint or a description.
//!
//! Nothing acts without a line: a change writes its intent before and its outcome after; a call that hands something out
//! writes its line before the answer leaves. Each line ends with a code over itself and the line before it, so that a
//! change, a deletion or another order is found.
//!
//! - [`event`] is what a line says, `line` forms its JSON; `marker` forms the lines that begin, continue and end a chain.
//! - [`file`](mod@file) is where lines go: `writer` keeps the file whole and the chain true to it, `sink` is the file
//!   itself, `rotation` what becomes of it when it is full, `head` the note of how far it came, `tail` how far it is, `reserve` its
//!   room on a full disk.
//! - [`read`] takes lines apart, [`files`] finds them, [`verify`] holds them against their chains, [`reached`] tells from
//!   them how far the store had come.

pub mod event;
pub mod file;
pub mod files;
mod head;
mod line;
mod lock;
mod marker;
pub mod reached;
pub mod read;
mod reserve;
mod rotation;
mod sink;
mod tail;
pub mod verify;
mod writer;

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    seal::{Uid, chain::Chain},
    store::Position,
};

pub use event::{Event, Phase, Subject};
pub use head::{Head, Mark};

/// How long a call waits for a sink to take its line before it fails, so that a dead sink cannot hold calls for ever.
pub const RECORD_WAIT_MAX: Duration = Duration::from_secs(1);

/// Longest line, in bytes. None is written beyond it, and none read, so that readers know what memory they need.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where audit lines go.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Begins a chain; every line until then is refused. The first line of the chain is written before any other, now
    /// or as soon as the sink takes one. An error only if there is no writer any more.
    async fn begin(&self, chain: Chain) -> Result<(), Unavailable>;

    /// Hands one line over. When it returns `Ok`, the line is in the operating system's hands, or with
    /// `audit.sync` on the disk; lines of one task keep their order.
    async fn record(&self, event: Event) -> Result<(), Unavailable>;

    /// Returns how far a store had come by the lines of before; `None` where they cannot be read or say nothing.
    async fn reached(&self, _store: Uid) -> Option<Position> {
        None
    }

    /// How far the log has come. `None` where there is no chain.
    fn head(&self) -> Option<Head> {
        None
    }
}

/// No sink took the line within [`RECORD_WAIT_MAX`]. What the line was for must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no audit sink can take a line")]
pub struct Unavailable;
