//! Checks a store, or a snapshot's file, from the first byte to the last, and changes nothing.
//!
//! The log is checked frame by frame. Every snapshot is made once more in thought, of the one before it and the log
//! between them, and must come out the same. The log must reach as far as was noted beside it. Sled has no part in it,
//! since opening it writes: it is compared with the log whenever the store opens, and made anew if it differs.

use std::{fs, io::BufReader, path::Path, time::SystemTime, vec};

use super::{
    acknowledged,
    layout::{Layout, OpenError},
    log::Recovered,
    snapshots::{self, Kept, Merge, Overlay, Until},
};
use crate::store::{Position, Record, Revision, snapshot::Reader};

/// The callback is told after this many records.
const RECORDS_BETWEEN: u64 = 256;

/// What was found whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where it ends.
    pub position: Position,
    /// When the last transaction was made; nothing if there never was one.
    pub time: Option<SystemTime>,
    /// How many records there are at the end.
    pub records: u64,
    /// How many snapshots.
    pub snapshots: usize,
    /// How many segments of the log.
    pub segments: usize,
    /// Bytes at the end of the log that are not whole, as a crash leaves them. They were never acknowledged, unless
    /// somebody damaged the very last frame right after a power loss; the next opening, which compares the log with sled,
    /// cuts them or refuses.
    pub unfinished_bytes: u64,
    /// Whether something beside the log says how far it went. Otherwise an end that is missing is not missed.
    pub is_end_known: bool,
}

/// Checks `source`, a snapshot's or backup's file or the directory of a store that nobody has open. `progress` is told how
/// many records of about how many were looked at; `each` is given every record that stands at the end, ordered by key.
///
/// What is damaged is an error, which names the file; what was given until then counts for nothing.
pub fn verify(
    source: &Path,
    progress: &mut dyn FnMut(u64, u64),
    each: &mut dyn FnMut(&Record),
) -> Result<Verified, OpenError> {
    let is_directory = fs::metadata(source).map_err(OpenError::at(source))?.is_dir();
    let mut watch = Watch { progress, done: 0, total: 0 };
    if is_directory { directory(source, &mut watch, each) } else { file(source, &mut watch, each) }
}

/// Counts records for whoever watches.
struct Watch<'a> {
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Watch<'_> {
    fn count(&mut self) {
        self.done += 1;
        if self.done.is_multiple_of(RECORDS_BETWEEN) {
            (self.progress)(self.done, self.total.max(self.done));
        }
    }

    fn end(&mut self) {
        (self.progress)(self.done, self.done);
    }
}

fn file(source: &Path, watch: &mut Watch<'_>, each: &mut dyn FnMut(&Record)) -> Result<Verified, OpenError> {
    let mut records = Records::of(source, Reader::open(source).map_err(OpenError::of_snapshot(source))?);
    let header = *records.reader.header();
    watch.total = Kept { position: header.position, path: source.into() }.look()?.records;
    while let Some(record) = records.next()? {
        watch.count();
        each(&record);
    }
    watch.end();
    Ok(Verified {
        position: header.position,
        time: header.time.time(),
        records: watch.done,
        snapshots: 1,
        segments: 0,
        unfinished_bytes: 0,
        is_end_known: true,
    })
}

fn directory(source: &Path, watch: &mut Watch<'_>, each: &mut dyn FnMut(&Record)) -> Result<Verified, OpenError> {
    let layout = Layout::new(source.into());
    let instance = layout.instance()?;
    let _lock = layout.lock_to_read()?;
    let store = Store { recovered: Recovered::read(&layout.log(), instance)?, layout, instance };
    let acknowledged = acknowledged::check(&store.layout, &store.recovered, instance)?;
    let kept = snapshots::list(&store.layout.snapshots())?;
    let newest = kept.last().map(Kept::look).transpose()?.map_or(0, |newest| newest.records);
    watch.total = newest;
    for kept in &kept {
        watch.total += kept.look()?.records;
    }
    let mut base = None;
    for kept in &kept {
        store.compare(base, kept, watch)?;
        base = Some(kept);
    }
    let end = store.recovered.last();
    let overlay = store.overlay(base, end)?;
    watch.total += overlay.puts_count();
    let mut records = 0;
    Merge::new(base, instance, &overlay)?.run(|record| {
        records += 1;
        watch.count();
        each(&record);
        Ok(())
    })?;
    watch.end();
    Ok(Verified {
        position: Position { epoch: store.recovered.epoch(), revision: end },
        time: overlay.time.time(),
        records,
        snapshots: kept.len(),
        segments: store.recovered.firsts().len(),
        unfinished_bytes: store.recovered.torn() as u64,
        // Of a store that was never opened nothing was noted.
        is_end_known: acknowledged.is_some() || store.recovered.first().0 > end.0,
    })
}

struct Store {
    layout: Layout,
    instance: [u8; 16],
    recovered: Recovered,
}

impl Store {
    /// A snapshot says what the one before it, or the beginning, and the log make of it.
    fn compare(&self, base: Option<&Kept>, kept: &Kept, watch: &mut Watch<'_>) -> Result<(), OpenError> {
        let mut expected = Records::of(&kept.path, kept.open(Some(self.instance))?);
        let header = *expected.reader.header();
        let Position { epoch, revision } = header.position;
        let differs = |what: &str| OpenError::damaged(&kept.path, what);
        if epoch != self.recovered.epoch() {
            return Err(differs("it is of another epoch than the log"));
        }
        if revision > self.recovered.last() {
            let what =
                format!("it ends at revision {}, before the snapshot of {}", self.recovered.last().0, revision.0);
            return Err(OpenError::damaged(&self.recovered.current_path(), what));
        }
        if self.recovered.first().0 <= revision.0 + 1 && !self.recovered.continues(revision, header.chain) {
            return Err(differs("the log does not go on where it ends"));
        }
        if !self.reaches(base) {
            // Nothing is left that it was made of.
            while expected.next()?.is_some() {
                watch.count();
            }
            return Ok(());
        }
        let overlay = self.overlay(base, revision)?;
        if overlay.time != header.time {
            return Err(differs("it is of another time than the log"));
        }
        Merge::new(base, self.instance, &overlay)?.run(|record| {
            watch.count();
            match expected.next()? {
                Some(found) if found == record => Ok(()),
                Some(found) => Err(differs(&format!("{} stands where the log has {}", found.key, record.key))),
                None => Err(differs(&format!("{} is missing", record.key))),
            }
        })?;
        expected.next()?.map_or(Ok(()), |found| Err(differs(&format!("{} is too many", found.key))))
    }

    /// Whether the log goes on where a snapshot ends, or from the beginning.
    fn reaches(&self, base: Option<&Kept>) -> bool {
        self.recovered.first().0 <= after(base).0 + 1
    }

    /// What the log changed from a snapshot up to a revision.
    fn overlay(&self, base: Option<&Kept>, until: Revision) -> Result<Overlay, OpenError> {
        let log = self.layout.log();
        if !self.reaches(base) {
            let what = format!(
                "it begins at revision {}, and no snapshot stands for what is before",
                self.recovered.first().0
            );
            return Err(OpenError::damaged(&log, what));
        }
        let mut overlay = match base {
            Some(base) => Overlay::after(base.open(Some(self.instance))?.header()),
            None => Overlay::begin(self.instance),
        };
        let firsts = snapshots::needed(self.recovered.firsts(), after(base)).unwrap_or_default();
        for (at, first) in firsts.iter().enumerate() {
            if !overlay.add(&log, *first, at + 1 == firsts.len(), Until::Revision(until))? {
                break;
            }
        }
        if overlay.last != until {
            return Err(OpenError::damaged(&log, format!("it has no revision {}", until.0)));
        }
        Ok(overlay)
    }
}

fn after(base: Option<&Kept>) -> Revision {
    base.map_or(Revision(0), |base| base.position.revision)
}

/// The records of a snapshot, one by one.
pub(super) struct Records<'a> {
    path: &'a Path,
    reader: Reader<BufReader<fs::File>>,
    frame: vec::IntoIter<Record>,
}

impl<'a> Records<'a> {
    pub(super) fn of(path: &'a Path, reader: Reader<BufReader<fs::File>>) -> Self {
        Self { path, reader, frame: Vec::new().into_iter() }
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>, OpenError> {
        loop {
            if let Some(record) = self.frame.next() {
                return Ok(Some(record));
            }
            match self.reader.frame().map_err(OpenError::of_snapshot(self.path))? {
                Some(frame) => self.frame = frame.into_iter(),
                None => return Ok(None),
            }
        }
    }
}
