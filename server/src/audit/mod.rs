//! The audit log: who did what, from where, on which names, decided how. Never a value, a hint or a description.
//!
//! Nothing acts without a line: a change writes its intent before and its outcome after; a call that hands something out
//! writes its line before the answer leaves. [`event`] is what a line says, [`file`](mod@file) is where it goes:
//! `line` forms the JSON, `writer` keeps the file whole, `sink` is the file itself.

pub mod event;
pub mod file;
mod line;
mod sink;
mod writer;

use std::time::Duration;

use async_trait::async_trait;

pub use event::{Event, Phase, Subject};

/// How long a call waits for a sink to take its line before it fails, so that a dead sink cannot hold calls for ever.
pub const RECORD_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where audit lines go.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Hands one line over. When it returns `Ok`, the line is in the operating system's hands, or with
    /// `audit.sync` on the disk; lines of one task keep their order.
    async fn record(&self, event: Event) -> Result<(), Unavailable>;
}

/// No sink took the line within [`RECORD_WAIT_MAX`]. What the line was for must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no audit sink can take a line")]
pub struct Unavailable;
