//! A snapshot and what the log changed since: the records of a later position, in order.

use std::{fs, io};

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
        let overlay = self.overlay;
        let mut puts = overlay.puts().peekable();
        let mut put_below = |limit: Option<&Key>, each: &mut dyn FnMut(Record) -> Result<(), OpenError>| {
            while let Some(key) = puts.next_if(|key| limit.is_none_or(|limit| *key < limit)) {
                if let Some(record) = overlay.read(key)? {
                    each(record)?;
                }
            }
            Ok::<_, OpenError>(())
        };
        if let Some(Base { kept, reader }) = &mut self.base {
            while let Some(records) = reader.frame().map_err(OpenError::of_snapshot(&kept.path))? {
                for record in records {
                    put_below(Some(&record.key), &mut each)?;
                    if overlay.leaves(&record.key) {
                        each(record)?;
                    }
                }
            }
        }
        put_below(None, &mut each)
    }
}
