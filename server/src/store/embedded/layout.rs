//! The directory of a store, and who may touch it.
//!
//! ```text
//! DIR/format                           the format's version and the store's random instance; made last
//! DIR/format.new                       the same, while the rest is being made: what is there then is no store yet
//! DIR/lock                             locked while a process has the store open
//! DIR/acknowledged                     how far the log has come, so that an end that is missing is missed
//! DIR/log/00000000000000000001.log …   the log's segments, by their first revision
//! DIR/snapshots/…                      the store at earlier positions
//! DIR/sled/                            sled's files
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    disk::{Disk, DiskFile},
    log::segment::{self, Origin},
};
use crate::{
    lock,
    store::{Epoch, Millis, Revision, careful, snapshot},
};

/// The format that this version writes, and the newest it reads.
const FORMAT: u32 = 2;
/// More than a format file ever has.
const FORMAT_BYTES_MAX: u64 = 1_024;
/// More than any segment has, in bytes: one ends at 64 MiB, unless the disk has no room for the next.
pub(super) const SEGMENT_BYTES_MAX: u64 = 256 << 20;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why a store cannot be opened or created. One line each, which names the file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle in this one, has it open.
    #[error("{}: the store is in use by another process", .0.display())]
    InUse(PathBuf),
    /// There is none.
    #[error("{}: there is no store here", .0.display())]
    Missing(PathBuf),
    /// There is one already, or something that looks like the remains of one.
    #[error("{}: there is already a store here, or parts of one", .0.display())]
    Exists(PathBuf),
    /// One was being made, and that was interrupted. Nothing was ever in it.
    #[error("{}: a store was begun here and never finished", .0.display())]
    Unfinished(PathBuf),
    /// A newer version wrote it. It was not touched.
    #[error(
        "{}: the store has format {found}, and this version reads formats up to {FORMAT}: use a newer one",
        .dir.display()
    )]
    Newer {
        /// The store.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is of before the first release. It was not touched.
    #[error("{}: the store has format {found}, of before the first release, which is not read", .dir.display())]
    Older {
        /// The store.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// What stands there is not what was written. It was not touched.
    #[error("{}: damaged: {what}", .file.display())]
    Damaged {
        /// The file or directory.
        file: PathBuf,
        /// Where in it, and what is wrong.
        what: String,
    },
    /// It is what a server recorded of a store in etcd, in which nothing else can be done.
    #[error("{}: this is the history that a server keeps of a store in etcd, not a store: restore it", .0.display())]
    History(PathBuf),
    /// The system refused something.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: says which path an I/O error is about.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { path: path.into(), source }
    }

    /// For `map_err`: what is wrong with reading a file of the store.
    pub(super) fn unread(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |error| match careful::is_strange(&error) {
            true => Self::damaged(path, error),
            false => Self::at(path)(error),
        }
    }

    /// For `map_err`: what is wrong with a snapshot, or why it could not be read.
    pub(super) fn of_snapshot(path: &Path) -> impl FnOnce(snapshot::Damage) -> Self {
        |damage| match damage.refused {
            Some(errno) => Self::at(path)(io::Error::from_raw_os_error(errno)),
            None => Self::damaged(path, damage),
        }
    }

    pub(super) fn damaged(file: &Path, what: impl ToString) -> Self {
        Self::Damaged { file: file.into(), what: what.to_string() }
    }
}

/// Where a store's files are.
#[derive(Clone, Debug)]
pub(super) struct Layout(PathBuf);

/// Held by everything that may touch the store's files; the last one dropped lets the next process in.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

impl Layout {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(super) fn sled(&self) -> PathBuf {
        self.0.join("sled")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    pub(super) fn format(&self) -> PathBuf {
        self.0.join("format")
    }

    pub(super) fn acknowledged(&self) -> PathBuf {
        self.0.join("acknowledged")
    }

    /// Stands before anything else does, and becomes the format: what is beside it was made by whoever made it.
    fn unfinished(&self) -> PathBuf {
        self.0.join("format.new")
    }

    fn parts(&self) -> [PathBuf; 4] {
        [self.log(), self.sled(), self.snapshots(), self.acknowledged()]
    }

    /// Creates an empty store of a new instance.
    pub(super) fn create(&self, instance: [u8; 16], disk: &dyn Disk) -> Result<(), OpenError> {
        let (epoch, first) = (Epoch(1), Revision(1));
        let begin = segment::Header { origin: Origin::Own, instance, epoch, first, time: Millis(0), chain: 0 };
        self.create_with(&begin, disk, || Ok(()))
    }

    /// Creates a store whose log begins so, on what `fill` puts there.
    ///
    /// The format file comes last: a creation that was interrupted left no store, and one without it is never taken for
    /// an empty one. What such a creation left is removed by the next one, and what this one made if it fails; nothing
    /// else ever is.
    pub(super) fn create_with(
        &self,
        begin: &segment::Header,
        disk: &dyn Disk,
        fill: impl FnOnce() -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        create_directory(&self.0)?;
        // Before the lock, too: where it cannot be had there may be a store all the same.
        self.check_vacant()?;
        let _lock = self.lock()?;
        self.check_vacant()?;
        self.remove_unfinished()?;
        let unfinished = self.unfinished();
        let format = format!("coffer store {FORMAT}\ninstance {:032x}\n", u128::from_be_bytes(begin.instance));
        let create = || {
            create_file(disk, &unfinished, format.as_bytes()).map_err(OpenError::at(&unfinished))?;
            fill()?;
            create_directory(&self.log())?;
            let segment = segment_path(&self.log(), begin.first);
            create_file(disk, &segment, &segment::encode_header(begin)).map_err(OpenError::at(&segment))?;
            fs::rename(&unfinished, self.format()).map_err(OpenError::at(&self.format()))
        };
        if let Err(error) = create() {
            if let Err(remains) = self.remove_unfinished() {
                tracing::warn!(error = %remains, "what was made of a store is not removed");
            }
            return Err(error);
        }
        disk.sync_directory(&self.0).map_err(OpenError::at(&self.0))?;
        let parent = self.0.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_directory(parent).map_err(OpenError::at(parent))
    }

    /// Whether nothing of a store is here, but for what an interrupted creation left.
    fn check_vacant(&self) -> Result<(), OpenError> {
        let exists = |path: PathBuf| path.try_exists().map_err(OpenError::at(&path));
        let is_ours = exists(self.unfinished())?;
        for part in self.parts() {
            if exists(part)? && !is_ours {
                return Err(OpenError::Exists(self.0.clone()));
            }
        }
        if exists(self.format())? { Err(OpenError::Exists(self.0.clone())) } else { Ok(()) }
    }

    /// Removes what a creation made that has not come to its end, if one has begun.
    fn remove_unfinished(&self) -> Result<(), OpenError> {
        let unfinished = self.unfinished();
        if !unfinished.try_exists().map_err(OpenError::at(&unfinished))? {
            return Ok(());
        }
        for part in self.parts() {
            let removed = if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(OpenError::at(&part)(error)),
                _ => {}
            }
        }
        fs::remove_file(&unfinished).map_err(OpenError::at(&unfinished))
    }

    /// The instance of the store here. Changes nothing.
    pub(super) fn instance(&self) -> Result<[u8; 16], OpenError> {
        let path = self.format();
        let text = match careful::open_own(&path).and_then(|file| careful::read(&file, FORMAT_BYTES_MAX)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.without_format()),
            Err(error) => return Err(OpenError::unread(&path)(error)),
        };
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let found: u32 = first
            .strip_prefix("coffer store ")
            .and_then(|version| version.parse().ok())
            .ok_or_else(|| OpenError::damaged(&path, "its first line is not a format"))?;
        if found > FORMAT {
            return Err(OpenError::Newer { dir: self.0.clone(), found });
        }
        if (1..FORMAT).contains(&found) {
            return Err(OpenError::Older { dir: self.0.clone(), found });
        }
        rest.strip_prefix("instance ")
            .and_then(|line| line.strip_suffix('\n'))
            .filter(|digits| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u128::from_str_radix(digits, 16).ok())
            .map(u128::to_be_bytes)
            .filter(|_| found == FORMAT)
            .ok_or_else(|| OpenError::damaged(&path, "it does not name the store's instance"))
    }

    fn without_format(&self) -> OpenError {
        if self.unfinished().exists() {
            return OpenError::Unfinished(self.0.clone());
        }
        match self.log().exists() || self.sled().exists() {
            true => OpenError::damaged(&self.format(), "it is missing, and other parts of a store are there"),
            false => OpenError::Missing(self.0.clone()),
        }
    }

    /// Locks the store for this process, or says that it is in use.
    pub(super) fn lock(&self) -> Result<Lock, OpenError> {
        let path = self.0.join("lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE_MODE);
        // Neither a pipe's reader is waited for nor a link followed.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32);
        let file = options.open(&path).map_err(OpenError::at(&path))?;
        self.locked(lock::take(|| file.try_lock()), file)
    }

    /// Locks the store for one who only reads it, which may be from a medium that nobody can write. A copy may come without
    /// its lock: then no process has it open either, and none is made.
    pub(super) fn lock_to_read(&self) -> Result<Option<Lock>, OpenError> {
        let path = self.0.join("lock");
        let file = match careful::open_own(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::at(&path)(error)),
        };
        self.locked(lock::take(|| file.try_lock_shared()), file).map(Some)
    }

    fn locked(&self, outcome: Result<(), TryLockError>, file: File) -> Result<Lock, OpenError> {
        match outcome {
            Ok(()) => Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(self.0.clone())),
            Err(TryLockError::Error(error)) => Err(OpenError::at(&self.0.join("lock"))(error)),
        }
    }
}

/// A segment's file.
pub(super) fn segment_path(log: &Path, first: Revision) -> PathBuf {
    log.join(format!("{:020}.log", first.0))
}

/// Creates a file with its first bytes; the file and its directory are durable afterwards.
pub(super) fn create_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let mut file = disk.create(path)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

/// Creates a directory and those above it, for its owner alone. One that exists is left as it is.
pub(super) fn create_directory(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(OpenError::at(path))
}

/// Takes everyone but the owner out of files that were created without asking us.
pub(super) fn restrict(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => restrict(&entry.path())?,
            kind if kind.is_file() => fs::set_permissions(entry.path(), fs::Permissions::from_mode(FILE_MODE))?,
            _ => {}
        }
    }
    Ok(())
}

/// A segment's content, and its file.
pub(super) fn read_segment(path: &Path) -> io::Result<(Vec<u8>, File)> {
    let file = careful::open_own(path)?;
    Ok((careful::read(&file, SEGMENT_BYTES_MAX)?, file))
}
