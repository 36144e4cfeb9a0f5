//! A frame's payload of what another store made: groups of commits, each with the time that the other store gave it.
//!
//! ```text
//! recorded: parts, each: time 8 | length 4 | group
//! ```
//! Numbers are little-endian. Revisions increase, with gaps, and times never go back.

use super::super::super::{Millis, Revision};
use super::{
    frame,
    group::{self, Logged, Malformed},
    segment::Group,
};

/// Size of what is before a group, in bytes.
const PART_BYTES: usize = 12;

/// A commit, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When; never before the one before it.
    pub time: Millis,
    /// What.
    pub commit: Logged,
}

/// Most bytes that a commit takes.
pub fn encoded_bytes(recorded: &Recorded) -> usize {
    PART_BYTES + 4 + group::encoded_bytes(&recorded.commit.changes)
}

/// The bytes of commits, in order.
pub fn encode(commits: &[Recorded]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(commits.iter().map(encoded_bytes).sum());
    for alike in commits.chunk_by(|one, next| one.time == next.time) {
        let commits: Vec<Logged> = alike.iter().map(|recorded| recorded.commit.clone()).collect();
        let group = group::encode(&commits);
        bytes.extend(alike[0].time.0.to_le_bytes());
        bytes.extend((group.len() as u32).to_le_bytes());
        bytes.extend(group);
    }
    bytes
}

/// The groups in some bytes, which hold nothing else; places count from the bytes' start. None is empty.
pub fn decode(bytes: &[u8]) -> Result<Vec<Group>, Malformed> {
    let mut groups = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let (head, rest) = bytes[offset..].split_first_chunk::<PART_BYTES>().ok_or(Malformed)?;
        let time = Millis(head.first_chunk().map_or(0, |time| u64::from_le_bytes(*time)));
        let length = head.last_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
        let commits = group::decode(rest.get(..length).ok_or(Malformed)?)?;
        if commits.is_empty() {
            return Err(Malformed);
        }
        groups.push(Group { time, offset: offset + PART_BYTES, commits });
        offset += PART_BYTES + length;
    }
    Ok(groups)
}

/// What a frame after a revision and time says of its groups must be so.
pub(super) fn check(frame: &frame::Header, after: (Revision, Millis), groups: &[Group]) -> Result<(), String> {
    let revisions = || groups.iter().flat_map(|group| &group.commits).map(|commit| commit.revision);
    if [revisions().next(), revisions().next_back()] != [Some(frame.first), Some(frame.last)] {
        return Err("the frame's revisions are not those of its commits".into());
    }
    let (mut last, mut time) = after;
    for revision in revisions() {
        if revision <= last {
            return Err(format!("revision {} follows {}", revision.0, last.0));
        }
        last = revision;
    }
    for group in groups {
        if group.time < time {
            return Err("a commit is older than the one before it".into());
        }
        time = group.time;
    }
    if time == frame.time { Ok(()) } else { Err("the frame's time is not that of its last commit".into()) }
}
