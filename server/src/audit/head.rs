//! How far a chain has come, and the note of it beside the log, by which lines cut off its end are missed.

use std::{
    ffi::OsString,
    fmt,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    draft,
    seal::{
        Uid,
        chain::{Chain, Mac},
        unhex,
    },
};

/// Longest note read, in bytes.
const NOTE_BYTES_MAX: u64 = 1_024;

/// One line of one chain. As text `CHAIN:SEQUENCE:MAC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Texts", into = "Texts")]
pub struct Mark {
    /// The chain.
    pub chain: Uid,
    /// The line's number.
    pub seq: u64,
    /// Its code.
    pub mac: Mac,
}

/// How far a log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain that is being written.
    pub chain: Uid,
    /// The number of its last line; 0 before the first.
    pub seq: u64,
    /// That line's code.
    pub mac: Mac,
    /// Whether the last line that was to be written was.
    pub healthy: bool,
}

/// A mark as it stands in a line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    chain: String,
    seq: u64,
    mac: String,
}

/// The text is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no head of an audit log: CHAIN:SEQUENCE:MAC, as the server's status tells it")]
pub struct InvalidMark;

impl From<Mark> for Texts {
    fn from(mark: Mark) -> Self {
        Self { chain: mark.chain.to_string(), seq: mark.seq, mac: mark.mac.to_string() }
    }
}

impl TryFrom<Texts> for Mark {
    type Error = InvalidMark;

    fn try_from(texts: Texts) -> Result<Self, InvalidMark> {
        let chain = unhex(&texts.chain).map(Uid).ok_or(InvalidMark)?;
        Ok(Self { chain, seq: texts.seq, mac: Mac::parse(&texts.mac).ok_or(InvalidMark)? })
    }
}

impl FromStr for Mark {
    type Err = InvalidMark;

    fn from_str(text: &str) -> Result<Self, InvalidMark> {
        let [chain, seq, mac] = text.split(':').collect::<Vec<_>>()[..] else { return Err(InvalidMark) };
        let seq = seq.parse().map_err(|_| InvalidMark)?;
        Texts { chain: chain.to_owned(), seq, mac: mac.to_owned() }.try_into()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.chain, self.seq, self.mac)
    }
}

/// The note beside a log: a mark, and a code that only the holder of the chain's key can make, so that nobody else can
/// move it back to an earlier line that they choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The last line that was on the disk when the note was written.
    pub mark: Mark,
    code: Mac,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNote {
    head: Mark,
    code: String,
}

impl Note {
    pub(super) fn new(chain: &Chain, mark: Mark) -> Self {
        Self { mark, code: chain.seal_head(mark.to_string().as_bytes()) }
    }

    /// Whether the holder of the chain's key wrote it.
    pub(super) fn is_of(&self, chain: &Chain) -> bool {
        chain.seal_head(self.mark.to_string().as_bytes()) == self.code
    }

    /// The name of the note of a log.
    pub fn path(log: &Path) -> PathBuf {
        with_ending(log, ".head")
    }

    /// Reads the note beside a log; `None` if there is none.
    pub fn read(log: &Path) -> io::Result<Option<Self>> {
        // The server writes a file and never a link, and nobody waits for a pipe.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(Self::path(log)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "is no head of an audit log");
        if !file.metadata()?.is_file() {
            return Err(damaged());
        }
        let mut text = Vec::new();
        file.take(NOTE_BYTES_MAX).read_to_end(&mut text)?;
        let stored: StoredNote = serde_json::from_slice(&text).map_err(|_| damaged())?;
        Ok(Some(Self { mark: stored.head, code: Mac::parse(&stored.code).ok_or_else(damaged)? }))
    }

    /// Puts it beside the log, in one step and on the disk.
    pub(super) fn write(&self, log: &Path) -> io::Result<()> {
        let stored = StoredNote { head: self.mark, code: self.code.to_string() };
        let mut text = serde_json::to_string(&stored).map_err(io::Error::other)?;
        text.push('\n');
        draft::put(&Self::path(log), text.as_bytes(), 0o600)
    }
}

fn with_ending(log: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use proptest::prelude::*;

    use super::*;
    use crate::audit::marker::tests::chain;

    #[test]
    fn a_note_reads_back_and_only_the_chains_key_makes_it() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("audit.jsonl");
        assert_eq!(Note::read(&log).expect("no note"), None);
        let chain = chain();
        let mark = Mark { chain: chain.id(), seq: 7, mac: chain.link(Mac::NONE, b"line") };
        let note = Note::new(&chain, mark);
        note.write(&log).expect("written");
        note.write(&log).expect("written over");
        assert_eq!(Note::read(&log).expect("a note"), Some(note));
        assert!(note.is_of(&chain));
        let moved_back = Note { mark: Mark { seq: 6, ..mark }, ..note };
        assert!(!moved_back.is_of(&chain));
        fs::write(Note::path(&log), "{}").expect("damaged");
        assert!(Note::read(&log).is_err());
    }

    #[test]
    fn no_link_is_followed_where_a_note_is_written_or_read() {
        let home = tempfile::tempdir().expect("a directory");
        let (log, victim) = (home.path().join("audit.jsonl"), home.path().join("victim"));
        fs::write(&victim, "precious").expect("a file");
        for name in ["audit.jsonl.head", "audit.jsonl.head.new"] {
            symlink(&victim, home.path().join(name)).expect("a link");
        }
        assert!(Note::read(&log).is_err(), "a link is no note");
        let chain = chain();
        let note = Note::new(&chain, Mark { chain: chain.id(), seq: 1, mac: Mac::NONE });
        note.write(&log).expect("written");
        assert_eq!(fs::read_to_string(&victim).expect("there"), "precious");
        assert_eq!(Note::read(&log).expect("a note"), Some(note));
    }

    proptest! {
        #[test]
        fn any_text_is_a_mark_or_an_error(text in "[0-9a-f]{31,33}:[0-9]{0,21}:[0-9a-fé]{31,33}|.*") {
            if let Ok(mark) = text.parse::<Mark>() {
                prop_assert_eq!(mark.to_string().parse(), Ok(mark));
            }
        }
    }
}
