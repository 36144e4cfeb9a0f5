//! Puts a small file in place in one step: whoever reads it finds the old one or the new one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Random bytes in a draft's name: nobody can have put a link there before.
const RANDOM_BYTES: usize = 8;
/// What the name ends with.
const ENDING: &str = ".draft";

/// Writes `bytes` beside `path`, onto the disk, and renames them to it.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let draft = name(path)?;
    // Made anew: what is there already, a link too, is an error and stays as it is.
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(no_follow).open(&draft)?;
    let written = fill(&mut file, bytes, mode).and_then(|()| fs::symlink_metadata(&draft));
    let is_ours = match (file.metadata(), &written) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => true,
    };
    if !is_ours {
        return Err(io::Error::other("its draft was replaced"));
    }
    written.and_then(|_| fs::rename(&draft, path)).inspect_err(|_| drop(fs::remove_file(&draft)))
}

fn fill(file: &mut File, bytes: &[u8], mode: u32) -> io::Result<()> {
    file.write_all(bytes)?;
    // Whatever the umask is, and of what is open rather than of what has the name.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_data()
}

/// Removes drafts of `path` that a process left when it was killed.
pub(crate) fn tidy(path: &Path) {
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(directory(path))) else { return };
    let prefix = [b".", name.as_encoded_bytes(), b"."].concat();
    for entry in entries.flatten() {
        let found = entry.file_name();
        let random = found.as_encoded_bytes().strip_prefix(&prefix[..]);
        let random = random.and_then(|rest| rest.strip_suffix(ENDING.as_bytes()));
        let is_draft = random.is_some_and(|random| {
            random.len() == 2 * RANDOM_BYTES && random.iter().all(|byte| byte.is_ascii_hexdigit())
        });
        if is_draft && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A hidden name that nobody knows before.
fn name(path: &Path) -> io::Result<PathBuf> {
    let own = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "must name a file"))?;
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut name = OsString::from(".");
    name.push(own);
    name.push(".");
    random.iter().for_each(|byte| name.push(format!("{byte:02x}")));
    name.push(ENDING);
    Ok(path.with_file_name(name))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_no_draft_is_left() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("file");
        let count = || fs::read_dir(home.path()).expect("there").count();
        for (text, mode) in [("one", 0o600), ("two", 0o644)] {
            put(&path, text.as_bytes(), mode).expect("put");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
            assert_eq!((fs::metadata(&path).expect("there").mode() & 0o777, count()), (mode, 1));
        }
        fs::create_dir(home.path().join("directory")).expect("a directory");
        put(&home.path().join("directory"), b"", 0o600).expect_err("in the way");
        put(&home.path().join("none/file"), b"", 0o600).expect_err("no directory");
        assert_eq!(count(), 2);
    }

    #[test]
    fn only_own_drafts_are_tidied_away() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("file");
        let others =
            [".file.draft", ".file.0123.draft", ".other.0123456789abcdef.draft", "file.0123456789abcdef.draft"];
        for name in others {
            fs::write(home.path().join(name), "").expect("a file");
        }
        fs::write(name(&path).expect("a name"), "").expect("left");
        fs::write(&path, "kept").expect("a file");
        tidy(&path);
        assert_eq!(fs::read_dir(home.path()).expect("there").count(), others.len() + 1);
    }
}
