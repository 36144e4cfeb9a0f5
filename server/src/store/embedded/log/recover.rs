//! Reads the log when the store opens: first everything is checked and nothing touched, then it is mended and replayed.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        disk::Disk,
        layout::{OpenError, read_segment, segment_path},
    },
    Log,
    group::Logged,
    segment::{self, Origin, Summary},
};
use crate::store::{Epoch, Millis, Revision, TransactionId};

/// A log that was read and is whole, but for a torn last frame.
#[derive(Debug)]
pub(in super::super) struct Recovered {
    dir: PathBuf,
    segments: Vec<Summary>,
    current: Summary,
    last_id: Option<TransactionId>,
    /// A segment whose creation a crash interrupted, before anything was in it.
    unborn: Option<PathBuf>,
}

impl Recovered {
    /// Reads and checks the whole log. Changes nothing.
    pub(in super::super) fn read(dir: &Path, instance: [u8; 16]) -> Result<Self, OpenError> {
        let (firsts, unborn) = begun_segments(dir)?;
        let mut segments: Vec<Summary> = Vec::new();
        let mut last_id = None;
        for (at, &first) in firsts.iter().enumerate() {
            let path = segment_path(dir, first);
            let mut look = |group: segment::Group| last_id = group.commits.last().map(|commit| commit.id).or(last_id);
            let summary = scan(&path, at + 1 == firsts.len(), &mut look)?;
            let header = &summary.header;
            let continues = segments.last().is_none_or(|before| {
                before.last.0 + 1 == first.0
                    && (before.time, before.chain, before.header.epoch) == (header.time, header.chain, header.epoch)
                    && before.header.origin == header.origin
            });
            if header.instance != instance {
                return Err(OpenError::damaged(&path, "it belongs to another store"));
            }
            if header.first != first || !continues {
                return Err(OpenError::damaged(&path, "it does not continue the segment before it"));
            }
            segments.push(summary);
        }
        let current = segments.pop().ok_or_else(|| OpenError::damaged(dir, "the log has no segments"))?;
        Ok(Self { dir: dir.into(), segments, current, last_id, unborn })
    }

    /// The first revision that it may hold.
    pub(in super::super) fn first(&self) -> Revision {
        self.segments.first().unwrap_or(&self.current).header.first
    }

    /// Whose commits it holds.
    pub(in super::super) fn origin(&self) -> Origin {
        self.current.header.origin
    }

    /// The name of the last transaction that it holds.
    pub(in super::super) fn last_id(&self) -> Option<TransactionId> {
        self.last_id
    }

    /// When the last of it was made.
    pub(in super::super) fn time(&self) -> Millis {
        self.current.time
    }

    /// The last revision that it holds.
    pub(in super::super) fn last(&self) -> Revision {
        self.current.last
    }

    /// Where its last segment's frames end, in bytes from that segment's start.
    pub(in super::super) fn end(&self) -> usize {
        self.current.end
    }

    /// Whether what it holds after a revision follows a frame with this checksum. Where it holds nothing of before and
    /// after, nothing speaks against it.
    pub(in super::super) fn continues(&self, revision: Revision, chain: u32) -> bool {
        let headers = || self.segments.iter().chain([&self.current]).map(|summary| &summary.header);
        let at_begin = headers().find(|header| header.first.0 == revision.0 + 1);
        match at_begin {
            Some(header) => header.chain == chain,
            // A snapshot is made where a segment ends, so its revision is the last of all or of the current one.
            None => self.current.last == revision && self.current.chain == chain,
        }
    }

    /// The first revisions of its segments.
    pub(in super::super) fn firsts(&self) -> Vec<Revision> {
        self.segments.iter().chain([&self.current]).map(|summary| summary.header.first).collect()
    }

    /// Bytes of a last frame that was never finished.
    pub(in super::super) fn torn(&self) -> usize {
        self.current.torn
    }

    /// The epoch of its revisions.
    pub(in super::super) fn epoch(&self) -> Epoch {
        self.current.header.epoch
    }

    /// The current segment's file.
    pub(in super::super) fn current_path(&self) -> PathBuf {
        segment_path(&self.dir, self.current.header.first)
    }

    /// Cuts what a crash left unfinished and makes the rest durable; then the log can be written.
    pub(in super::super) fn mend(&self, disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<Log, OpenError> {
        let mut directory = disk.directory(&self.dir).map_err(OpenError::at(&self.dir))?;
        if let Some(path) = &self.unborn {
            disk.remove(path).and_then(|()| directory.sync()).map_err(OpenError::at(path))?;
            tracing::warn!(file = %path.display(), "removed a segment of the log that was never begun");
        }
        let path = self.current_path();
        let mut file = disk.open(&path).map_err(OpenError::at(&path))?;
        let mut mend = || -> io::Result<()> {
            if self.current.torn > 0 {
                file.truncate(self.current.end as u64)?;
                let (offset, bytes) = (self.current.end, self.current.torn);
                tracing::warn!(file = %path.display(), offset, bytes, "cut an unfinished frame off the log");
            }
            if let Some(range) = self.current.last_frame.clone().filter(|_| !self.current.closed) {
                // The process before may have died of a failed sync of this frame. Then what was read here is only in
                // the page cache, marked clean, and a sync alone would report success: so it is written once more.
                let (bytes, _) = read_segment(&path)?;
                file.write_at(range.start as u64, &bytes[range])?;
            }
            file.sync()
        };
        mend().map_err(OpenError::at(&path))?;
        Ok(Log {
            disk,
            dir: self.dir.clone(),
            directory,
            origin: self.origin(),
            instance: self.current.header.instance,
            epoch: self.epoch(),
            segment_bytes,
            segments: self
                .segments
                .iter()
                .chain([&self.current])
                .map(|summary| summary.header.first)
                .collect::<VecDeque<_>>(),
            file,
            end: self.current.end as u64,
            last: self.current.last,
            time: self.current.time,
            chain: self.current.chain,
            chain_before: self.current.header.chain,
            stunted: None,
        })
    }

    /// Gives every group with revisions after one, in order.
    pub(in super::super) fn replay(
        &self,
        after: Revision,
        each: &mut dyn FnMut(Vec<Logged>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        for summary in self.segments.iter().chain([&self.current]).filter(|summary| summary.last > after) {
            let mut outcome = Ok(());
            let mut give = |segment::Group { commits, .. }| {
                let commits: Vec<Logged> = commits;
                if outcome.is_ok() && commits.last().is_some_and(|commit| commit.revision > after) {
                    outcome = each(commits);
                }
            };
            scan(&segment_path(&self.dir, summary.header.first), true, &mut give)?;
            outcome?;
        }
        Ok(())
    }
}

fn scan(path: &Path, is_last: bool, each: &mut dyn FnMut(segment::Group)) -> Result<Summary, OpenError> {
    let (bytes, _) = read_segment(path).map_err(OpenError::unread(path))?;
    segment::scan(&bytes, is_last, each).map_err(|damage| OpenError::damaged(path, damage))
}

/// The first revisions of its segments, and the file of a last one whose creation a crash interrupted, before anything was
/// in it.
pub(in super::super) fn begun_segments(dir: &Path) -> Result<(Vec<Revision>, Option<PathBuf>), OpenError> {
    let mut firsts = segment_revisions(dir)?;
    let [.., _, last] = firsts[..] else { return Ok((firsts, None)) };
    let path = segment_path(dir, last);
    let bytes = fs::symlink_metadata(&path).map_err(OpenError::at(&path))?.len();
    if bytes <= segment::HEADER_BYTES as u64
        && segment::decode_header(&read_segment(&path).map_err(OpenError::unread(&path))?.0).is_err()
    {
        firsts.pop();
        return Ok((firsts, Some(path)));
    }
    Ok((firsts, None))
}

/// The first revisions of all segments, by their file names.
pub(in super::super) fn segment_revisions(dir: &Path) -> Result<Vec<Revision>, OpenError> {
    let names = match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut revisions: Vec<_> = names
        .map_err(OpenError::at(dir))?
        .iter()
        .filter_map(|name| name.to_str()?.strip_suffix(".log")?.parse().ok().map(Revision))
        .collect();
    revisions.sort();
    Ok(revisions)
}
