//! How far sled has come, kept in sled beside the records it speaks of.

use super::index::Digest;
use crate::store::{Epoch, Position, Revision};

/// Written in the same batch as the records that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// The store it belongs to.
    pub(super) instance: [u8; 16],
    /// The last transaction applied.
    pub(super) position: Position,
    /// The records there must be at that position.
    pub(super) digest: Digest,
}

/// Its size, in bytes.
pub(super) const BYTES: usize = 16 + 8 + 8 + 8 + 16 + 4;

impl Checkpoint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(self.instance);
        bytes.extend(self.position.epoch.0.to_le_bytes());
        bytes.extend(self.position.revision.0.to_le_bytes());
        bytes.extend(self.digest.records.to_le_bytes());
        bytes.extend(self.digest.sum.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (covered, checksum) = bytes.split_at(BYTES - 4);
        if crc32fast::hash(covered).to_le_bytes() != checksum {
            return None;
        }
        let number = |at: usize| covered[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Some(Self {
            instance: *covered.first_chunk()?,
            position: Position { epoch: Epoch(number(16)?), revision: Revision(number(24)?) },
            digest: Digest { records: number(32)?, sum: u128::from_le_bytes(*covered[40..].first_chunk()?) },
        })
    }
}
