//! What becomes of a log's file when it is full: it gets a name that sorts after those before it, and the oldest go.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
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

/// Removes the oldest of the files that [`rename`] made, but for the newest `keep_files`; 0 keeps all.
pub(super) fn prune(log: &Path, keep_files: u32) -> io::Result<()> {
    if keep_files == 0 {
        return Ok(());
    }
    let mut rotated = Vec::new();
    for entry in fs::read_dir(directory(log))? {
        let entry = entry?;
        if is_rotated(log, &entry.file_name()) {
            rotated.push(entry.path());
        }
    }
    rotated.sort();
    let surplus = rotated.len().saturating_sub(usize::try_from(keep_files).unwrap_or(usize::MAX));
    rotated[..surplus].iter().try_for_each(fs::remove_file)
}

/// Whether [`rename`] gave this name to a file of the log; all other files are somebody else's.
fn is_rotated(log: &Path, name: &OsStr) -> bool {
    let (Some(own), Some(name)) = (log.file_name().and_then(OsStr::to_str), name.to_str()) else { return false };
    let Some((time, number)) =
        name.strip_prefix(own).and_then(|rest| rest.strip_prefix('.')).and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() == "20260131T235959Z".len()
        && time.as_bytes()[8] == b'T'
        && time.ends_with('Z')
        && digits(&time[..8])
        && digits(&time[9..15]);
    is_time && number.split('-').all(digits)
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
        assert!(made.iter().all(|path| is_rotated(&log, path.file_name().expect("a name"))));
        assert!(made.iter().all(|path| path.exists()) && !log.exists());
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
        for hour in 0..5 {
            fs::write(home.path().join(format!("audit.jsonl.20260101T0{hour}0000Z-000000000001")), "").expect("a file");
        }
        prune(&log, 0).expect("kept");
        assert_eq!(fs::read_dir(home.path()).expect("there").count(), 13);
        prune(&log, 2).expect("pruned");
        let kept = |hour: u32| home.path().join(format!("audit.jsonl.20260101T0{hour}0000Z-000000000001")).exists();
        assert_eq!([0, 1, 2, 3, 4].map(kept), [false, false, false, true, true]);
        assert!(others.iter().chain(&strange).all(|name| home.path().join(name).exists()));
    }
}
