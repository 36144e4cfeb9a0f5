//! Where a log's file ends: read backwards, so that a long file costs no more than the way to its last chain's marker.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use super::{LINE_BYTES_MAX, Mark, line, marker::Kind, read::Links};

/// How much is read at once, in bytes.
const BLOCK_BYTES: usize = 256 * 1024;

/// The last line of a file that is one of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) mark: Mark,
    /// Which line of an earlier chain its chain followed, if the file says so.
    pub(super) begun_after: Option<Mark>,
}

impl Tail {
    /// `None` if no chain is in the file. Nothing is proved by it: that is what verifying is for.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let mut last = None;
        let mut tail = None;
        backwards(file, |bytes| {
            let Some(mac) = line::code_of(bytes) else { return true };
            // The last line in full; before it only lines that may be markers.
            if last.is_some() && !is_marker(bytes) {
                return true;
            }
            let Some(links) = Links::of(bytes) else { return true };
            let (seq, mac) = *last.get_or_insert((links.seq, mac));
            let Some(data) = links.chain() else { return true };
            let begun_after = links.previous.filter(|_| links.marker() == Some(Kind::Begin));
            tail = Some(Self { mark: Mark { chain: data.id, seq, mac }, begun_after });
            false
        })?;
        Ok(tail)
    }
}

pub(super) fn is_marker(line: &[u8]) -> bool {
    let method = concat!("\"method\":\"", "coffer-server/audit", "\"").as_bytes();
    line.windows(method.len()).take(256).any(|part| part == method)
}

/// Each line, the last one first, until `visit` has seen enough. A line that is too long ends it.
pub(super) fn backwards(file: &File, mut visit: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut start = file.metadata()?.len();
    // The beginning of what was read so far: a line's end whose begin is still to be read.
    let mut rest = Vec::new();
    while start > 0 {
        let length = BLOCK_BYTES.min(usize::try_from(start).unwrap_or(BLOCK_BYTES));
        start -= length as u64;
        let mut block = vec![0; length];
        file.read_exact_at(&mut block, start)?;
        block.append(&mut rest);
        let mut end = block.len();
        while let Some(newline) = block[..end].iter().rposition(|byte| *byte == b'\n') {
            if newline + 1 < end && !visit(&block[newline + 1..end]) {
                return Ok(());
            }
            end = newline;
        }
        block.truncate(end);
        rest = block;
        if rest.len() > LINE_BYTES_MAX {
            return Ok(());
        }
    }
    if !rest.is_empty() {
        visit(&rest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{
        audit::{
            line::tests::event,
            marker::{self, Marker, tests::chain},
        },
        seal::chain::Mac,
    };

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn lines_come_backwards_across_blocks() {
        let texts: Vec<Vec<u8>> =
            [0, 10, BLOCK_BYTES, 3 * BLOCK_BYTES, 5, 0, 7].iter().map(|length| vec![b'x'; *length]).collect();
        let mut seen = Vec::new();
        backwards(&file(&texts.join(&b'\n')), |line| {
            seen.push(line.len());
            true
        })
        .expect("read");
        assert_eq!(seen, [7, 5, 3 * BLOCK_BYTES, BLOCK_BYTES, 10], "empty lines say nothing");
    }

    #[test]
    fn the_last_line_of_the_last_chain_is_found_whatever_follows() {
        let chain = chain();
        let before = Mark { chain: crate::seal::Uid([1; 16]), seq: 9, mac: Mac::NONE };
        let (mut log, mut mac) = (Vec::new(), Mac::NONE);
        let begin = Marker::Begin { previous: Some(before), missing_after: None, note: None };
        marker::append(&mut log, 1, std::time::SystemTime::UNIX_EPOCH, &chain, &begin).expect("JSON");
        mac = line::seal(&mut log, 0, &chain, mac);
        for seq in 2..3_000 {
            let start = log.len();
            line::append(&mut log, seq, &event("m")).expect("JSON");
            mac = line::seal(&mut log, start, &chain, mac);
        }
        let expected = Tail { mark: Mark { chain: chain.id(), seq: 2_999, mac }, begun_after: Some(before) };
        assert!(log.len() > 2 * BLOCK_BYTES);
        assert_eq!(Tail::of(&file(&log)).expect("read"), Some(expected));
        log.extend_from_slice(b"{\"time\":\"20");
        assert_eq!(Tail::of(&file(&log)).expect("read"), Some(expected), "a torn line is none");
        assert_eq!(Tail::of(&file(b"")).expect("read"), None);
        assert_eq!(Tail::of(&file(b"{}\nforeign\n")).expect("read"), None);
    }
}
