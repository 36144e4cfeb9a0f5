//! One file, written whole or not at all, and never through somebody else's.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, fstatfs, openat, renameat, statat, unlinkat},
    io::Errno,
    process::geteuid,
};

use crate::{Exit, Failure, report};

/// Of files with values: the owner's to read.
pub(crate) const MODE_VALUE: Mode = Mode::RUSR;
/// File systems whose files are in memory only, by statfs(2): tmpfs and ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
/// How the name of a file ends until it is whole; before it stand a point and random digits.
const UNFINISHED: &str = ".coffer-new";
/// Random digits in such a name.
const UNFINISHED_DIGITS: usize = 16;
/// A file that is not whole after so many seconds was left behind by a process that was killed.
const LEFT_BEHIND_SECS: i64 = 60;
/// Entries of a directory that are looked at for such files.
const LOOKED_AT_MAX: usize = 10_000;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// A file to be written.
pub(crate) struct Target {
    /// Where. Its directory must exist.
    pub(crate) path: PathBuf,
    /// Which files it must not be: what is rendered must not be read as a template.
    pub(crate) not: Vec<Identity>,
}

impl Identity {
    /// Of an open file.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Target {
    /// Whether it may be written: a new name, or a regular file of this user, in a directory where not everybody can
    /// replace it.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.open().map(drop)
    }

    /// Writes it, and says so if that is a disk.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let (directory, name) = self.open()?;
        warn_of_disk(&directory, &self.path);
        replace(&directory, &name, bytes, MODE_VALUE)
            .map_err(|error| self.refused(format!("cannot be written: {error}")))?;
        clear(&directory);
        Ok(())
    }

    fn open(&self) -> Result<(OwnedFd, OsString), Failure> {
        let name = self.path.file_name().ok_or_else(|| self.refused("must name a file"))?;
        let directory = open_directory(parent(&self.path), OFlags::empty())
            .map_err(|error| self.refused(format!("its directory cannot be opened: {error}")))?;
        let stat = fstat(&directory).map_err(|error| self.refused(error.to_string()))?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX) {
            return Err(self.refused("its directory may be written by everybody"));
        }
        if let Some(found) = find(&directory, name).map_err(|error| self.refused(error.to_string()))? {
            if let Some(problem) = not_ours(&found) {
                return Err(self.refused(problem));
            }
            let identity = Identity { device: found.st_dev, inode: found.st_ino };
            if self.not.contains(&identity) {
                return Err(self.refused("is a template itself"));
            }
        }
        Ok((directory, name.to_owned()))
    }

    fn refused(&self, problem: impl AsRef<str>) -> Failure {
        Failure::new(Exit::Refused, format!("{}: {}", self.path.display(), problem.as_ref()))
    }
}

/// The directory that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a directory.
pub(crate) fn open_directory(path: &Path, more: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more, Mode::empty())
}

/// What is there of this name, links not followed.
pub(crate) fn find(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a file must not be replaced, if it must not.
pub(crate) fn not_ours(stat: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_uid == geteuid().as_raw() => None,
        FileType::RegularFile => Some("belongs to another user"),
        FileType::Symlink => Some("is a symbolic link"),
        FileType::Directory => Some("is a directory"),
        _ => Some("is no regular file"),
    }
}

/// Puts a file of this mode in the place of what is there. Readers see the old one or the new one. Until it is whole it
/// has a name of its own, so that starts that overlap neither meet nor wait: any lock could be held by the command itself.
pub(crate) fn replace(directory: &OwnedFd, name: &OsStr, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let new = unfinished()?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, &new, flags, mode)?);
    // Whatever the umask takes away.
    let written = fchmod(&file, mode).map_err(io::Error::from).and_then(|()| file.write_all(bytes));
    // A name must not outlive a loss of power whose content does not.
    let synced = written.and_then(|()| file.sync_data());
    let placed = synced.and_then(|()| Ok(renameat(directory, &new, directory, name)?));
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = remove(directory, &new);
    }
    placed
}

/// Removes what processes that were killed left unfinished, as far as that can be done. To be called after a file was
/// written: the directory's own time is now then, by the clock by which its files have theirs.
pub(crate) fn clear(directory: &OwnedFd) {
    let (Ok(own), Ok(entries)) = (fstat(directory), Dir::read_from(directory)) else { return };
    for entry in entries.take(LOOKED_AT_MAX).flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if !is_unfinished(name) {
            continue;
        }
        let found = find(directory, name).ok().flatten();
        let is_left = |stat: &Stat| not_ours(stat).is_none() && stat.st_mtime + LEFT_BEHIND_SECS <= own.st_mtime;
        if found.as_ref().is_some_and(is_left) {
            let _ = remove(directory, name);
        }
    }
}

/// Removes a file that may be there.
pub(crate) fn remove(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The name of a file until it is whole: nobody else's.
fn unfinished() -> io::Result<OsString> {
    let mut random = [0; UNFINISHED_DIGITS / 2];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    Ok(format!(".{:0UNFINISHED_DIGITS$x}{UNFINISHED}", u64::from_be_bytes(random)).into())
}

fn is_unfinished(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(UNFINISHED));
    random.is_some_and(|random| random.len() == UNFINISHED_DIGITS && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Says that values reach a disk, if they do.
pub(crate) fn warn_of_disk(directory: &OwnedFd, path: &Path) {
    let in_memory = fstatfs(directory)
        .is_ok_and(|found| IN_MEMORY.iter().any(|magic| i128::from(*magic) == i128::from(found.f_type)));
    if !in_memory {
        report::line(&format!(
            "warning: {}: not in memory, so that values reach a disk; /run or /dev/shm is",
            path.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
        time::Duration,
    };

    fn target(path: PathBuf) -> Target {
        Target { path, not: Vec::new() }
    }

    fn problem(path: PathBuf) -> String {
        let failure = target(path).write(b"hunter2").expect_err("refused");
        assert_eq!(failure.exit(), Exit::Refused);
        failure.problems().collect()
    }

    #[test]
    fn a_file_is_the_owners_to_read_and_is_replaced() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("out");
        // One that anybody may read.
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("set");
        let mut old = File::open(&path).expect("open");
        for content in ["first", "second"] {
            target(path.clone()).write(content.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("text"), content);
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o400);
        }
        let mut seen = String::new();
        io::Read::read_to_string(&mut old, &mut seen).expect("text");
        assert_eq!(seen, "old", "a reader's file does not change under it");
        assert_eq!(fs::read_dir(root.path()).expect("readable").count(), 1, "nothing is left behind");
    }

    #[test]
    fn what_is_not_ours_is_left_as_it_is() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        fs::write(path("victim"), "victim").expect("written");
        symlink(path("victim"), path("link")).expect("linked");
        symlink(path("nowhere"), path("dangling")).expect("linked");
        fs::create_dir(path("folder")).expect("made");
        rustix::fs::mkfifoat(CWD, path("fifo"), Mode::RUSR).expect("made");
        for (name, expected) in [
            ("link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("folder", "is a directory"),
            ("fifo", "is no regular file"),
            ("none/out", "its directory cannot be opened"),
            ("victim/out", "its directory cannot be opened"),
            ("..", "must name a file"),
        ] {
            let told = problem(path(name));
            assert!(told.contains(expected) && !told.contains("hunter2"), "{name}: {told}");
        }
        assert_eq!(fs::read_to_string(path("victim")).expect("text"), "victim");
        assert!(!path("nowhere").exists());
    }

    #[test]
    fn what_was_left_unfinished_is_removed_once_it_is_old_and_nothing_else() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        let made = |name: &str, age_secs| {
            let file = File::create(path(name)).expect("made");
            let time = file.metadata().and_then(|found| found.modified()).expect("a time");
            file.set_modified(time - Duration::from_secs(age_secs)).expect("set");
        };
        made(".0123456789abcdef.coffer-new", 60);
        made(".0123456789abcde0.coffer-new", 30);
        made(".0123456789abcdeg.coffer-new", 60);
        made("0123456789abcdef.coffer-new", 60);
        made("victim", 60);
        symlink(path("victim"), path(".0123456789abcde1.coffer-new")).expect("linked");
        target(path("out")).write(b"mine").expect("written");
        let names = fs::read_dir(root.path()).expect("readable").map(|entry| entry.expect("readable").file_name());
        let names: std::collections::BTreeSet<_> = names.map(|name| name.into_string().expect("text")).collect();
        let expected = [
            ".0123456789abcde0.coffer-new",
            ".0123456789abcde1.coffer-new",
            ".0123456789abcdeg.coffer-new",
            "0123456789abcdef.coffer-new",
            "out",
            "victim",
        ];
        assert_eq!(names, expected.map(str::to_owned).into());
        assert!(is_unfinished(&unfinished().expect("a name")) && unfinished().ok() != unfinished().ok());
    }

    #[test]
    fn a_lock_on_the_directory_holds_nothing_up() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = open_directory(root.path(), OFlags::empty()).expect("open");
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        let path = root.path().join("out");
        let (done, finished) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || done.send(target(path).write(b"mine").is_ok()));
        assert_eq!(finished.recv_timeout(Duration::from_secs(30)), Ok(true));
    }

    #[test]
    fn a_directory_that_everybody_may_write_needs_its_sticky_bit() {
        let root = tempfile::tempdir().expect("a directory");
        let set = |mode| fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).expect("set");
        set(0o777);
        assert!(problem(root.path().join("out")).contains("may be written by everybody"));
        set(0o1777);
        target(root.path().join("out")).write(b"v").expect("written");
    }

    #[test]
    fn starts_that_overlap_never_tear_a_file() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("out");
        let contents = [b'a', b'b'].map(|byte| vec![byte; 64 * 1024]);
        std::thread::scope(|scope| {
            for content in &contents {
                let path = path.clone();
                scope.spawn(move || {
                    for _ in 0..200 {
                        target(path.clone()).write(content).expect("written");
                        let read = fs::read(&path).expect("there");
                        assert!(read.len() == content.len() && read.iter().all(|byte| *byte == read[0]), "torn");
                    }
                });
            }
        });
    }
}
