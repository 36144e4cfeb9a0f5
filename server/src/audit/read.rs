//! Takes a log's files apart into lines, and lines into what they say.

use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;

use super::{
    LINE_BYTES_MAX, Mark,
    marker::{self, ChainTexts, Kind},
};

/// The lines of one file, one at a time.
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: u64,
    /// Without its newline. Of a line that is too long, its beginning.
    pub bytes: &'a [u8],
    /// Whether a newline follows.
    pub is_ended: bool,
    /// Whether it has more than [`LINE_BYTES_MAX`].
    pub is_too_long: bool,
}

impl<R: Read> Lines<R> {
    /// Over a file from its beginning.
    pub fn new(file: R) -> Self {
        Self { reader: BufReader::with_capacity(128 * 1024, file), line: Vec::new(), number: 0 }
    }

    /// The next line.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (mut is_ended, mut is_too_long) = (false, false);
        while !is_ended {
            let chunk = match self.reader.fill_buf() {
                Ok([]) => break,
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..newline.unwrap_or(chunk.len())];
            let room = LINE_BYTES_MAX - self.line.len();
            is_too_long |= part.len() > room;
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            is_ended = newline.is_some();
            let consumed = part.len() + usize::from(is_ended);
            self.reader.consume(consumed);
        }
        if self.line.is_empty() && !is_ended {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, bytes: &self.line, is_ended, is_too_long }))
    }
}

/// What the chain needs of a line.
#[derive(Debug, Deserialize)]
pub(super) struct Links {
    pub(super) time: String,
    pub(super) seq: u64,
    phase: String,
    method: String,
    chain: Option<ChainTexts>,
    pub(super) previous: Option<Mark>,
    pub(super) missing_after: Option<Mark>,
    pub(super) note: Option<marker::NoteDoubt>,
    pub(super) removed_to: Option<Mark>,
}

impl Links {
    /// `None` for what is no line of a log.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Which marker it is, if one.
    pub(super) fn marker(&self) -> Option<Kind> {
        let kind = match self.phase.as_str() {
            "begin" => Kind::Begin,
            "continued" => Kind::Continued,
            "end" => Kind::End,
            _ => return None,
        };
        (self.method == marker::METHOD).then_some(kind)
    }

    /// The chain that it begins or continues, if it does.
    pub(super) fn chain(&self) -> Option<marker::ChainData> {
        self.chain.as_ref()?.understand()
    }
}

/// What people are shown of a line. Everything is as the file says, which anybody may have written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Shown {
    /// RFC 3339.
    pub time: String,
    /// Joins the lines of one call.
    pub call: String,
    /// Where in the call.
    pub phase: String,
    /// The RPC or command.
    pub method: String,
    /// Who.
    pub principal: String,
    /// From where.
    pub peer: Option<String>,
    /// About what.
    pub subjects: Vec<ShownSubject>,
    /// Of how many things, if not all are listed.
    pub subjects_total: Option<u64>,
    /// Why it was refused or failed.
    pub reason: Option<String>,
}

/// What a line is about.
#[derive(Clone, Debug, Deserialize)]
pub struct ShownSubject {
    /// Its resource name.
    pub name: String,
}

impl Shown {
    /// `None` for what is no line of a log.
    pub fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(line).ok().filter(|shown| !shown.time.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines' bytes, and whether each is ended and too long.
    fn lines(file: &[u8]) -> Vec<(Vec<u8>, bool, bool)> {
        let mut lines = Lines::new(file);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().expect("no error") {
            found.push((line.bytes.to_vec(), line.is_ended, line.is_too_long));
            assert_eq!(line.number, found.len() as u64);
        }
        found
    }

    #[test]
    fn every_line_is_read_once_and_the_last_need_not_be_ended() {
        let line = |text: &[u8], ended| (text.to_vec(), ended, false);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"a\n\nb"), [line(b"a", true), line(b"", true), line(b"b", false)]);
        assert_eq!(lines(b"\n"), [line(b"", true)]);
        let long = [&vec![b'x'; 300_000][..], b"\nb\n"].concat();
        assert_eq!(lines(&long), [line(&long[..300_000], true), line(b"b", true)]);
    }

    #[test]
    fn no_line_takes_more_memory_than_the_limit() {
        let file = [&vec![b'x'; LINE_BYTES_MAX][..], b"\n", &vec![b'y'; LINE_BYTES_MAX + 1], b"\nb\n"].concat();
        let read = lines(&file);
        let seen: Vec<_> = read.iter().map(|(bytes, _, is_too_long)| (bytes.len(), *is_too_long)).collect();
        assert_eq!(seen, [(LINE_BYTES_MAX, false), (LINE_BYTES_MAX, true), (1, false)]);
    }
}
