//! Opens files that may not be what their names say: a backup or a store's directory comes from anywhere, and a pipe, a
//! device or a huge hole in place of a file must neither be waited for nor fill the memory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::{fs::OFlags, io::Errno};

/// Opens a regular file for reading, by a name that somebody gave: links are followed.
pub(super) fn open(path: &Path) -> io::Result<File> {
    regular(path, OFlags::NONBLOCK)
}

/// The same by a name that only a store gives, whose files are never links.
pub(super) fn open_own(path: &Path) -> io::Result<File> {
    let is_link = |error: &io::Error| error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    regular(path, OFlags::NONBLOCK | OFlags::NOFOLLOW)
        .map_err(|error| if is_link(&error) { strange("is a link".into()) } else { error })
}

/// What a store's file holds, from its beginning, if it is not longer than any.
pub(super) fn read(mut file: &File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.len();
    let too_long = || strange(format!("has more than {bytes_max} bytes, as none has"));
    if bytes > bytes_max {
        return Err(too_long());
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    // It may grow meanwhile.
    file.by_ref().take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max { Err(too_long()) } else { Ok(content) }
}

/// Whether it is not what any store or backup holds, rather than something that the system refuses.
pub(super) fn is_strange(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Whether an error of opening or creating a file, or of writing its first byte, says that the system lacks something or
/// forbids it just now: then nothing has happened, and the same can succeed later. Damage is never among these, nor is an
/// error after which something may stand.
pub(super) fn is_passing(error: &io::Error) -> bool {
    const PASSING: [Errno; 8] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::AGAIN,
        Errno::INTR,
        Errno::ACCESS,
        Errno::PERM,
        // A file system that was mounted again for reading, by hand or after an error of its own.
        Errno::ROFS,
    ];
    error.raw_os_error().is_some_and(|found| PASSING.iter().any(|errno| errno.raw_os_error() == found))
}

fn regular(path: &Path, flags: OFlags) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(strange("is no regular file".into())) }
}

fn strange(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_some_size_are_read() {
        let home = tempfile::tempdir().expect("a directory");
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| home.path().join(name));
        std::fs::write(&file, "12345").expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let content = |opened: io::Result<File>| opened.and_then(|file| read(&file, 5));
        assert_eq!(content(open(&link)).expect("by whatever name"), b"12345");
        assert_eq!(content(open_own(&file)).expect("a file"), b"12345");
        for strange in [open_own(&link), open(&pipe), open_own(&pipe), open(Path::new("/dev/zero")), open(home.path())]
        {
            assert!(is_strange(&strange.expect_err("none that is read")));
        }
        let hole = File::options().write(true).open(&file).expect("a file");
        hole.set_len(1 << 40).expect("a hole");
        assert!(is_strange(&content(open(&file)).expect_err("too long")));
        assert!(!is_strange(&open(&home.path().join("none")).expect_err("missing")));
    }
}
