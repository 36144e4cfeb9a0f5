//! A backup: all records of one revision, in the format of snapshots.

use std::io;

use async_trait::async_trait;

use super::{Etcd, load::Pages};
use crate::store::{
    Backup, CHUNK_BYTES, Chunks, Error, Load as _,
    snapshot::{Header, Writer},
};

/// The checksum of the log before a snapshot: there is no log.
const CHAIN: u32 = 0;

impl Etcd {
    /// Reads everything twice, since what a backup is says first how large it is. Both times it is of one revision, which
    /// etcd keeps unless it is compacted in between: then the backup fails.
    pub(super) async fn back_up(&self) -> Result<Backup, Error> {
        let pages = self.pages().await?;
        let again = pages.again();
        let mut counter = Filler::new(pages, io::sink())?;
        while counter.fill().await? {}
        let (_, snapshot) = counter.writer.finish().map_err(failed)?;
        let chunks = Streaming { filler: Some(Filler::new(again, Vec::new())?), bytes: Vec::new() };
        Ok(Backup { snapshot, chunks: Box::new(chunks) })
    }
}

/// Writes a load as a snapshot.
struct Filler<W> {
    pages: Pages,
    writer: Writer<W>,
}

impl<W: io::Write + Send> Filler<W> {
    fn new(pages: Pages, out: W) -> Result<Self, Error> {
        let (instance, position, time) = (pages.stored.instance, pages.position(), pages.head.time);
        let writer = Writer::new(out, Header { instance, position, time, chain: CHAIN }).map_err(failed)?;
        Ok(Self { pages, writer })
    }

    /// Writes the next page, if there is one.
    async fn fill(&mut self) -> Result<bool, Error> {
        let Some(page) = self.pages.page().await? else { return Ok(false) };
        // What was put after the position is another's, and no part of it.
        let position = self.pages.position();
        for record in page.iter().filter(|record| record.revision <= position.revision) {
            self.writer.push(&record.key, record.revision, &record.value).map_err(failed)?;
        }
        Ok(true)
    }
}

/// Writing to memory does not fail.
fn failed(error: io::Error) -> Error {
    Error::Unavailable(format!("writing the backup: {error}"))
}

struct Streaming {
    filler: Option<Filler<Vec<u8>>>,
    /// What was written and is still to be given.
    bytes: Vec<u8>,
}

#[async_trait]
impl Chunks for Streaming {
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while self.bytes.len() < CHUNK_BYTES
            && let Some(filler) = &mut self.filler
        {
            if filler.fill().await? {
                self.bytes.append(filler.writer.out_mut());
            } else if let Some(filler) = self.filler.take() {
                self.bytes.append(&mut filler.writer.finish().map_err(failed)?.0);
            }
        }
        let rest = self.bytes.split_off(self.bytes.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.bytes, rest);
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
