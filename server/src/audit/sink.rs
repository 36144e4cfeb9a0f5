//! The file, pipe or device that audit lines are appended to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};

use super::{
    Mark,
    head::Note,
    lock,
    reserve::Reserve,
    rotation::{self, Surplus},
    tail::Tail,
};
use crate::draft;

/// Why an audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("audit log {}: {problem}", path.display())]
pub struct OpenError {
    path: PathBuf,
    problem: Problem,
}

impl OpenError {
    /// Whether another process writes the log.
    pub fn is_in_use(&self) -> bool {
        matches!(self.problem, Problem::InUse)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("cannot be opened: {0}")]
    Open(#[source] io::Error),
    #[error("its directory {0} does not exist")]
    NoDirectory(PathBuf),
    #[error("others can write to its directory {0}: chmod go-w it, or give a directory of its own")]
    OpenDirectory(PathBuf),
    #[error("others can write to it: chmod 0600 it")]
    OpenFile,
    #[error("is somebody else's file or link, in a directory that others can write to: give a directory of its own")]
    Strange,
    #[error("is a pipe that nobody reads: start its reader first")]
    NoReader,
    #[error("is a directory")]
    Directory,
    #[error("another process writes it, and its chain would break")]
    InUse,
    #[error("cannot be renamed: {0}")]
    Rename(#[source] io::Error),
}

/// What a log held before this process, as far as that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// Where its file ends.
    pub(super) tail: Option<Tail>,
    pub(super) noted: Noted,
}

/// What the note beside a log said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Noted {
    /// There is none.
    #[default]
    Nothing,
    /// It cannot be read.
    Unreadable,
    /// How far the log came.
    To(Mark),
}

/// Takes bytes; a test puts broken ones in its place.
pub(super) trait Sink: Send + 'static {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Removes the last `bytes`, a part of a line; `false` where that cannot be done.
    fn cut_back(&mut self, bytes: u64) -> bool;
    fn sync(&mut self) -> io::Result<()>;
    /// Whether the path no longer names what is open: nobody would find what is written there.
    fn is_displaced(&self) -> bool;
    /// Opens the path again, after a rotation. On an error the old one stays.
    fn reopen(&mut self) -> Result<(), OpenError>;
    fn before(&self) -> Before;
    /// How much it holds; 0 where that is not known.
    fn bytes(&self) -> u64;
    /// Puts the file aside, under a name of its own, and opens a new one at the path. `seq` is the number of the last line.
    /// On an error the old file stays in use. Answers the oldest of the files put aside that are more than `keep_files`;
    /// 0 keeps all.
    fn rotate(&mut self, time: SystemTime, seq: u64, keep_files: u32) -> Result<Surplus, OpenError>;
    /// Removes them.
    fn remove(&self, surplus: Surplus);
    /// Keeps room on the disk for lines to come, where it can.
    fn keep_room(&mut self) {}
    /// Puts a note of how far the log came beside it, where there is a place for one.
    fn keep(&self, note: &Note) -> io::Result<()>;
}

/// A sink by its path.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    file: File,
    /// Pipes and devices cannot be cut or synced.
    is_regular: bool,
    reserve: Reserve,
    /// Held as long as the log is written, whatever becomes of its files.
    lock: Option<File>,
}

impl FileSink {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut sink = Self::open_unlocked(path)?;
        if sink.is_regular {
            sink.lock = lock::take(path).map_err(|problem| OpenError { path: path.to_owned(), problem })?;
            sink.end_torn_line().map_err(|error| OpenError { path: path.to_owned(), problem: Problem::Open(error) })?;
        }
        sink.keep_room();
        Ok(sink)
    }

    fn open_unlocked(path: &Path) -> Result<Self, OpenError> {
        let fail = |problem| OpenError { path: path.to_owned(), problem };
        let is_shared = check_directory(path).map_err(fail)?;
        // Reading is only for the last byte of a regular file; a pipe or device is opened for writing alone.
        let existing = fs::metadata(path).map(|metadata| metadata.file_type()).ok();
        let is_pipe = existing.is_some_and(|kind| kind.is_fifo());
        // A file that no directory names after a power loss would take its synced lines with it. Opened before the file is
        // made: one that stands already is not taken for new the next time.
        let directory = match existing {
            Some(_) => None,
            None => Some(File::open(rotation::directory(path)).map_err(|error| fail(Problem::Open(error)))?),
        };
        // Opening a pipe would wait for its reader, for ever if there is none. A link is followed where only those make names
        // whom the operator trusts with the log, since many name it so (/dev/stdout is a link); not where anybody does.
        let flags = if is_shared { OFlags::NONBLOCK | OFlags::NOFOLLOW } else { OFlags::NONBLOCK };
        let file = OpenOptions::new()
            .append(true)
            .read(existing.is_none_or(|kind| kind.is_file()))
            .create(true)
            .mode(0o600)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NXIO) if is_pipe => Problem::NoReader,
                Some(Errno::LOOP) if is_shared => Problem::Strange,
                _ if path.is_dir() => Problem::Directory,
                _ => Problem::Open(error),
            })
            .map_err(fail)?;
        // Writing does wait: a full pipe is a slow sink, not a broken one.
        blocking(&file).map_err(|error| fail(Problem::Open(error)))?;
        let metadata = file.metadata().map_err(|error| fail(Problem::Open(error)))?;
        if metadata.is_file() && metadata.mode() & 0o022 != 0 {
            return Err(fail(Problem::OpenFile));
        }
        if is_shared && metadata.is_file() && !is_trusted(metadata.uid()) {
            return Err(fail(Problem::Strange));
        }
        draft::tidy(&Note::path(path));
        let (path, is_regular) = (path.to_owned(), metadata.is_file());
        if let Some(directory) = directory {
            directory.sync_all().map_err(|error| fail(Problem::Open(error)))?;
        }
        Ok(Self { path, file, is_regular, reserve: Reserve::default(), lock: None })
    }

    /// A crash may have left a part of a line; the next one must not continue it.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if !self.is_regular || self.file.metadata()?.len() == 0 {
            return Ok(());
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        if last == *b"\n" { Ok(()) } else { self.file.write_all(b"\n") }
    }
}

impl Sink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn cut_back(&mut self, bytes: u64) -> bool {
        // The length is asked for, not remembered: whoever rotates may have truncated the file.
        let cut = || self.file.set_len(self.file.metadata()?.len().saturating_sub(bytes));
        let is_cut = self.is_regular && cut().is_ok();
        self.reserve.is_lost();
        is_cut
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.is_regular { self.file.sync_data() } else { Ok(()) }
    }

    fn is_displaced(&self) -> bool {
        // Pipes and devices have readers of their own, whatever becomes of the name.
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(identity);
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        self.is_regular
            && match (named, self.file.metadata().map(identity)) {
                (Ok(named), Ok(open)) => named != open,
                (Err(error), _) => missing(&error),
                (Ok(_), Err(_)) => false,
            }
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        if self.is_regular {
            // Before the new file wants its own.
            self.reserve.give_back(&self.file);
        }
        let mut opened = Self::open_unlocked(&self.path)?;
        opened.lock = self.lock.take();
        *self = opened;
        self.end_torn_line().map_err(|error| OpenError { path: self.path.clone(), problem: Problem::Open(error) })?;
        self.keep_room();
        Ok(())
    }

    fn keep_room(&mut self) {
        if self.is_regular {
            self.reserve.keep(&self.file);
        }
    }

    fn before(&self) -> Before {
        if !self.is_regular {
            return Before::default();
        }
        let path = self.path.display();
        let unread = |error: io::Error| tracing::error!(%error, "the end of the audit log {path} cannot be read");
        let tail = Tail::of(&self.file).map_err(unread).unwrap_or_default();
        let unread = |error: io::Error| tracing::error!(%error, "the head of the audit log {path} cannot be read");
        let noted = match Note::read(&self.path).map_err(unread) {
            Ok(Some(note)) => Noted::To(note.mark),
            Ok(None) => Noted::Nothing,
            Err(()) => Noted::Unreadable,
        };
        Before { tail, noted }
    }

    fn bytes(&self) -> u64 {
        if self.is_regular { self.file.metadata().map_or(0, |metadata| metadata.len()) } else { 0 }
    }

    fn rotate(&mut self, time: SystemTime, seq: u64, keep_files: u32) -> Result<Surplus, OpenError> {
        let fail = |error| OpenError { path: self.path.clone(), problem: Problem::Rename(error) };
        let newest = rotation::rename(&self.path, time, seq).map_err(fail)?;
        self.reopen()?;
        let unread = |error| tracing::error!(%error, "the oldest files of the audit log are not removed");
        Ok(rotation::surplus(&self.path, &newest, keep_files).map_err(unread).unwrap_or_default())
    }

    fn remove(&self, surplus: Surplus) {
        for path in surplus.files {
            let file = path.display();
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(%file, "removed an old file of the audit log"),
                Err(error) => tracing::error!(%file, %error, "an old file of the audit log is not removed"),
            }
        }
    }

    fn keep(&self, note: &Note) -> io::Result<()> {
        if self.is_regular { note.write(&self.path) } else { Ok(()) }
    }
}

fn blocking(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

/// Whoever may write to the directory may replace the log: nobody may but its owner and the server's own group. In a
/// sticky one others may not touch what is there; the answer is whether it is such.
pub(super) fn check_directory(path: &Path) -> Result<bool, Problem> {
    let directory = rotation::directory(path);
    let metadata = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => metadata,
        _ => return Err(Problem::NoDirectory(directory.to_owned())),
    };
    let mode = metadata.permissions().mode();
    // A volume of Kubernetes is its group's (fsGroup), which is that of the server alone.
    let is_foreign_group = metadata.gid() != rustix::process::getegid().as_raw();
    let others_may_write = mode & 0o002 != 0 || (mode & 0o020 != 0 && is_foreign_group);
    let sticky = mode & 0o1000 != 0;
    if others_may_write && !sticky { Err(Problem::OpenDirectory(directory.to_owned())) } else { Ok(others_may_write) }
}

pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::reserve::RESERVE_BYTES;

    #[test]
    fn one_process_writes_a_file_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let mut sink = FileSink::open(&path).expect("opens");
        let error = FileSink::open(&path).expect_err("it is in use").to_string();
        assert!(error.contains("another process writes it"), "{error}");
        sink.reopen().expect("its own");
        FileSink::open(&path).expect_err("it still is");
        // As who rotates it does.
        fs::rename(&path, directory.path().join("aside")).expect("renamed");
        FileSink::open(&path).expect_err("the log is in use, not a file of it");
        sink.reopen().expect("goes on in a new file");
        FileSink::open(&path).expect_err("it still is");
        drop(sink);
        FileSink::open(&path).expect("it is not any more");
    }

    #[test]
    fn the_file_is_the_owners_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        FileSink::open(&path).expect("a new file");
        assert_eq!(fs::metadata(&path).expect("the file").mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("chmod");
        assert!(FileSink::open(&path).expect_err("others can write").to_string().contains("chmod 0600"));
    }

    #[test]
    fn a_directory_open_to_all_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let error = FileSink::open(&directory.path().join("a")).expect_err("others can write");
        assert!(error.to_string().contains("others can write to its directory"), "{error}");
        let error = FileSink::open(&directory.path().join("none/a")).expect_err("no directory");
        assert!(error.to_string().contains("does not exist"), "{error}");
        let error = FileSink::open(directory.path()).expect_err("a directory");
        assert!(error.to_string().contains("is a directory"), "{error}");
    }

    #[test]
    fn a_directory_open_to_another_group_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).expect("chmod");
        FileSink::open(&path).expect("the group is the server's own");
        // Only root may give a directory away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), None, Some(4_711)).expect("chgrp");
            let error = FileSink::open(&path).expect_err("others can write");
            assert!(error.to_string().contains("others can write to its directory"), "{error}");
        }
    }

    #[test]
    fn a_link_is_followed_only_where_the_operator_alone_can_have_made_it() {
        let (directory, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("another"));
        let (link, target) = (directory.path().join("a"), elsewhere.path().join("a"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        FileSink::open(&link).expect("the operator's own");
        fs::write(&target, "before\n").expect("there");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).expect("chmod");
        let error = FileSink::open(&link).expect_err("anybody's");
        assert!(error.to_string().contains("somebody else's file or link"), "{error}");
        assert_eq!(fs::read_to_string(&target).expect("there"), "before\n");
        fs::remove_file(&link).expect("removed");
        FileSink::open(&link).expect("a new file");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&link, Some(4_711), None).expect("chown");
            FileSink::open(&link).expect_err("prepared by somebody");
        }
    }

    #[test]
    fn a_pipe_without_a_reader_is_refused_and_one_with_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        let (opened, outcome) = std::sync::mpsc::channel();
        let opening = path.clone();
        std::thread::spawn(move || opened.send(FileSink::open(&opening).map(drop)));
        let error = outcome.recv_timeout(std::time::Duration::from_secs(60)).expect("opening does not wait");
        assert!(error.expect_err("no reader").to_string().contains("nobody reads"));

        let _reader = OpenOptions::new().read(true).write(true).open(&path).expect("both ends");
        let sink = FileSink::open(&path).expect("a reader");
        assert!(!fcntl_getfl(&sink.file).expect("flags").contains(OFlags::NONBLOCK), "a full pipe is waited for");
    }

    #[test]
    fn room_is_kept_in_the_file_that_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, aside) = (directory.path().join("a"), directory.path().join("b"));
        let mut sink = FileSink::open(&path).expect("opens");
        let taken = |path: &Path| fs::metadata(path).expect("there").blocks() * 512;
        if taken(&path) == 0 {
            // A file system that cannot.
            return;
        }
        sink.write(b"{}").expect("written");
        assert!(sink.cut_back(2), "which frees the room");
        sink.keep_room();
        assert!(taken(&path) >= RESERVE_BYTES, "{}", taken(&path));
        fs::rename(&path, &aside).expect("renamed");
        sink.reopen().expect("opens");
        assert!(taken(&path) >= RESERVE_BYTES && taken(&aside) == 0, "{} {}", taken(&path), taken(&aside));
    }

    #[test]
    fn a_torn_last_line_is_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        fs::write(&path, "{\"seq\":1}\n{\"se").expect("a torn file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        for _ in 0..2 {
            FileSink::open(&path).expect("opens");
            assert_eq!(fs::read_to_string(&path).expect("text"), "{\"seq\":1}\n{\"se\n");
        }
    }
}
