//! What the store asks of the disk, so that tests can make it fail.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Mode of every file of the store: it holds sealed records, but the names are plain.
const FILE_MODE: u32 = 0o600;

/// Files and directories. Everything that must survive a power loss goes through here.
pub(super) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a file, which must not exist, for its owner alone.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of what has that.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Opens a directory, to make its created and removed entries durable. Whoever must be able to do that at any time
    /// keeps it open: opening it can fail for want of a descriptor.
    fn directory(&self, path: &Path) -> io::Result<Box<dyn DiskDirectory>>;
    /// Makes created and removed entries of a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.directory(path)?.sync()
    }
    /// The room of the file system that holds a directory.
    fn room(&self, path: &Path) -> io::Result<Room>;
}

/// A file open for writing.
pub(super) trait DiskFile: fmt::Debug + Send {
    /// Writes all bytes at an offset. After an error any part of them may stand.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and size durable. After an error what stands is not known, and a second try tells nothing: the
    /// kernel has forgotten which pages it failed to write.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Its size, in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// A directory, open.
pub(super) trait DiskDirectory: fmt::Debug + Send {
    /// Makes its created and removed entries durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Bytes of a file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Free for this process.
    pub(super) free_bytes: u64,
    /// In total.
    pub(super) total_bytes: u64,
}

/// Whether an error says that there is no room. Nothing else may be answered with "full".
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn directory(&self, path: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        Ok(Box::new(Directory(File::open(path)?)))
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Room { free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) })
    }
}

#[derive(Debug)]
struct Directory(File);

impl DiskDirectory for Directory {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl DiskFile for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
