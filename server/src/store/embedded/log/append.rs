//! Writes the log.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use super::{
    super::{
        disk::{Disk, DiskFile, is_full},
        layout::{create_file, segment_path},
        snapshots::Boundary,
    },
    frame::{self, Kind},
    group::{self, Logged},
    recorded::{self, Recorded},
    segment::{self, Header, Origin},
};
use crate::store::{Epoch, Millis, Position, Revision};

/// The log's end. Lives in the writer's thread alone.
#[derive(Debug)]
pub(in super::super) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) origin: Origin,
    pub(super) instance: [u8; 16],
    pub(super) epoch: Epoch,
    /// A segment of this size is the last one's predecessor.
    pub(super) segment_bytes: u64,
    /// The first revisions of all segments, the current one's at the back.
    pub(super) segments: VecDeque<Revision>,
    pub(super) file: Box<dyn DiskFile>,
    /// Where the next frame goes.
    pub(super) end: u64,
    pub(super) last: Revision,
    /// Of the last frame.
    pub(super) time: Millis,
    pub(super) chain: u32,
    /// Of the frame before the current segment.
    pub(super) chain_before: u32,
}

/// Why a group is not in the log.
#[derive(Debug)]
pub(in super::super) enum Append {
    /// No room, and nothing of it stands. The log can go on.
    Full(String),
    /// It may stand or not. The log must not be written again until it has been opened anew.
    Failed(String),
}

impl Log {
    /// The last revision in it.
    pub(in super::super) fn last(&self) -> Revision {
        self.last
    }

    /// The epoch of its revisions.
    pub(in super::super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the last of it was made.
    pub(in super::super) fn time(&self) -> Millis {
        self.time
    }

    /// Adds a group of commits, which must continue the last revision. Durable when it returns `Ok`. `now` counts unless
    /// the clock went back.
    pub(in super::super) fn append(&mut self, commits: &[Logged], now: Millis) -> Result<(), Append> {
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else { return Ok(()) };
        self.rotate_if_due()?;
        self.write(Kind::Group, [first.revision, last.revision], now, &group::encode(commits))
    }

    /// Adds commits of another store, which must come after the last revision, in order. Durable when it returns `Ok`. A
    /// time counts unless it goes back.
    pub(in super::super) fn record(&mut self, mut commits: Vec<Recorded>) -> Result<(), Append> {
        let (Some(first), Some(last)) = (commits.first(), commits.last()) else { return Ok(()) };
        let revisions = [first.commit.revision, last.commit.revision];
        let mut time = self.time;
        for recorded in &mut commits {
            time = time.max(recorded.time);
            recorded.time = time;
        }
        self.rotate_if_due()?;
        self.write(Kind::Recorded, revisions, time, &recorded::encode(&commits))
    }

    fn rotate_if_due(&mut self) -> Result<(), Append> {
        if self.end >= self.segment_bytes && self.segments.back() <= Some(&self.last) { self.rotate() } else { Ok(()) }
    }

    /// Ends the current segment, unless nothing is in it: everything up to here stands in segments that are not written any
    /// more.
    pub(in super::super) fn divide(&mut self) -> Result<Boundary, Append> {
        if self.segments.back() <= Some(&self.last) {
            self.rotate()?;
            if self.segments.back() <= Some(&self.last) {
                return Err(Append::Full("there is no room for another segment of the log".into()));
            }
        }
        let position = Position { epoch: self.epoch, revision: self.last };
        // Not the last frame's: the segment may begin with frames that say that the store was closed.
        Ok(Boundary { position, time: self.time, chain: self.chain_before })
    }

    /// Says that nothing is under way. The next opening has nothing to repair.
    pub(in super::super) fn close(&mut self) -> Result<(), Append> {
        self.write(Kind::Closed, [self.last, self.last], self.time, &[])
    }

    /// Removes segments that hold nothing after a revision, but never the current one.
    pub(in super::super) fn retire(&mut self, applied: Revision) -> io::Result<()> {
        while let (Some(&first), Some(&next)) = (self.segments.front(), self.segments.get(1))
            && next.0 <= applied.0 + 1
        {
            self.disk.remove(&segment_path(&self.dir, first))?;
            // One by one: whatever a power loss brings back, the segments that stand have no gap.
            self.disk.sync_directory(&self.dir)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn write(&mut self, kind: Kind, revisions: [Revision; 2], now: Millis, payload: &[u8]) -> Result<(), Append> {
        let time = self.time.max(now);
        let bytes = frame::encode(kind, revisions, time, self.chain, payload);
        if let Err(error) = self.file.write_at(self.end, &bytes) {
            if !is_full(&error) {
                return Err(Append::Failed(format!("writing the log: {error}")));
            }
            return Err(match self.file.truncate(self.end) {
                Ok(()) => Append::Full(format!("writing the log: {error}")),
                Err(cut) => Append::Failed(format!("writing the log: {error}; cutting it back: {cut}")),
            });
        }
        self.file.sync().map_err(|error| Append::Failed(format!("syncing the log: {error}")))?;
        self.end += bytes.len() as u64;
        self.last = revisions[1];
        self.time = time;
        // Its checksum covers everything before it, through the chain.
        self.chain = frame::decode_header(&bytes).map_or(self.chain, |header| header.checksum);
        Ok(())
    }

    /// Begins a new segment. Without room for it, the current one grows further.
    fn rotate(&mut self) -> Result<(), Append> {
        let (first, time, chain) = (Revision(self.last.0 + 1), self.time, self.chain);
        let header = Header { origin: self.origin, instance: self.instance, epoch: self.epoch, first, time, chain };
        let path = segment_path(&self.dir, header.first);
        match create_file(&*self.disk, &path, &segment::encode_header(&header)) {
            Ok(file) => {
                self.file = file;
                self.end = segment::HEADER_BYTES as u64;
                self.chain_before = chain;
                self.segments.push_back(header.first);
                Ok(())
            }
            Err(error) if is_full(&error) => self
                .disk
                .remove(&path)
                .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
                .and_then(|()| self.disk.sync_directory(&self.dir))
                .map_err(|error| Append::Failed(format!("removing an unfinished segment: {error}"))),
            Err(error) => Err(Append::Failed(format!("beginning a segment of the log: {error}"))),
        }
    }
}
