//! How far a store had come when its audit log was last written: a store that ends before that is an earlier copy of itself.
//!
//! A change is durable before its line is written, so that a crash leaves a log behind its store and never ahead of it.

use std::{fs::File, io};

use serde::Deserialize;

use super::{files::LogFile, read::Links, tail};
use crate::{seal::Uid, store::Position};

/// A line's position stands among its last bytes, within this many.
const ENDING_BYTES: usize = 256;

/// Returns the latest position in the newest chain of this store that names one. `files` are in order, the oldest first.
///
/// Nothing is proved by it: whoever can write the files can also remove lines, which is what `audit verify` finds.
pub fn reached(files: &[LogFile], store: Uid) -> io::Result<Option<Position>> {
    let mut chain = Chain::default();
    for LogFile { file, .. } in files.iter().rev() {
        if let Some(found) = chain.read(file, store)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The lines of the chain that is being read, from its end. Which one it is stands before them.
#[derive(Default)]
struct Chain {
    latest: Option<Position>,
}

impl Chain {
    /// Reads a file backwards until a chain of this store has told a position.
    fn read(&mut self, file: &File, store: Uid) -> io::Result<Option<Position>> {
        let mut found = None;
        tail::backwards(file, |line| {
            if let Some(position) = position(line) {
                self.latest = self.latest.max(Some(position));
            }
            if tail::is_marker(line)
                && let Some(data) = Links::of(line).as_ref().and_then(Links::chain)
            {
                found = self.latest.take().filter(|_| data.store == store);
            }
            found.is_none()
        })?;
        Ok(found)
    }
}

/// The position that a line says.
fn position(line: &[u8]) -> Option<Position> {
    #[derive(Deserialize)]
    struct Line<'a> {
        position: &'a str,
    }
    const NAME: &[u8] = b"\"position\":";
    let ending = &line[line.len().saturating_sub(ENDING_BYTES)..];
    if !ending.windows(NAME.len()).any(|part| part == NAME) {
        return None;
    }
    let Line { position } = serde_json::from_slice(line).ok()?;
    position.parse().ok()
}

/// What a store and its audit log say of it do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store ends at {store}, and its audit log has changes up to {log}: an earlier copy was put in the place of the store, \
     in which tokens and grants that were revoked since would live again"
)]
pub struct PutBack {
    /// Where the store ends.
    pub store: Position,
    /// Where it had been by its audit log.
    pub log: Position,
}

impl PutBack {
    /// Compares where a store ends with what its audit log says.
    pub fn check(store: Position, log: Option<Position>) -> Result<(), Self> {
        match log {
            Some(log) if log > store => Err(Self { store, log }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::SystemTime};

    use super::*;
    use crate::{
        audit::{
            files,
            line::{self, tests::event},
            marker::{self, Marker, tests::chain},
        },
        seal::chain::{Chain, Mac},
    };

    /// A file: a marker of the test's chain, and a line for each position or none.
    fn write(path: &Path, chain: &Chain, time: u64, positions: &[Option<&str>]) {
        let (mut bytes, mut mac) = (Vec::new(), Mac::NONE);
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time);
        let begin = Marker::Begin { previous: None, missing_after: None, note: None };
        marker::append(&mut bytes, 1, time, chain, &begin).expect("JSON");
        mac = line::seal(&mut bytes, 0, chain, mac);
        for (seq, position) in (2..).zip(positions) {
            let start = bytes.len();
            let mut event = event("m");
            event.details = vec![("note", r#"","position":"9.9"#.to_owned())];
            event.position = position.map(str::to_owned);
            line::append(&mut bytes, seq, &event).expect("JSON");
            mac = line::seal(&mut bytes, start, chain, mac);
        }
        fs::write(path, bytes).expect("a file");
    }

    #[test]
    fn the_latest_position_of_the_newest_chain_that_names_one_counts() {
        let chain = chain();
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("audit.jsonl");
        let found = |store| {
            let files = files::of_log(&log).expect("files");
            reached(&files, store).expect("read").map(|position| position.to_string())
        };
        write(&log, &chain, 1_000, &[]);
        assert_eq!(found(chain.store()), None);
        write(&home.path().join("audit.jsonl.1"), &chain, 100, &[Some("7.1")]);
        write(&home.path().join("audit.jsonl.2"), &chain, 200, &[Some("1.99"), Some("1.135"), Some("1.134"), None]);
        assert_eq!(found(chain.store()).as_deref(), Some("1.135"), "two lines may change places, rotated or not");
        assert_eq!(found(Uid([9; 16])), None, "another store's lines say nothing");
        let cut = fs::read(home.path().join("audit.jsonl.2")).expect("a file");
        fs::write(home.path().join("audit.jsonl.2"), &cut[..cut.len() - 10]).expect("a torn line");
        assert_eq!(found(chain.store()).as_deref(), Some("1.135"));
        // All lines of this test have one time, so that files with lines are in no order.
        for rotated in ["audit.jsonl.1", "audit.jsonl.2"] {
            fs::remove_file(home.path().join(rotated)).expect("removed");
        }
        write(&log, &chain, 1_000, &[Some("2.3"), Some("x"), Some("")]);
        assert_eq!(found(chain.store()).as_deref(), Some("2.3"));
    }

    #[test]
    fn a_store_may_be_ahead_of_its_log_and_not_behind() {
        let at = |text: &str| text.parse::<Position>().expect("a position");
        for (store, log, is_good) in [
            ("1.103", None, true),
            ("1.103", Some("1.103"), true),
            ("1.104", Some("1.103"), true),
            ("2.1", Some("1.103"), true),
            ("1.102", Some("1.103"), false),
            ("1.999", Some("2.1"), false),
        ] {
            assert_eq!(PutBack::check(at(store), log.map(at)).is_ok(), is_good, "{store} {log:?}");
        }
    }
}
