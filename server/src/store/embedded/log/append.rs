//! Writes the log.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use super::{
    super::{
        disk::{Disk, DiskDirectory, DiskFile, is_full},
        layout::{SEGMENT_BYTES_MAX, segment_path},
        snapshots::Boundary,
    },
    frame::{self, Kind},
    group::{self, Logged},
    recorded::{self, Recorded},
    segment::{self, Header, Origin},
};
use crate::store::{Epoch, Millis, Position, Revision, careful::is_passing};

/// While no segment can be begun the last one grows, up to this many times its usual size.
const GROWTH_MAX: u64 = 4;
/// But not to where it could not be read any more with another group in it, in bytes.
const GROWN_BYTES_MAX: u64 = SEGMENT_BYTES_MAX - frame::RECORDED_BYTES_MAX as u64 - (1 << 20);

/// The log's end. Lives in the writer's thread alone.
#[derive(Debug)]
pub(in super::super) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// Kept open: what is created and removed in it must be made durable when there is no descriptor left, too.
    pub(super) directory: Box<dyn DiskDirectory>,
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
    /// Why no segment could be begun when one was due.
    pub(super) stunted: Option<Append>,
}

/// Why a group is not in the log.
#[derive(Clone, Debug)]
pub(in super::super) enum Append {
    /// No room, and nothing of it stands. The log can go on.
    Full(String),
    /// The system lacks something else or forbids it just now, and nothing of it stands. The log can go on.
    Refused(String),
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
        self.write_group(Kind::Group, [first.revision, last.revision], now, &group::encode(commits))
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
        self.write_group(Kind::Recorded, revisions, time, &recorded::encode(&commits))
    }

    /// Writes a group to a new segment, if one is due and can be begun, or else to the current one, within its bounds.
    fn write_group(&mut self, kind: Kind, revisions: [Revision; 2], now: Millis, payload: &[u8]) -> Result<(), Append> {
        self.rotate_if_due()?;
        self.check_growth()?;
        self.write(kind, revisions, now, payload)
    }

    /// Refuses what would make a segment larger that is too large already.
    fn check_growth(&self) -> Result<(), Append> {
        let bytes_max = (self.segment_bytes.saturating_mul(GROWTH_MAX)).min(GROWN_BYTES_MAX);
        match &self.stunted {
            Some(why) if self.end >= bytes_max => Err(why
                .clone()
                .with(|why| format!("{why}; the last one has grown to {} bytes, of at most {bytes_max}", self.end))),
            _ => Ok(()),
        }
    }

    fn rotate_if_due(&mut self) -> Result<(), Append> {
        if self.end >= self.segment_bytes && self.segments.back() <= Some(&self.last) { self.rotate() } else { Ok(()) }
    }

    /// Shows that the log can be written: begins the segment that is due, or writes a frame that says that nothing is under
    /// way, as which it counts for nothing.
    pub(in super::super) fn probe(&mut self) -> Result<(), Append> {
        self.rotate_if_due()?;
        self.check_growth()?;
        self.close()
    }

    /// Ends the current segment, unless nothing is in it: everything up to here stands in segments that are not written any
    /// more.
    pub(in super::super) fn divide(&mut self) -> Result<Boundary, Append> {
        if self.segments.back() <= Some(&self.last) {
            self.rotate()?;
            if let Some(why) = &self.stunted {
                return Err(why.clone());
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
            self.directory.sync()?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn write(&mut self, kind: Kind, revisions: [Revision; 2], now: Millis, payload: &[u8]) -> Result<(), Append> {
        let time = self.time.max(now);
        let bytes = frame::encode(kind, revisions, time, self.chain, payload);
        if let Err(error) = self.file.write_at(self.end, &bytes) {
            let why = |error: &io::Error| format!("writing the log: {error}");
            let Some(refusal) = Append::nothing_happened(&error, why) else {
                return Err(Append::Failed(why(&error)));
            };
            // A file system that takes no writes is not cut back either; where not a byte was taken, nothing needs to be.
            let is_untouched = self.file.length().is_ok_and(|length| length == self.end);
            let cut = if is_untouched { Ok(()) } else { self.file.truncate(self.end) };
            return Err(match cut {
                Ok(()) => refusal,
                Err(cut) => Append::Failed(format!("{}; cutting it back: {cut}", why(&error))),
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

    /// Begins a new segment. If the system does not let it, the current one grows further.
    fn rotate(&mut self) -> Result<(), Append> {
        let (first, time, chain) = (Revision(self.last.0 + 1), self.time, self.chain);
        let header = Header { origin: self.origin, instance: self.instance, epoch: self.epoch, first, time, chain };
        let path = segment_path(&self.dir, header.first);
        let why = |error: &io::Error| format!("beginning a segment of the log: {error}");
        let failed = |error: io::Error| Append::Failed(why(&error));
        let mut file = match self.disk.create(&path) {
            Ok(file) => file,
            Err(error) => return self.grow(Append::nothing_happened(&error, why).ok_or_else(|| failed(error))?),
        };
        if let Err(error) = file.write_at(0, &segment::encode_header(&header)) {
            let refusal = Append::nothing_happened(&error, why).ok_or_else(|| failed(error))?;
            // Left behind, it would stand between two segments one day.
            self.disk
                .remove(&path)
                .and_then(|()| self.directory.sync())
                .map_err(|error| Append::Failed(format!("removing an unfinished segment: {error}")))?;
            return self.grow(refusal);
        }
        file.sync().and_then(|()| self.directory.sync()).map_err(failed)?;
        self.file = file;
        self.end = segment::HEADER_BYTES as u64;
        self.chain_before = chain;
        self.segments.push_back(header.first);
        if self.stunted.take().is_some() {
            tracing::info!(file = %path.display(), "a new segment of the log is begun again");
        }
        Ok(())
    }

    /// Goes on in the current segment.
    fn grow(&mut self, why: Append) -> Result<(), Append> {
        if self.stunted.is_none() {
            tracing::warn!(?why, "no segment of the log can be begun, so the last one grows; trying again");
        }
        self.stunted = Some(why);
        Ok(())
    }
}

impl Append {
    /// What is answered to an error of the system after which nothing stands; `None` for all others.
    fn nothing_happened(error: &io::Error, why: impl FnOnce(&io::Error) -> String) -> Option<Self> {
        match error {
            error if is_full(error) => Some(Self::Full(why(error))),
            error if is_passing(error) => Some(Self::Refused(why(error))),
            _ => None,
        }
    }

    fn with(self, more: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Full(why) => Self::Full(more(why)),
            Self::Refused(why) => Self::Refused(more(why)),
            Self::Failed(why) => Self::Failed(more(why)),
        }
    }
}
