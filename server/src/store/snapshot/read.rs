//! Reads a snapshot, and believes nothing of it before it is checked.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{END, END_BYTES, FRAME_BYTES, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, RECORDS, array, checksum};
use crate::store::{KEY_BYTES, Key, RECORD_BYTES, Record, Revision, Snapshot, careful};

/// Something in a snapshot that no writer leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}")]
pub struct Damage {
    /// Where, in bytes from its start.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// What the system said instead of letting it be read, by its number: nothing is known of what stands there.
    pub refused: Option<i32>,
}

impl Damage {
    pub(super) fn new(offset: u64, what: impl Into<String>) -> Self {
        Self { offset, what: what.into(), refused: None }
    }

    fn unopened(error: &io::Error) -> Self {
        let refused = error.raw_os_error().filter(|_| careful::is_passing(error));
        Self { refused, ..Self::new(0, error.to_string()) }
    }
}

/// Gives the records of a snapshot, in the order of their keys. That they are all, and the right ones, is known when
/// [`Reader::frame`] has answered with nothing.
pub struct Reader<R> {
    from: R,
    header: Header,
    /// Where the next frame begins.
    offset: u64,
    frames: u32,
    records: u64,
    last: Option<Key>,
    digest: Sha256,
}

/// What a snapshot's header and end say of it, without reading what lies between.
pub fn look(path: &Path) -> Result<Snapshot, Damage> {
    let failed = |error: io::Error| Damage::unopened(&error);
    let mut file = careful::open(path).map_err(failed)?;
    let header = *Reader::new(&file)?.header();
    let end_bytes = (FRAME_BYTES + END_BYTES) as u64;
    let bytes = file.metadata().map_err(failed)?.len();
    let offset = bytes.saturating_sub(end_bytes);
    let mut end = [0; FRAME_BYTES + END_BYTES];
    file.seek(io::SeekFrom::Start(offset)).map_err(failed)?;
    file.read_exact(&mut end).map_err(|error| unread(offset, &error))?;
    let [length, number, crc] = [1, 5, 9].map(|at| u32::from_le_bytes(array(&end[at..])));
    let payload = &end[FRAME_BYTES..];
    let [records, before] = [0, 8].map(|at| u64::from_le_bytes(array(&payload[at..])));
    let is_end = end[0] == END && length as usize == END_BYTES && before == offset;
    if !is_end || checksum(END, number, payload) != crc {
        return Err(Damage::new(offset, "it does not end as a snapshot does"));
    }
    Ok(Snapshot { position: header.position, time: header.time.time(), records, bytes })
}

impl Reader<BufReader<File>> {
    /// Opens a snapshot's file.
    pub fn open(path: &Path) -> Result<Self, Damage> {
        let file = careful::open(path).map_err(|error| Damage::unopened(&error))?;
        Self::new(BufReader::with_capacity(PAYLOAD_BYTES_MAX, file))
    }
}

impl<R: Read> Reader<R> {
    /// Reads a snapshot's header.
    pub fn new(mut from: R) -> Result<Self, Damage> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).map_err(|error| unread(0, &error))?;
        let digest = Sha256::new_with_prefix(header);
        let offset = HEADER_BYTES as u64;
        let header = Header::decode(&header)?;
        Ok(Self { from, header, offset, frames: 0, records: 0, last: None, digest })
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its size, in bytes, once it has been read to its end.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// The records of the next frame; nothing after the last, once everything has been found whole.
    pub fn frame(&mut self) -> Result<Option<Vec<Record>>, Damage> {
        let mut head = [0; FRAME_BYTES];
        self.from.read_exact(&mut head).map_err(|error| unread(self.offset, &error))?;
        let [length, number, crc] = [1, 5, 9].map(|at| u32::from_le_bytes(array(&head[at..])));
        let length = length as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(self.damage("the frame is longer than any"));
        }
        let mut payload = vec![0; length];
        self.from.read_exact(&mut payload).map_err(|error| unread(self.offset, &error))?;
        if checksum(head[0], number, &payload) != crc {
            return Err(self.damage("the frame does not match its checksum"));
        }
        if number != self.frames {
            return Err(self.damage("the frame is not the next one"));
        }
        match head[0] {
            RECORDS => {
                let records = self.records(&payload)?;
                self.digest.update(head);
                self.digest.update(&payload);
                self.offset += (FRAME_BYTES + length) as u64;
                self.frames += 1;
                Ok(Some(records))
            }
            END => self.end(&payload).map(|()| None),
            _ => Err(self.damage("the frame's kind is not known")),
        }
    }

    fn records(&mut self, payload: &[u8]) -> Result<Vec<Record>, Damage> {
        let mut rest = payload;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let record = take_record(&mut rest).ok_or_else(|| self.damage("the frame's payload is not records"))?;
            if self.last.as_ref().is_some_and(|last| *last >= record.key) {
                return Err(self.damage("its records are not in order"));
            }
            if record.revision > self.header.position.revision {
                return Err(self.damage("a record is of after the snapshot"));
            }
            self.last = Some(record.key.clone());
            self.records += 1;
            records.push(record);
        }
        Ok(records)
    }

    fn end(&mut self, payload: &[u8]) -> Result<(), Damage> {
        if payload.len() != END_BYTES {
            return Err(self.damage("the end is not one"));
        }
        let [records, bytes] = [0, 8].map(|at| u64::from_le_bytes(array(&payload[at..])));
        let digest = self.digest.clone().finalize();
        if (records, bytes) != (self.records, self.offset) || payload[16..] != digest[..] {
            return Err(self.damage("the end is of another snapshot"));
        }
        match self.from.read(&mut [0]) {
            Ok(0) => {
                self.offset += (FRAME_BYTES + END_BYTES) as u64;
                Ok(())
            }
            Ok(_) => Err(self.damage("something follows the end")),
            Err(error) => Err(unread(self.offset, &error)),
        }
    }

    fn damage(&self, what: &str) -> Damage {
        Damage::new(self.offset, what)
    }
}

fn unread(offset: u64, error: &io::Error) -> Damage {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Damage::new(offset, "it is cut short"),
        _ => Damage { offset, ..Damage::unopened(error) },
    }
}

fn take_record(rest: &mut &[u8]) -> Option<Record> {
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length)?;
        *rest = left;
        Some(taken)
    };
    let length = usize::from(u16::from_le_bytes(array(take(2)?)));
    let key = std::str::from_utf8(take(length)?).ok().filter(|key| (1..=KEY_BYTES).contains(&key.len()))?;
    let revision = Revision(u64::from_le_bytes(array(take(8)?)));
    let length = u32::from_le_bytes(array(take(4)?)) as usize;
    let value = take(length).filter(|value| value.len() <= RECORD_BYTES)?;
    Some(Record { key: Key::new(key), value: value.into(), revision })
}
