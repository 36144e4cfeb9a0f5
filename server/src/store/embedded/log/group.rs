//! A frame's payload: a group of commits.
//!
//! ```text
//! group:  count 4, then each: transaction id 16 | revision 8 | changes 4, then each:
//! change: kind 1 (1 put, 2 delete, 3 delete prefix) | key length 2 | key | for a put: value length 4 | value
//! ```
//! Numbers are little-endian.

use std::sync::Arc;

use super::super::super::{Change, Key, Revision, TransactionId};

/// A commit as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The transaction's name.
    pub id: TransactionId,
    /// Where it stands.
    pub revision: Revision,
    /// What it did, in order.
    pub changes: Arc<[Change]>,
}

/// The bytes are not a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame's payload is not a group of commits")]
pub struct Malformed;

/// Size of a transaction's encoding, in bytes.
pub fn encoded_bytes(changes: &[Change]) -> usize {
    let change = |change: &Change| 3 + change.bytes() + if matches!(change, Change::Put(..)) { 4 } else { 0 };
    16 + 8 + 4 + changes.iter().map(change).sum::<usize>()
}

/// Where each change's value stands in the group's encoding, in bytes from its start; for changes without a value, where
/// the change ends.
pub fn value_offsets(commits: &[Logged]) -> Vec<Vec<usize>> {
    let mut at = 4;
    let mut offsets = Vec::with_capacity(commits.len());
    for commit in commits {
        at += 16 + 8 + 4;
        let mut of_commit = Vec::with_capacity(commit.changes.len());
        for change in commit.changes.iter() {
            let value = if let Change::Put(_, value) = change { Some(value.len()) } else { None };
            at += 3 + change.key().as_str().len() + value.map_or(0, |_| 4);
            of_commit.push(at);
            at += value.unwrap_or(0);
        }
        offsets.push(of_commit);
    }
    offsets
}

/// The bytes of a group. Keys and values must be within the limits of a transaction.
pub fn encode(commits: &[Logged]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + commits.iter().map(|commit| encoded_bytes(&commit.changes)).sum::<usize>());
    bytes.extend((commits.len() as u32).to_le_bytes());
    for commit in commits {
        bytes.extend(commit.id.0);
        bytes.extend(commit.revision.0.to_le_bytes());
        bytes.extend((commit.changes.len() as u32).to_le_bytes());
        for change in commit.changes.iter() {
            bytes.push(match change {
                Change::Put(..) => 1,
                Change::Delete(_) => 2,
                Change::DeletePrefix(_) => 3,
            });
            let key = change.key().as_str();
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend(key.as_bytes());
            if let Change::Put(_, value) = change {
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(&value[..]);
            }
        }
    }
    bytes
}

/// The group in some bytes, which must hold nothing else.
pub fn decode(bytes: &[u8]) -> Result<Vec<Logged>, Malformed> {
    let mut reader = Reader(bytes);
    // Counts are not trusted with an allocation: each item must be there before it takes room.
    let mut commits = Vec::new();
    for _ in 0..reader.u32()? {
        let id = TransactionId(reader.array()?);
        let revision = Revision(u64::from_le_bytes(reader.array()?));
        let mut changes = Vec::new();
        for _ in 0..reader.u32()? {
            changes.push(reader.change()?);
        }
        commits.push(Logged { id, revision, changes: changes.into() });
    }
    if reader.0.is_empty() { Ok(commits) } else { Err(Malformed) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn change(&mut self) -> Result<Change, Malformed> {
        let [kind] = self.array()?;
        let length = u16::from_le_bytes(self.array()?);
        let key = Key::new(std::str::from_utf8(self.take(length.into())?).map_err(|_| Malformed)?);
        match kind {
            1 => {
                let length = self.u32()? as usize;
                Ok(Change::Put(key, self.take(length)?.into()))
            }
            2 => Ok(Change::Delete(key)),
            3 => Ok(Change::DeletePrefix(key)),
            _ => Err(Malformed),
        }
    }
}
