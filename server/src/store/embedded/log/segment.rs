//! One segment of the log: a header, then frames.
//!
//! ```text
//! magic 8 | format 2 | origin 2 | store instance 16 | epoch 8 | first revision 8
//!         | time of the frame before it 8 | checksum of it 4 | CRC-32 4
//! ```
//! Numbers are little-endian.

use std::ops::Range;

use super::super::super::{Epoch, Millis, NUMBER_MAX, Revision};
use super::{
    frame::{self, Kind},
    group::{self, Logged},
    recorded,
};

/// Size of a segment's header, in bytes.
pub const HEADER_BYTES: usize = 60;

const MAGIC: [u8; 8] = *b"coffrlog";
const FORMAT: u16 = 2;

/// Whose commits a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Of the store beside it.
    Own,
    /// Of a store elsewhere.
    Recorded,
}

impl Origin {
    /// What its frames of commits are.
    fn kind(self) -> Kind {
        match self {
            Origin::Own => Kind::Group,
            Origin::Recorded => Kind::Recorded,
        }
    }
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose commits it holds.
    pub origin: Origin,
    /// The store it belongs to.
    pub instance: [u8; 16],
    /// The epoch of its revisions.
    pub epoch: Epoch,
    /// The first revision that it may hold.
    pub first: Revision,
    /// Time of the last frame of the segment before it; 0 if there never was one.
    pub time: Millis,
    /// Checksum of that frame; 0 if there never was one.
    pub chain: u32,
}

/// Something in a segment that neither the log's writer nor a crash leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}")]
pub struct Damage {
    /// Where, in bytes from the segment's start.
    pub offset: usize,
    /// What is wrong.
    pub what: String,
}

/// A group as it stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// When it was written.
    pub time: Millis,
    /// Where its payload begins, in bytes from the segment's start.
    pub offset: usize,
    /// Its commits.
    pub commits: Vec<Logged>,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// The last revision in it; the one before its first if there is none.
    pub last: Revision,
    /// Time of its last frame, or of the one it continues.
    pub time: Millis,
    /// Checksum of its last frame, or the one it continues.
    pub chain: u32,
    /// Its last frame's place, in bytes from its start.
    pub last_frame: Option<Range<usize>>,
    /// Whether its last frame says that the store was closed in good order.
    pub closed: bool,
    /// Where its frames end, in bytes from its start.
    pub end: usize,
    /// Bytes after that: a last frame that was never finished.
    pub torn: usize,
}

/// The bytes of a header.
pub fn encode_header(header: &Header) -> [u8; HEADER_BYTES] {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(match header.origin {
        Origin::Own => [0, 0],
        Origin::Recorded => [1, 0],
    });
    bytes.extend(header.instance);
    bytes.extend(header.epoch.0.to_le_bytes());
    bytes.extend(header.first.0.to_le_bytes());
    bytes.extend(header.time.0.to_le_bytes());
    bytes.extend(header.chain.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let mut array = [0; HEADER_BYTES];
    array.copy_from_slice(&bytes);
    array
}

/// The header at the front of some bytes.
pub fn decode_header(bytes: &[u8]) -> Result<Header, Damage> {
    let damage = |what: &str| Damage { offset: 0, what: what.into() };
    let header = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| damage("the segment's header is cut short"))?;
    let (covered, checksum) = header.split_at(HEADER_BYTES - 4);
    if covered[..8] != MAGIC || crc32fast::hash(covered).to_le_bytes() != checksum {
        return Err(damage("the segment's header does not match its checksum"));
    }
    let (format, rest) = covered[8..].split_at(4);
    let origin = match format {
        [format @ .., 0, 0] if *format == FORMAT.to_le_bytes() => Origin::Own,
        [format @ .., 1, 0] if *format == FORMAT.to_le_bytes() => Origin::Recorded,
        _ => return Err(damage("the segment's format is not known")),
    };
    let number = |at: usize| rest[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let first = Revision(number(24));
    if first.0 == 0 {
        return Err(damage("the segment's first revision is 0"));
    }
    if first.0.max(number(16)) > NUMBER_MAX {
        return Err(damage("no store has come so far as the segment says"));
    }
    Ok(Header {
        origin,
        instance: rest.first_chunk().copied().unwrap_or_default(),
        epoch: Epoch(number(16)),
        first,
        time: Millis(number(32)),
        chain: rest[40..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)),
    })
}

/// Reads a whole segment and gives each group to `each`, in order, with the place of its payload in the segment.
///
/// Only in the last segment can the last frame be torn. It is torn if it does not check out and no frame begins after
/// it: a frame is written when the one before it has been synced, so whatever is followed by another was whole once.
pub fn scan(bytes: &[u8], is_last: bool, each: &mut dyn FnMut(Group)) -> Result<Summary, Damage> {
    let header = decode_header(bytes)?;
    let kind = header.origin.kind();
    let mut summary = Summary {
        header,
        last: Revision(header.first.0 - 1),
        time: header.time,
        chain: header.chain,
        last_frame: None,
        closed: false,
        end: HEADER_BYTES,
        torn: 0,
    };
    while summary.end < bytes.len() {
        let offset = summary.end;
        let rest = &bytes[offset..];
        let damage = |what: String| Damage { offset, what };
        let (frame, payload) = match frame::decode(rest) {
            Ok(frame) => frame,
            Err(bad) if is_last && rest.len() <= frame::HEADER_BYTES + kind.payload_bytes_max() => {
                if let Some(at) = frame::find_header(bytes, offset + 1) {
                    return Err(damage(format!("{bad}, and a frame follows it at {at}")));
                }
                summary.torn = rest.len();
                break;
            }
            Err(bad) => return Err(damage(bad.to_string())),
        };
        if frame.previous != summary.chain {
            return Err(damage("the frame does not continue the one before it".into()));
        }
        if frame.time < summary.time {
            return Err(damage("the frame is older than the one before it".into()));
        }
        match frame.kind {
            Kind::Group | Kind::Recorded if frame.kind != kind => {
                return Err(damage("the frame belongs to another kind of log".into()));
            }
            Kind::Recorded => {
                let groups = recorded::decode(payload).map_err(|malformed| damage(malformed.to_string()))?;
                recorded::check(&frame, (summary.last, summary.time), &groups).map_err(damage)?;
                for group in groups {
                    each(Group { offset: offset + frame::HEADER_BYTES + group.offset, ..group });
                }
            }
            Kind::Group => {
                let commits = group::decode(payload).map_err(|malformed| damage(malformed.to_string()))?;
                check_revisions(&frame, summary.last, &commits).map_err(damage)?;
                each(Group { time: frame.time, offset: offset + frame::HEADER_BYTES, commits });
            }
            Kind::Closed if frame.first == summary.last && frame.last == summary.last && payload.is_empty() => {}
            Kind::Closed => return Err(damage("the closing frame is of another revision".into())),
        }
        summary.last = frame.last;
        summary.time = frame.time;
        summary.chain = frame.checksum;
        summary.closed = frame.kind == Kind::Closed;
        summary.end += frame::HEADER_BYTES + payload.len();
        summary.last_frame = Some(offset..summary.end);
    }
    Ok(summary)
}

/// A store's own log holds every revision once, without gaps.
fn check_revisions(frame: &frame::Header, last: Revision, commits: &[Logged]) -> Result<(), String> {
    let (mut next, ends) =
        (last.0.checked_add(1), [commits.first(), commits.last()].map(|end| end.map(|c| c.revision)));
    if ends != [Some(frame.first), Some(frame.last)] {
        return Err("the frame's revisions are not those of its commits".into());
    }
    for commit in commits {
        if Some(commit.revision.0) != next {
            return Err(format!("revision {} follows {}", commit.revision.0, last.0));
        }
        next = commit.revision.0.checked_add(1);
    }
    Ok(())
}
