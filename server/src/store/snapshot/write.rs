//! Writes a snapshot.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::{END, FRAME_BYTES, Header, PAYLOAD_BYTES, RECORDS, checksum};
use crate::store::{Key, Revision, Snapshot};

/// Takes records in the order of their keys.
pub struct Writer<W> {
    out: W,
    header: Header,
    payload: Vec<u8>,
    frames: u32,
    records: u64,
    bytes: u64,
    digest: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins a snapshot.
    pub fn new(out: W, header: Header) -> io::Result<Self> {
        let payload = Vec::with_capacity(PAYLOAD_BYTES);
        let mut writer = Self { out, header, payload, frames: 0, records: 0, bytes: 0, digest: Sha256::new() };
        writer.put(&header.encode())?;
        Ok(writer)
    }

    /// Adds a record, whose key comes after those before it. Key and value are within the limits of a transaction.
    pub fn push(&mut self, key: &Key, revision: Revision, value: &[u8]) -> io::Result<()> {
        self.payload.extend((key.as_str().len() as u16).to_le_bytes());
        self.payload.extend(key.as_str().as_bytes());
        self.payload.extend(revision.0.to_le_bytes());
        self.payload.extend((value.len() as u32).to_le_bytes());
        self.payload.extend(value);
        self.records += 1;
        if self.payload.len() >= PAYLOAD_BYTES { self.turn() } else { Ok(()) }
    }

    /// Where it writes to.
    pub fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// How many records it has.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Ends the snapshot. Nothing before makes it one.
    pub fn finish(mut self) -> io::Result<(W, Snapshot)> {
        if !self.payload.is_empty() {
            self.turn()?;
        }
        let mut end = Vec::new();
        end.extend(self.records.to_le_bytes());
        end.extend(self.bytes.to_le_bytes());
        end.extend(self.digest.clone().finalize());
        self.frame(END, &end)?;
        self.out.flush()?;
        let Header { position, time, .. } = self.header;
        Ok((self.out, Snapshot { position, time: time.time(), records: self.records, bytes: self.bytes }))
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut payload = std::mem::take(&mut self.payload);
        self.frame(RECORDS, &payload)?;
        payload.clear();
        self.payload = payload;
        Ok(())
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let mut head = Vec::with_capacity(FRAME_BYTES);
        head.push(kind);
        head.extend((payload.len() as u32).to_le_bytes());
        head.extend(self.frames.to_le_bytes());
        head.extend(checksum(kind, self.frames, payload).to_le_bytes());
        self.frames += 1;
        self.put(&head)?;
        self.put(payload)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}
