//! What the log changed after a position: of each key its last change, without the values, which stay in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::super::{
    layout::{OpenError, read_segment, segment_path},
    log::{group, segment},
};
use crate::store::{Change, Epoch, Key, Millis, Position, Record, Revision, snapshot::Header};

/// Up to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Until {
    /// This revision, and nothing after it.
    Revision(Revision),
    /// What was made at this time or before.
    Time(Millis),
}

/// The last changes of keys.
#[derive(Debug)]
pub(in super::super) struct Overlay {
    changes: BTreeMap<Key, Option<Place>>,
    /// What was deleted with all that begins so; none begins with another.
    prefixes: BTreeSet<Key>,
    segments: Vec<(PathBuf, File)>,
    instance: [u8; 16],
    /// Where the log must go on: the next segment's first revision, and the checksum that it continues.
    next: Option<(Epoch, Revision, u32)>,
    /// The last revision taken in.
    pub(in super::super) last: Revision,
    /// When that was made.
    pub(in super::super) time: Millis,
    /// When the first was made that was left out.
    pub(in super::super) left_out: Option<Millis>,
    /// Bytes at the end of the log that are not whole.
    pub(in super::super) torn: usize,
}

/// Where a value stands in the log.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: usize,
    offset: u64,
    length: usize,
    crc: u32,
    revision: Revision,
}

impl Overlay {
    /// Nothing, from the very beginning of a store on.
    pub(in super::super) fn begin(instance: [u8; 16]) -> Self {
        Self::new(instance, Revision(0), Millis(0), None)
    }

    /// Nothing, after a snapshot.
    pub(in super::super) fn after(header: &Header) -> Self {
        let Header { instance, position: Position { epoch, revision }, time, chain } = *header;
        Self::new(instance, revision, time, Some((epoch, Revision(revision.0 + 1), chain)))
    }

    fn new(instance: [u8; 16], last: Revision, time: Millis, next: Option<(Epoch, Revision, u32)>) -> Self {
        let (changes, prefixes, segments) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        Self { changes, prefixes, segments, instance, next, last, time, left_out: None, torn: 0 }
    }

    /// Takes in a segment. `false`: the rest of the log is after the end.
    pub(in super::super) fn add(
        &mut self,
        log: &Path,
        first: Revision,
        is_last: bool,
        until: Until,
    ) -> Result<bool, OpenError> {
        let path = segment_path(log, first);
        let (bytes, file) = read_segment(&path).map_err(OpenError::unread(&path))?;
        self.segments.push((path.clone(), file));
        let mut goes_on = true;
        let header = segment::decode_header(&bytes).map_err(|damage| OpenError::damaged(&path, damage))?;
        if header.instance != self.instance {
            return Err(OpenError::damaged(&path, "it belongs to another store"));
        }
        let begins = (header.epoch, header.first, header.chain);
        if self.next.is_some_and(|next| next != begins) {
            return Err(OpenError::damaged(&path, "it does not go on where what is before it ends"));
        }
        self.next = Some(begins);
        let scanned = segment::scan(&bytes, is_last, &mut |group| goes_on = goes_on && self.group(&group, until));
        match scanned {
            Ok(summary) => {
                self.next = Some((header.epoch, Revision(summary.last.0 + 1), summary.chain));
                self.torn = summary.torn;
                Ok(goes_on)
            }
            // What is damaged comes after the end.
            Err(_) if !goes_on => Ok(false),
            Err(damage) => {
                let what = format!("{damage}; what is whole ends at revision {}", self.last.0);
                Err(OpenError::damaged(&path, what))
            }
        }
    }

    /// The epoch of what was taken in.
    pub(in super::super) fn epoch(&self) -> Option<Epoch> {
        self.next.map(|(epoch, ..)| epoch)
    }

    fn group(&mut self, group: &segment::Group, until: Until) -> bool {
        let offsets = group::value_offsets(&group.commits);
        for (commit, offsets) in group.commits.iter().zip(offsets) {
            let is_within = match until {
                Until::Revision(last) => commit.revision <= last,
                Until::Time(last) => group.time <= last,
            };
            if !is_within {
                self.left_out = Some(group.time);
                return false;
            }
            if commit.revision <= self.last {
                continue;
            }
            for (change, offset) in commit.changes.iter().zip(offsets) {
                self.change(change, (group.offset + offset) as u64, commit.revision);
            }
            (self.last, self.time) = (commit.revision, group.time);
        }
        true
    }

    fn change(&mut self, change: &Change, offset: u64, revision: Revision) {
        match change {
            Change::Put(key, value) => {
                let (segment, length, crc) = (self.segments.len() - 1, value.len(), crc32fast::hash(value));
                self.changes.insert(key.clone(), Some(Place { segment, offset, length, crc, revision }));
            }
            Change::Delete(key) => {
                self.changes.insert(key.clone(), None);
            }
            Change::DeletePrefix(prefix) => {
                let begins = |key: &&Key| key.as_str().starts_with(prefix.as_str());
                let doomed: Vec<Key> =
                    self.changes.range(prefix.clone()..).map(|(key, _)| key).take_while(begins).cloned().collect();
                for key in doomed {
                    self.changes.remove(&key);
                }
                if !self.is_deleted(prefix) {
                    let within: Vec<Key> = self.prefixes.range(prefix.clone()..).take_while(begins).cloned().collect();
                    for key in within {
                        self.prefixes.remove(&key);
                    }
                    self.prefixes.insert(prefix.clone());
                }
            }
        }
    }

    /// Whether a record of before is gone. The only prefix that can cover a key is the greatest that is not above it:
    /// what stands between a prefix and a key that begins with it begins with it, too.
    fn is_deleted(&self, key: &Key) -> bool {
        self.prefixes.range(..=key.clone()).next_back().is_some_and(|prefix| key.as_str().starts_with(prefix.as_str()))
    }

    /// Whether a record of before stands as it did.
    pub(super) fn leaves(&self, key: &Key) -> bool {
        !self.changes.contains_key(key) && !self.is_deleted(key)
    }

    /// The keys that were put last, in order.
    pub(super) fn puts(&self) -> impl Iterator<Item = &Key> {
        self.changes.iter().filter(|(_, place)| place.is_some()).map(|(key, _)| key)
    }

    /// How many those are.
    pub(in super::super) fn puts_count(&self) -> u64 {
        self.puts().count() as u64
    }

    /// A record that was put, read from the log once more.
    pub(super) fn read(&self, key: &Key) -> Result<Option<Record>, OpenError> {
        let Some(Some(place)) = self.changes.get(key) else { return Ok(None) };
        let (path, file) = &self.segments[place.segment];
        let mut value = vec![0; place.length];
        file.read_exact_at(&mut value, place.offset).map_err(OpenError::at(path))?;
        if crc32fast::hash(&value) != place.crc {
            return Err(OpenError::damaged(path, format!("offset {}: it changed while it was read", place.offset)));
        }
        Ok(Some(Record { key: key.clone(), value: value.into(), revision: place.revision }))
    }
}
