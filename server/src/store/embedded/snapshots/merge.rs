//! Records of a position, of a snapshot or of sled, and what the log changed since: those of a later one, in order.

use std::{fs, io, iter::Peekable};

use super::{super::layout::OpenError, Kept, overlay::Overlay};
use crate::store::{Key, Record, snapshot::Reader};

/// Gives the records, in the order of their keys.
pub(in super::super) struct Merge<'a> {
    base: Option<Base<'a>>,
    overlay: &'a Overlay,
}

struct Base<'a> {
    kept: &'a Kept,
    reader: Reader<io::BufReader<fs::File>>,
}

impl<'a> Merge<'a> {
    /// Of a snapshot, or of the very beginning.
    pub(in super::super) fn new(
        base: Option<&'a Kept>,
        instance: [u8; 16],
        overlay: &'a Overlay,
    ) -> Result<Self, OpenError> {
        let base = base.map(|kept| Ok(Base { kept, reader: kept.open(Some(instance))? })).transpose()?;
        Ok(Self { base, overlay })
    }

    /// Gives every record, and an error after all of them if the snapshot turns out to be damaged: nothing that was given
    /// counts then.
    pub(in super::super) fn run(
        mut self,
        mut each: impl FnMut(Record) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let mut merging = Merging::new(self.overlay);
        if let Some(Base { kept, reader }) = &mut self.base {
            while let Some(records) = reader.frame().map_err(|damage| OpenError::damaged(&kept.path, damage))? {
                for record in records {
                    merging.take(record, &mut each)?;
                }
            }
        }
        merging.end(&mut each)
    }
}

/// Takes the records of before, in the order of their keys.
pub(super) struct Merging<'a> {
    overlay: &'a Overlay,
    puts: Peekable<Box<dyn Iterator<Item = &'a Key> + 'a>>,
}

impl<'a> Merging<'a> {
    pub(super) fn new(overlay: &'a Overlay) -> Self {
        let puts: Box<dyn Iterator<Item = &'a Key> + 'a> = Box::new(overlay.puts());
        Self { overlay, puts: puts.peekable() }
    }

    /// Gives what was put before this one, and it itself unless it was changed.
    pub(super) fn take(
        &mut self,
        record: Record,
        each: &mut dyn FnMut(Record) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        self.put_below(Some(&record.key), each)?;
        if self.overlay.leaves(&record.key) { each(record) } else { Ok(()) }
    }

    /// Gives what was put after all of them.
    pub(super) fn end(mut self, each: &mut dyn FnMut(Record) -> Result<(), OpenError>) -> Result<(), OpenError> {
        self.put_below(None, each)
    }

    fn put_below(
        &mut self,
        limit: Option<&Key>,
        each: &mut dyn FnMut(Record) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        while let Some(key) = self.puts.next_if(|key| limit.is_none_or(|limit| *key < limit)) {
            if let Some(record) = self.overlay.read(key)? {
                each(record)?;
            }
        }
        Ok(())
    }
}
