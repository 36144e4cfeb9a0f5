//! One frame of the log: a group of commits, or several, under checksums, chained to the frame before it.
//!
//! ```text
//! magic 4 | kind 1 | payload length 4 | first revision 8 | last revision 8 | time 8
//!         | previous frame's checksum 4 | payload's CRC-32 4 | checksum: CRC-32 of all before it 4 | payload
//! ```
//! Numbers are little-endian. The header has a checksum of its own, so that a damaged length is never followed.

use super::super::super::{Millis, Revision, TRANSACTION_BYTES};

/// Size of a frame without its payload, in bytes.
pub const HEADER_BYTES: usize = 45;
/// Largest payload, in bytes: one transaction of the largest size and what frames it.
pub const PAYLOAD_BYTES_MAX: usize = TRANSACTION_BYTES + 16 * 1024;
/// Largest payload of what is recorded, in bytes: a store in etcd tells each record that a prefix took by itself, and such a
/// transaction has no limit of its own.
pub const RECORDED_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 4] = *b"\xc0FFr";

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A group of commits was made.
    Group,
    /// Commits were recorded that another store made, each with its own time.
    Recorded,
    /// The store was closed in good order; nothing was under way.
    Closed,
}

impl Kind {
    /// Largest payload, in bytes.
    pub fn payload_bytes_max(self) -> usize {
        match self {
            Kind::Group => PAYLOAD_BYTES_MAX,
            Kind::Recorded => RECORDED_BYTES_MAX,
            Kind::Closed => 0,
        }
    }
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says.
    pub kind: Kind,
    /// Payload's size, in bytes.
    pub length: usize,
    /// First revision in it; of a closed log, the last one made.
    pub first: Revision,
    /// Last revision in it.
    pub last: Revision,
    /// When it was written; never before the frame before it.
    pub time: Millis,
    /// Checksum of the frame before it.
    pub previous: u32,
    /// Its own checksum, over everything.
    pub checksum: u32,
    payload_crc: u32,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// They end too early.
    #[error("the frame is cut short")]
    Short,
    /// The header is not one, or its checksum differs.
    #[error("the frame's header does not match its checksum")]
    Header,
    /// The payload's checksum differs.
    #[error("the frame's payload does not match its checksum")]
    Payload,
}

/// The bytes of a frame of these first and last revisions.
pub fn encode(kind: Kind, [first, last]: [Revision; 2], time: Millis, previous: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(MAGIC);
    bytes.push(match kind {
        Kind::Group => 1,
        Kind::Closed => 2,
        Kind::Recorded => 3,
    });
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(first.0.to_le_bytes());
    bytes.extend(last.0.to_le_bytes());
    bytes.extend(time.0.to_le_bytes());
    bytes.extend(previous.to_le_bytes());
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// The header at the front of some bytes.
pub fn decode_header(bytes: &[u8]) -> Result<Header, Bad> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(Bad::Short) };
    let (covered, checksum) = header.split_at(HEADER_BYTES - 4);
    let checksum = u32_at(checksum, 0);
    if header[..4] != MAGIC || crc32fast::hash(covered) != checksum {
        return Err(Bad::Header);
    }
    let kind = match header[4] {
        1 => Kind::Group,
        2 => Kind::Closed,
        3 => Kind::Recorded,
        _ => return Err(Bad::Header),
    };
    let length = u32_at(header, 5) as usize;
    if length > kind.payload_bytes_max() {
        return Err(Bad::Header);
    }
    Ok(Header {
        kind,
        length,
        first: Revision(u64_at(header, 9)),
        last: Revision(u64_at(header, 17)),
        time: Millis(u64_at(header, 25)),
        previous: u32_at(header, 33),
        checksum,
        payload_crc: u32_at(header, 37),
    })
}

/// The frame at the front of some bytes: its header and payload.
pub fn decode(bytes: &[u8]) -> Result<(Header, &[u8]), Bad> {
    let header = decode_header(bytes)?;
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + header.length).ok_or(Bad::Short)?;
    if crc32fast::hash(payload) != header.payload_crc {
        return Err(Bad::Payload);
    }
    Ok((header, payload))
}

/// Where, after `from`, a frame's header stands, if one does. Frames torn by a crash are followed by none.
pub fn find_header(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len().saturating_sub(HEADER_BYTES - 1))
        .find(|&at| bytes[at..].starts_with(&MAGIC) && decode_header(&bytes[at..]).is_ok())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
