//! The last resort: a snapshot of the records that are served, when no snapshot and log make one together.

use super::{
    super::{layout::OpenError, log::segment_revisions},
    Overlay, Until, check,
    keeper::{Worker, needed},
    merge::Merging,
    write,
};
use crate::store::{Record, Snapshot, snapshot::Header};

impl Worker {
    /// Of what sled holds, and the log since. Sled stands still meanwhile, and in the end commits wait for it.
    pub(super) fn make_of_records(&self) -> Result<Snapshot, OpenError> {
        let (sled, log, instance) = (self.parts.layout.sled(), self.parts.layout.log(), self.parts.instance);
        let io = |error: String| OpenError::at(&sled)(std::io::Error::other(error));
        let records = self.parts.records.upgrade().ok_or_else(|| io("the store is closed".into()))?;
        let still = records.still().map_err(|fault| fault.of(&sled))?;
        let at = still.checkpoint.filter(|at| (at.instance, at.position.epoch) == (instance, self.parts.epoch));
        let after = at.ok_or_else(|| OpenError::damaged(&sled, "it has not begun"))?.position.revision;
        // What sled holds was in the log before, so the log is divided at it or after.
        let boundary = self.boundary().map_err(|error| io(error.to_string()))?;
        let until = boundary.position.revision;
        let segments = needed(segment_revisions(&log)?, after)
            .ok_or_else(|| OpenError::damaged(&log, "it does not reach back to what sled holds"))?;
        let mut overlay = Overlay::since(instance, after);
        for first in segments.into_iter().filter(|first| *first <= until) {
            check(&self.cancelled, &log)?;
            overlay.add(&log, first, false, Until::Revision(until))?;
        }
        if overlay.last != until {
            return Err(OpenError::damaged(&log, "it ends before what was acknowledged"));
        }
        let header = Header { instance, position: boundary.position, time: boundary.time, chain: boundary.chain };
        write(&self.snapshots, &*self.parts.disk, header, |writer| {
            let mut each = |record: Record| {
                check(&self.cancelled, &self.snapshots)?;
                let pushed = writer.push(&record.key, record.revision, &record.value);
                pushed.map_err(OpenError::at(&self.snapshots))
            };
            let (mut merging, mut failed) = (Merging::new(&overlay), None);
            let read = still.read(|record| match merging.take(record, &mut each) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            });
            read.map_err(|fault| fault.of(&sled))?;
            failed.map_or(Ok(()), Err)?;
            merging.end(&mut each)
        })
    }
}
