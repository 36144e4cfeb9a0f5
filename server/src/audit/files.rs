//! Finds a log's files, and their order.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Seek as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    Mark,
    read::{Lines, Links},
    rotation,
};
use crate::seal::Uid;

/// Lines looked at for one that tells where a file belongs.
const LINES_LOOKED_AT: usize = 16;

/// A log's file, open: what is rotated meanwhile is still read.
#[derive(Debug)]
pub struct LogFile {
    /// Its name when it was opened.
    pub path: PathBuf,
    /// From its beginning.
    pub file: File,
    /// Its size when it was opened.
    pub bytes: u64,
    place: Place,
}

/// Where a file belongs, by the first of its lines that tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time: String,
    chain: Option<Uid>,
    seq: u64,
}

/// What the first line of a file that tells says of where it belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) time: String,
    pub(super) chain: Option<Uid>,
    pub(super) seq: u64,
    /// The line before it.
    pub(super) previous: Option<Mark>,
}

/// A file of a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("audit log {}: {error}", path.display())]
pub struct FileError {
    path: PathBuf,
    error: io::Error,
}

/// The files given, oldest first.
pub fn given(paths: &[PathBuf]) -> Result<Vec<LogFile>, FileError> {
    let mut found = Vec::new();
    for path in paths {
        add(&mut found, path).map_err(|error| FileError { path: path.clone(), error })?;
    }
    sort(&mut found);
    Ok(found)
}

/// A log and all files that it was rotated to: those beside it whose names are its own and `.` or `-` with anything but
/// `.head` after it. Oldest first.
pub fn of_log(log: &Path) -> Result<Vec<LogFile>, FileError> {
    let fail = |path: &Path, error| FileError { path: path.to_owned(), error };
    let mut found = Vec::new();
    // First the log itself: if it is rotated now, it is found again among the others, and is the same file.
    let current = add(&mut found, log);
    let entries = fs::read_dir(rotation::directory(log)).map_err(|error| fail(log, error))?;
    for entry in entries {
        let path = entry.map_err(|error| fail(log, error))?.path();
        if is_sibling(log, &path) {
            match add(&mut found, &path) {
                // Old files go while others are read.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(&path, error)),
                _ => {}
            }
        }
    }
    match current {
        Err(error) if found.is_empty() || error.kind() != io::ErrorKind::NotFound => return Err(fail(log, error)),
        _ => {}
    }
    sort(&mut found);
    Ok(found)
}

fn is_sibling(log: &Path, path: &Path) -> bool {
    let (Some(own), Some(name)) = (log.file_name(), path.file_name()) else { return false };
    let Some(ending) = name.as_encoded_bytes().strip_prefix(own.as_encoded_bytes()) else { return false };
    matches!(ending.first(), Some(b'.' | b'-')) && !matches!(ending, b".head" | b".lock") && path.is_file()
}

fn add(found: &mut Vec<LogFile>, path: &Path) -> io::Result<()> {
    // A pipe would wait for its writer, for ever if there is none.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file, so nothing can be read back"));
    }
    for other in found.iter() {
        let other = other.file.metadata()?;
        if (other.dev(), other.ino()) == (metadata.dev(), metadata.ino()) {
            return Ok(());
        }
    }
    let Beginning { time, chain, seq, .. } = beginning(&file)?;
    let place = Place { time, chain, seq };
    file.rewind()?;
    found.push(LogFile { path: path.to_owned(), file, bytes: metadata.len(), place });
    Ok(())
}

/// Reads a file's first lines, from where it stands.
pub(super) fn beginning(file: &File) -> io::Result<Beginning> {
    let mut lines = Lines::new(file);
    for _ in 0..LINES_LOOKED_AT {
        let Some(line) = lines.next_line()? else { break };
        if let Some(links) = Links::of(line.bytes) {
            let chain = links.chain().map(|data| data.id);
            return Ok(Beginning { time: links.time, chain, seq: links.seq, previous: links.previous });
        }
    }
    Ok(Beginning::default())
}

/// Files of one chain by their numbers, which no clock moves; chains by the time they first appear.
fn sort(found: &mut [LogFile]) {
    let mut first: HashMap<Uid, String> = HashMap::new();
    for Place { time, chain, .. } in found.iter().map(|file| &file.place) {
        if let Some(chain) = chain {
            let earliest = first.entry(*chain).or_insert_with(|| time.clone());
            if time < earliest {
                earliest.clone_from(time);
            }
        }
    }
    found.sort_by_cached_key(|file| {
        let mut place = file.place.clone();
        if let Some(earliest) = place.chain.and_then(|chain| first.get(&chain)) {
            place.time.clone_from(earliest);
        }
        (place, file.path.clone())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[LogFile]) -> Vec<String> {
        files.iter().map(|file| file.path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_logs_files_are_found_once_and_come_oldest_first() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("audit.jsonl");
        let id = |byte: char| byte.to_string().repeat(32);
        let write = |name: &str, chain: Option<char>, time: u32, seq: u64| {
            let chain = chain.map(|byte| {
                format!(r#","chain":{{"id":"{}","store":"{}","nonce":"{}","header":""}}"#, id(byte), id('0'), id('0'))
            });
            let line = format!(
                "{{\"time\":\"2026-01-{time:02}\",\"seq\":{seq},\"phase\":\"continued\",\"method\":\"coffer-server/audit\"{}}}\n",
                chain.unwrap_or_default()
            );
            fs::write(home.path().join(name), line).expect("a file");
        };
        // The clock went back while chain b ran, and who rotated gave names of his own.
        write("audit.jsonl.3", Some('a'), 1, 1);
        write("audit.jsonl-2", Some('b'), 5, 10);
        write("audit.jsonl.1", Some('b'), 4, 20);
        write("audit.jsonl", None, 6, 30);
        for other in ["audit.jsonl.head", ".audit.jsonl.head.0123456789abcdef.draft", "audit.jsonlx", "other"] {
            write(other, Some('c'), 1, 1);
        }
        fs::create_dir(home.path().join("audit.jsonl.d")).expect("a directory");
        fs::hard_link(&log, home.path().join("audit.jsonl.0")).expect("as while it is rotated");
        let found = of_log(&log).expect("found");
        assert_eq!(names(&found), ["audit.jsonl.3", "audit.jsonl-2", "audit.jsonl.1", "audit.jsonl"]);
        let paths: Vec<_> = found.into_iter().rev().map(|file| file.path).collect();
        assert_eq!(
            names(&given(&paths).expect("found")),
            ["audit.jsonl.3", "audit.jsonl-2", "audit.jsonl.1", "audit.jsonl"]
        );

        fs::remove_file(&log).expect("rotated, and not yet made anew");
        assert_eq!(of_log(&log).expect("found").len(), 4);
        assert!(of_log(&home.path().join("none")).expect_err("no log").to_string().contains("none"));
        assert!(given(&[home.path().to_owned()]).is_err(), "a directory");
    }
}
