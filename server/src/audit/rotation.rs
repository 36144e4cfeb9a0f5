//! What becomes of a log's file when it is full: it gets a name of its own, and the oldest go.
//!
//! Which are the oldest is told by the files themselves, each of which says what it follows: names and times are those of a
//! clock that may have been wrong.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    Mark,
    files::{self, Beginning},
};

/// Digits of the number in a name, so that names sort.
const SEQ_DIGITS: usize = 12;

/// Renames a log's file to `{name}.{time}-{number of its last line}`; never over another file.
pub(super) fn rename(log: &Path, time: SystemTime, seq: u64) -> io::Result<PathBuf> {
    let compact: String =
        humantime::format_rfc3339_seconds(time).to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let mut name = OsString::from(log);
    name.push(format!(".{compact}-{seq:0SEQ_DIGITS$}"));
    // Nobody else makes names here: the directory is not open to others, and the log has one writer.
    while fs::symlink_metadata(&name).is_ok() {
        name.push("-1");
    }
    fs::rename(log, &name)?;
    Ok(name.into())
}

/// Files that are more than are kept.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    pub(super) files: Vec<PathBuf>,
    /// The last line of them.
    pub(super) removed_to: Option<Mark>,
}

/// A file that was put aside.
struct Aside {
    path: PathBuf,
    /// The number of its last line, by its name.
    last: u64,
    beginning: Beginning,
    modified: SystemTime,
}

/// The oldest of the files that [`rename`] made, but for `keep_files`, of which `newest` is one; 0 keeps all.
pub(super) fn surplus(log: &Path, newest: &Path, keep_files: u32) -> io::Result<Surplus> {
    let keep = usize::try_from(keep_files).unwrap_or(usize::MAX);
    if keep == 0 {
        return Ok(Surplus::default());
    }
    let mut others = Vec::new();
    for entry in fs::read_dir(directory(log))? {
        let entry = entry?;
        if let Some(last) = last_of(log, &entry.file_name())
            && Some(&*entry.file_name()) != newest.file_name()
            && entry.file_type()?.is_file()
        {
            others.push(Aside::look(entry.path(), last));
        }
    }
    let mut kept = by_age(Aside::look(newest.to_owned(), 0), others);
    if kept.len() <= keep {
        return Ok(Surplus::default());
    }
    let removed = kept.split_off(keep);
    let removed_to = kept.last().and_then(|oldest| oldest.beginning.previous);
    Ok(Surplus { files: removed.into_iter().rev().map(|aside| aside.path).collect(), removed_to })
}

impl Aside {
    /// One that cannot be read says nothing, and is removed in its turn all the same.
    fn look(path: PathBuf, last: u64) -> Self {
        let modified = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
        let beginning = fs::File::open(&path).and_then(|file| files::beginning(&file));
        Self {
            path,
            last,
            beginning: beginning.unwrap_or_default(),
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }
}

/// The newest first: each after the one that says it follows it. Those that nobody follows are older, by their times.
fn by_age(newest: Aside, mut others: Vec<Aside>) -> Vec<Aside> {
    let mut ordered = vec![newest];
    while let Some(before) = ordered.last().and_then(|aside| aside.beginning.previous)
        && let Some(at) = holder(&others, before)
    {
        ordered.push(others.swap_remove(at));
    }
    others.sort_by_key(|aside| std::cmp::Reverse((aside.modified, aside.path.clone())));
    ordered.extend(others);
    ordered
}

/// The file that ends with a line: of the same chain by its first line, or, when the chain began within the file, by the
/// number in its name.
fn holder(files: &[Aside], line: Mark) -> Option<usize> {
    let found = files.iter().enumerate();
    let of_chain =
        found.clone().filter(|(_, aside)| aside.beginning.chain == Some(line.chain) && aside.beginning.seq <= line.seq);
    let by_number = found.filter(|(_, aside)| aside.last == line.seq);
    let newest_of_chain = of_chain.max_by_key(|(_, aside)| aside.beginning.seq);
    newest_of_chain.or_else(|| by_number.max_by_key(|(_, aside)| aside.modified)).map(|(at, _)| at)
}

/// The number in a name that [`rename`] gave to a file of the log; all other files are somebody else's.
fn last_of(log: &Path, name: &OsStr) -> Option<u64> {
    let (own, name) = (log.file_name()?.to_str()?, name.to_str()?);
    let (time, number) = name.strip_prefix(own)?.strip_prefix('.')?.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() == "20260131T235959Z".len()
        && time.as_bytes()[8] == b'T'
        && time.ends_with('Z')
        && digits(&time[..8])
        && digits(&time[9..15]);
    let is_ours = is_time && number.split('-').all(digits);
    is_ours.then(|| number.split('-').next().and_then(|number| number.parse().ok())).flatten()
}

/// The directory that a log is in.
pub(super) fn directory(log: &Path) -> &Path {
    match log.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_sort_and_no_file_is_overwritten() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("audit.jsonl");
        let mut made = Vec::new();
        for (second, seq) in [(0, 9), (0, 10), (0, 10), (1, 2)] {
            fs::write(&log, seq.to_string()).expect("a log");
            made.push(rename(&log, SystemTime::UNIX_EPOCH + Duration::from_secs(second), seq).expect("renamed"));
        }
        assert_eq!(made[0].file_name(), Some(OsStr::new("audit.jsonl.19700101T000000Z-000000000009")));
        assert!(made.is_sorted() && made.windows(2).all(|pair| pair[0] != pair[1]), "{made:?}");
        assert!(made.iter().all(|path| last_of(&log, path.file_name().expect("a name")).is_some()));
        assert!(made.iter().all(|path| path.exists()) && !log.exists());
    }

    /// A file whose first line is number `seq` of a chain, after line `previous`.
    fn aside(home: &Path, name: &str, chain: u8, seq: u64, previous: Option<(u8, u64)>) -> PathBuf {
        let path = home.join(format!("audit.jsonl.{name}"));
        let (id, nonce) = (format!("{chain:02x}").repeat(16), "00".repeat(16));
        let mac = nonce.clone();
        let chain = format!(r#""chain":{{"id":"{id}","store":"{nonce}","nonce":"{nonce}","header":""}}"#);
        let previous = previous.map_or(String::new(), |(chain, seq)| {
            format!(r#","previous":{{"chain":"{}","seq":{seq},"mac":"{mac}"}}"#, format!("{chain:02x}").repeat(16))
        });
        let line = format!(
            r#"{{"time":"t","seq":{seq},"phase":"continued","method":"coffer-server/audit",{chain}{previous}}}"#
        );
        fs::write(&path, line + "\n").expect("a file");
        path
    }

    fn names(files: &[PathBuf]) -> Vec<&str> {
        files.iter().filter_map(|path| path.file_name()?.to_str()?.strip_prefix("audit.jsonl.")).collect()
    }

    #[test]
    fn the_oldest_go_and_nothing_that_is_not_ours() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("audit.jsonl");
        let others = ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.head", "audit.jsonl.20260101", "other.jsonl"];
        let strange =
            ["audit.jsonl.20260101T000000Z", "audit.jsonl.20260101T000000Z-x", "audit.jsonl.2026é0101T000000-1"];
        for name in others.iter().chain(&strange) {
            fs::write(home.path().join(name), "").expect("a file");
        }
        let file = |hour: u64| {
            let name = format!("20260101T0{hour}0000Z-{:012}", hour * 10 + 9);
            aside(home.path(), &name, 1, hour * 10, (hour > 0).then(|| (1, hour * 10 - 1)))
        };
        let made: Vec<_> = (0..5).map(file).collect();
        assert_eq!(surplus(&log, &made[4], 0).expect("looked").files, [""; 0].map(PathBuf::from));
        assert_eq!(surplus(&log, &made[4], 5).expect("looked").files, [""; 0].map(PathBuf::from));
        let surplus = surplus(&log, &made[4], 2).expect("looked");
        assert_eq!(surplus.files, made[..3]);
        assert_eq!(surplus.removed_to.map(|mark| mark.seq), Some(29));
    }

    #[test]
    fn a_clock_that_was_ahead_makes_no_file_the_newest() {
        let home = tempfile::tempdir().expect("a directory");
        let log = home.path().join("audit.jsonl");
        // Chain 2 began within the second file and ran while the clock was ahead; chain 3 begins within its last file.
        aside(home.path(), "20260101T000000Z-000000000009", 1, 1, None);
        aside(home.path(), "20260102T000000Z-000000000005", 1, 10, Some((1, 9)));
        aside(home.path(), "20990101T000000Z-000000000020", 2, 6, Some((2, 5)));
        aside(home.path(), "20990102T000000Z-000000000007", 2, 21, Some((2, 20)));
        let newest = aside(home.path(), "20260103T000000Z-000000000030", 3, 8, Some((3, 7)));
        // Of a log that nothing follows.
        aside(home.path(), "20990103T000000Z-000000000009", 9, 1, None);
        let gone = |keep| surplus(&log, &newest, keep).expect("looked").files;
        assert_eq!(names(&gone(4)), ["20990103T000000Z-000000000009", "20260101T000000Z-000000000009"]);
        let last = ["20260102T000000Z-000000000005", "20990101T000000Z-000000000020", "20990102T000000Z-000000000007"];
        assert_eq!(names(&gone(1))[2..], last, "and never the one that was just put aside");
    }
}
