//! The write-ahead log: the one history that is the truth.
//!
//! Segments named by their first revision hold frames; a frame holds one group of commits and the checksum of the frame
//! before it. A group is one write and one sync, so only the last frame of the last segment can be torn: it is cut when
//! the store opens. Everything else that does not check out is damage, which is reported with file and offset.
//!
//! A store's own log has every revision once. One that records what another store does has the other's revisions, which
//! have gaps; that nothing is missing between two frames the checksums say.

pub mod frame;
pub mod group;
pub mod recorded;
pub mod segment;

mod append;
#[cfg(test)]
mod recorded_tests;
mod recover;
#[cfg(test)]
mod tests;

pub(super) use append::{Append, Log};
pub(super) use recover::{Recovered, begun_segments, segment_revisions};
