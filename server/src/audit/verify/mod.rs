//! Holds the lines of a log against their chains, and says where one was edited, deleted, moved, repeated or put in, and
//! where the end is missing. One line is in memory at a time.
//!
//! What is proved: whoever has not the key source could not have changed what stands between the first line of a chain
//! and the last one that a later line, the note beside the log or a given head vouches for. `thread` follows one chain
//! over its lines; `check` goes from chain to chain and from file to file.

mod check;
#[cfg(test)]
pub(in crate::audit) mod tests;
mod thread;

use std::{fmt, io, path::PathBuf};

pub use super::head::Note;
use super::{
    Mark,
    files::LogFile,
    read::{Line, Lines},
};
use crate::seal::{KeyId, Uid, source::KeySource};

/// Most findings told one by one; the rest are counted.
const FINDINGS_MAX: usize = 1_000;

/// Where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the files, in the order given.
    pub file: usize,
    /// Its line, from 1.
    pub line: u64,
}

/// Something about a line, or about the log as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, if it is anywhere.
    pub place: Option<Place>,
    /// What, in words.
    pub what: String,
    /// Nothing shows that something was changed: the key that would tell is not available.
    pub is_unchecked: bool,
}

/// How a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last line: the server ended in good order.
    Ended,
    /// Without it, and another chain follows: the server was killed, or its end was cut off unseen.
    Killed,
    /// Without it, and nothing follows: the server runs, was killed, or the end is cut off.
    Open,
}

/// One chain as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// The chain.
    pub id: Uid,
    /// Whose log it is.
    pub store: Uid,
    /// How many of its lines are proved.
    pub lines: u64,
    /// The time of the first of them, as it says.
    pub first_time: String,
    /// The time of the last.
    pub last_time: String,
    /// The last of them.
    pub last: Mark,
    /// How it ends.
    pub end: End,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every chain, in order.
    pub chains: Vec<ChainReport>,
    /// What is wrong, in order.
    pub findings: Vec<Finding>,
    /// How many more findings there are than are told.
    pub untold: u64,
    /// What is worth knowing and harmless.
    pub notes: Vec<Finding>,
    /// How many lines are proved.
    pub lines: u64,
}

/// A line that must be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Somebody kept its mark.
    Given(Mark),
    /// The note beside the log.
    Noted(Note),
}

impl Witness {
    fn mark(&self) -> Mark {
        match self {
            Witness::Given(mark) => *mark,
            Witness::Noted(note) => note.mark,
        }
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Witness::Given(_) => "the head given",
            Witness::Noted(_) => "the head noted beside the log",
        })
    }
}

/// What a log is held against, besides itself.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Lines that must be there.
    pub witnesses: Vec<Witness>,
    /// What was found wrong with those already.
    pub doubts: Vec<String>,
    /// Whose log it must be; otherwise any one store's.
    pub store: Option<Uid>,
    /// The name of the root key that this store has now.
    pub root: Option<KeyId>,
    /// Whether lines before the first file may be missing, though nothing says that they were removed because enough
    /// others are kept.
    pub is_partial: bool,
}

/// Reads `files` in their order. `progress` is told of every line's bytes.
///
/// A chain that the key source does not open is a finding.
pub async fn verify(
    files: Vec<LogFile>,
    expected: Expected,
    source: &dyn KeySource,
    progress: impl FnMut(u64),
) -> Result<Report, (PathBuf, io::Error)> {
    let files = files.into_iter().map(|LogFile { path, file, .. }| (path, file)).collect();
    read(files, expected, source, progress).await
}

async fn read<R: io::Read>(
    files: Vec<(PathBuf, R)>,
    expected: Expected,
    source: &dyn KeySource,
    mut progress: impl FnMut(u64),
) -> Result<Report, (PathBuf, io::Error)> {
    let mut check = check::Check::new(source, expected);
    let last = files.len().saturating_sub(1);
    for (number, (path, file)) in files.into_iter().enumerate() {
        let mut lines = Lines::new(file);
        while let Some(line) = lines.next_line().map_err(|error| (path.clone(), error))? {
            progress(line.bytes.len() as u64 + 1);
            check.line(number, line, number == last).await;
        }
    }
    Ok(check.finish())
}

impl Report {
    fn find(&mut self, place: Option<Place>, what: String) -> Option<usize> {
        self.add(Finding { place, what, is_unchecked: false })
    }

    /// Something that cannot be told, because the key for it is not available.
    fn leave_unchecked(&mut self, place: Option<Place>, what: String) {
        self.add(Finding { place, what, is_unchecked: true });
    }

    fn add(&mut self, finding: Finding) -> Option<usize> {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
            return Some(self.findings.len() - 1);
        }
        self.untold += 1;
        None
    }

    fn note(&mut self, place: Place, what: String) {
        if self.notes.len() < FINDINGS_MAX {
            self.notes.push(Finding { place: Some(place), what, is_unchecked: false });
        }
    }

    /// Puts a better word in place of one that was given before more was known.
    fn amend(&mut self, finding: Option<usize>, what: String) {
        if let Some(finding) = finding.and_then(|finding| self.findings.get_mut(finding)) {
            finding.what = what;
        }
    }
}

/// How many, in words.
fn lines(count: u64) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{count} lines") }
}
