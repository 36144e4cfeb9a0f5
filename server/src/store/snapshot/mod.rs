//! Snapshots as files: the sealed records of one position, as stored. A backup is one, too.
//!
//! ```text
//! header: magic 8 | format 4 | store instance 16 | epoch 8 | revision 8 | time 8
//!                 | checksum of the log's frame of that revision 4 | CRC-32 of all before it 4
//! frame:  kind 1 | payload length 4 | frame number 4 | CRC-32 of the three and the payload 4 | payload
//! records' payload (kind 1), ordered by key: each: key length 2 | key | revision 8 | value length 4 | value
//! end's payload (kind 2), the last frame: records 8 | bytes of the file before this frame 8 | SHA-256 of those bytes 32
//! ```
//! Numbers are little-endian. Only a file that ends with its end is a snapshot: a part of one never passes for it.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Damage, Reader, look};
pub use write::Writer;

use super::{Epoch, Millis, NUMBER_MAX, Position, Revision};

const MAGIC: [u8; 8] = *b"coffrsnp";
const FORMAT: u32 = 1;
/// Size of the header, in bytes.
pub const HEADER_BYTES: usize = 60;
/// Size of a frame without its payload, in bytes.
const FRAME_BYTES: usize = 13;
/// A frame is written when its payload has this many bytes.
const PAYLOAD_BYTES: usize = 256 * 1024;
/// Largest payload that is read, in bytes: one record of the largest size may come on top.
const PAYLOAD_BYTES_MAX: usize = PAYLOAD_BYTES + 128 * 1024;
const END_BYTES: usize = 8 + 8 + 32;
const RECORDS: u8 = 1;
const END: u8 = 2;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store it was made of.
    pub instance: [u8; 16],
    /// The position.
    pub position: Position,
    /// When the last transaction was made; 0 if there never was one.
    pub time: Millis,
    /// Checksum of the log's frame that ends at this revision: what the next segment continues.
    pub chain: u32,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.instance);
        bytes.extend(self.position.epoch.0.to_le_bytes());
        bytes.extend(self.position.revision.0.to_le_bytes());
        bytes.extend(self.time.0.to_le_bytes());
        bytes.extend(self.chain.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let mut array = [0; HEADER_BYTES];
        array.copy_from_slice(&bytes);
        array
    }

    /// The header in these bytes.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Damage> {
        let damage = |what: &str| Damage::new(0, what);
        let (covered, checksum) = bytes.split_at(HEADER_BYTES - 4);
        if covered[..8] != MAGIC {
            return Err(damage("it does not begin as a snapshot does"));
        }
        if crc32fast::hash(covered).to_le_bytes() != checksum {
            return Err(damage("the snapshot's header does not match its checksum"));
        }
        let format = u32::from_le_bytes(array(&covered[8..]));
        if format != FORMAT {
            return Err(damage(&format!("the snapshot has format {format}, and this version reads {FORMAT}")));
        }
        let number = |at: usize| u64::from_le_bytes(array(&covered[at..]));
        if number(28).max(number(36)) > NUMBER_MAX {
            return Err(damage("no store has come so far as its position says"));
        }
        Ok(Self {
            instance: array(&covered[12..]),
            position: Position { epoch: Epoch(number(28)), revision: Revision(number(36)) },
            time: Millis(number(44)),
            chain: u32::from_le_bytes(array(&covered[52..])),
        })
    }
}

/// The checksum of a frame.
fn checksum(kind: u8, number: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// The first bytes of a slice that has as many.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}
