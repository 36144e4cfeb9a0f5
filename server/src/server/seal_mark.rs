//! `DATA/sealed-with`: which key opens the store, in words that are not secret.
//!
//! The store's header decides whether a key is the right one, but reading it means opening the store, which already
//! writes. The mark lets a wrong key be refused before anything is touched, and tells an initialized store from one
//! whose `init` was interrupted.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::seal::source::{self, KeySource};

const NAME: &str = "sealed-with";
/// Longest mark read, in bytes.
const MARK_BYTES_MAX: u64 = 1_024;

/// Refuses a key that the mark says is another. No mark says nothing.
pub(crate) fn check(data: &Path, key: &dyn KeySource) -> Result<(), source::Error> {
    match read(&path(data)) {
        Ok(wanted) if !is_mark(wanted.trim_end()) => {
            let reason = "holds no mark; it only repeats what the store itself knows, so remove it and start again";
            Err(source::Error::Unfit { what: "mark", path: path(data), reason })
        }
        Ok(wanted) if wanted.trim_end() != key.mark() => Err(source::Error::WrongKey {
            name: key.name().to_owned(),
            // The file could hold anything by now; a terminal must not obey it.
            wanted: wanted.trim_end().chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect(),
            given: key.mark(),
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(source::Error::Io { what: "mark", path: path(data), error }),
    }
}

/// Whether it could be what [`set`] wrote: a kind of source, and for a key its id.
fn is_mark(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

/// Reads a mark. Whatever else lies there is not waited for and not read to its end.
fn read(path: &Path) -> io::Result<String> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no regular file"));
    }
    let mut text = Vec::new();
    file.take(MARK_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether the store was initialized to its end.
pub(crate) fn is_marked(data: &Path) -> bool {
    path(data).exists()
}

/// Marks a store that this key opens, unless it is marked.
pub(crate) fn set(data: &Path, key: &dyn KeySource) -> Result<(), source::Error> {
    let io = |error| source::Error::Io { what: "mark", path: path(data), error };
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path(data)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let written = writeln!(file, "{}", key.mark()).and_then(|()| file.sync_all());
    written.and_then(|()| fs::File::open(data)?.sync_all()).map_err(|error| {
        // Half a mark would refuse the right key.
        let _ = fs::remove_file(path(data));
        io(error)
    })
}

fn path(data: &Path) -> PathBuf {
    data.join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::source::KeyFile;

    #[test]
    fn a_marked_store_refuses_another_key_and_an_unmarked_one_says_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = KeyFile::generate(&dir.path().join("a")).expect("a key");
        let other = KeyFile::generate(&dir.path().join("b")).expect("a key");
        assert!(!is_marked(dir.path()));
        assert!(check(dir.path(), &other).is_ok());
        set(dir.path(), &key).expect("marked");
        set(dir.path(), &other).expect("marked already");
        assert!(is_marked(dir.path()));
        assert!(check(dir.path(), &key).is_ok());
        assert!(matches!(check(dir.path(), &other), Err(source::Error::WrongKey { .. })));
        for damaged in [&b""[..], b"\n", b"\xff\x00\x1b[31m", b"key {}"] {
            fs::write(path(dir.path()), damaged).expect("damaged");
            for key in [&key, &other] {
                let error = check(dir.path(), key).expect_err("no mark").to_string();
                assert!(error.contains("holds no mark") && error.contains("remove it"), "{error}");
            }
        }
        fs::remove_file(path(dir.path())).expect("the mark");
        let made = std::process::Command::new("mkfifo").arg(path(dir.path())).status().expect("mkfifo");
        assert!(made.success());
        assert!(matches!(check(dir.path(), &key), Err(source::Error::Io { .. })), "nobody waits for a pipe");
    }
}
