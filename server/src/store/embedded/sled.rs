//! The records in sled. The only file that names it.
//!
//! The rules for sled 0.34.7, each learnt by measuring:
//! - `flush()` is not a sync: on Linux it is `sync_file_range`. After it, `fdatasync` on a descriptor of our own.
//! - Items over a quarter of a segment go to blob files that are never synced: segments of 8 MiB, records far smaller.
//! - One tree, one writer, batches of at most about 1 MiB, no background flush, a bounded cache.
//! - Never `flush_async` (deadlocks), `transaction`, `generate_id` (repeats after a crash), `export`.
//! - It takes a snapshot of its own that a crash left unfinished (`snap.….generating`) for a whole one and does not open:
//!   such a file is removed first.
//! - Opening it writes. What the system refuses then (no room, no descriptors) says nothing of what it holds.
//! - Its first I/O error blocks every later write, and it may panic: the log is the truth, sled only follows it.

use std::{
    fmt,
    fs::{self, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use super::{
    checkpoint::Checkpoint,
    disk::{Disk, DiskFile},
    index::{Digest, Writes},
    layout::{Lock, OpenError, create_directory, restrict},
};
use crate::store::{Key, Record, Revision, careful};

const SEGMENT_BYTES: usize = 8 << 20;
/// Largest cache, in bytes, whatever is asked for.
pub(super) const CACHE_BYTES_MAX: u64 = 256 << 20;

/// Longest wait for an earlier sled of this process to let go of its file.
const REMAINS_PATIENCE: Duration = Duration::from_secs(10);
const REMAINS_PAUSE: Duration = Duration::from_millis(1);

/// The checkpoint's key. No record's: those begin with [`RECORD`].
const CHECKPOINT: &[u8] = b"checkpoint";
/// What a record's key begins with.
const RECORD: u8 = b'r';
/// What the name of a snapshot that sled has not finished ends with.
const UNFINISHED: &[u8] = b".generating";
/// Before a record's bytes: its revision and the CRC-32 of key, revision and bytes.
const RECORD_HEADER_BYTES: usize = 8 + 4;

/// Sled, open.
pub(super) struct Records {
    db: ::sled::Db,
    /// Sled's file, on a descriptor of our own.
    file: Mutex<Box<dyn DiskFile>>,
    /// Shared by those who read records of one position, exclusive for the next group.
    gate: RwLock<()>,
    path: PathBuf,
    /// After `db`, so that it is let go when sled is closed.
    _lock: Arc<Lock>,
}

impl Records {
    /// Opens what is there, or creates it empty.
    pub(super) fn open(path: &Path, cache_bytes: u64, disk: &dyn Disk, lock: Arc<Lock>) -> Result<Self, OpenError> {
        create_directory(path)?;
        let data = path.join("db");
        wait_for_remains(&data)?;
        remove_unfinished(path).map_err(OpenError::at(path))?;
        let config = ::sled::Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes.min(CACHE_BYTES_MAX))
            .flush_every_ms(None);
        let db = guard(|| config.open()).map_err(|fault| fault.of(path))?;
        restrict(path).map_err(OpenError::at(path))?;
        let file = disk.open(&data).map_err(OpenError::at(&data))?;
        for directory in [Some(path), path.parent()].into_iter().flatten() {
            disk.sync_directory(directory).map_err(OpenError::at(directory))?;
        }
        Ok(Self { db, file: Mutex::new(file), gate: RwLock::new(()), path: path.into(), _lock: lock })
    }

    /// Closes sled and waits until its files are at rest, unless a load still reads them.
    pub(super) fn close(self: Arc<Self>) -> Result<(), OpenError> {
        let Some(Self { db, file, path, _lock: lock, .. }) = Arc::into_inner(self) else { return Ok(()) };
        drop((db, file));
        wait_for_remains(&path.join("db"))?;
        drop(lock);
        Ok(())
    }

    /// How far it has come, if it has begun.
    pub(super) fn checkpoint(&self) -> Result<Option<Checkpoint>, Fault> {
        match guard(|| self.db.get(CHECKPOINT))? {
            Some(bytes) => {
                Checkpoint::decode(&bytes).map(Some).ok_or_else(|| Fault::Damage("the checkpoint is damaged".into()))
            }
            None => Ok(None),
        }
    }

    /// Applies a group, whole, and makes it durable. One caller at a time; after an error it must not be called again.
    pub(super) fn apply(&self, writes: &Writes, checkpoint: &Checkpoint) -> Result<(), String> {
        let mut batch = ::sled::Batch::default();
        for (key, write) in writes {
            match write {
                Some((revision, value)) => batch.insert(key_bytes(key), encode(key, *revision, value)),
                None => batch.remove(key_bytes(key)),
            }
        }
        batch.insert(CHECKPOINT, checkpoint.encode());
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        guard(|| {
            self.db.apply_batch(batch)?;
            self.db.flush().map(drop)
        })?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.sync().map_err(|error| format!("{}: {error}", self.path.join("db").display()))
    }

    /// Gives all records, ordered by key, to `each`, until it returns `false`; `begin` is told their position first,
    /// and nothing is applied meanwhile. `Ok(true)`: these are all, and they are the right ones.
    pub(super) fn read(
        &self,
        begin: impl FnOnce(Option<Checkpoint>),
        mut each: impl FnMut(Record) -> bool,
    ) -> Result<bool, Fault> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let checkpoint = self.checkpoint()?;
        begin(checkpoint);
        let mut digest = Digest::default();
        let mut records = guard(|| Ok(self.db.scan_prefix([RECORD])))?;
        while let Some((key, value)) = guard(|| records.next().transpose())? {
            let record = decode(&key, &value).ok_or_else(|| {
                let key = String::from_utf8_lossy(&key[1..]);
                Fault::Damage(format!("the record {} does not match its checksum", key.escape_debug()))
            })?;
            digest.add(&record.key, record.revision);
            if !each(record) {
                return Ok(false);
            }
        }
        let expected = checkpoint.map(|checkpoint| checkpoint.digest).unwrap_or_default();
        if digest == expected {
            return Ok(true);
        }
        let what =
            format!("these are not its records: {} where the checkpoint has {}", digest.records, expected.records);
        Err(Fault::Damage(what))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Whether sled has files here.
pub(super) fn exists(path: &Path) -> bool {
    fs::exists(path.join("db")).unwrap_or(true)
}

/// Removes what sled was writing when a crash came, and would read as if it were whole. Sled makes it again from its file.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().ends_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
            tracing::info!(file = %entry.path().display(), "removed what sled had not finished");
        }
    }
    Ok(())
}

/// Sled's own threads outlive its handle for a moment, with its file open and locked. Our lock says that no other process
/// can have it, so what has it is on its way out, and is waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "flock tells nobody that it is free again, so it is asked, with a deadline"
)]
fn wait_for_remains(data: &Path) -> Result<(), OpenError> {
    let until = Instant::now() + REMAINS_PATIENCE;
    loop {
        let file = match careful::open(data) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(OpenError::unread(data)(error)),
        };
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(REMAINS_PAUSE),
            Err(error) => return Err(OpenError::at(data)(error.into())),
        }
    }
}

/// Why sled did not do something.
#[derive(Debug)]
pub(super) enum Fault {
    /// The system refused: what sled holds may be whole.
    System(io::Error),
    /// What it holds is not what was written, as far as it can tell.
    Damage(String),
}

impl Fault {
    /// The same of a sled in a directory.
    pub(super) fn of(self, path: &Path) -> OpenError {
        match self {
            Self::System(error) => OpenError::at(path)(error),
            Self::Damage(what) => OpenError::damaged(path, what),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Damage(what) => what.fmt(f),
        }
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

impl From<::sled::Error> for Fault {
    fn from(error: ::sled::Error) -> Self {
        match error {
            ::sled::Error::Io(error) if is_of_the_system(&error) => Self::System(error),
            error => Self::Damage(error.to_string()),
        }
    }
}

/// Whether the system refused, whatever the bytes are. Sled turns damage into I/O errors, too, such as an end too early;
/// and it hands on copies of errors, which have kept their kind alone.
fn is_of_the_system(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const REFUSALS: [Errno; 10] = [
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::ROFS,
        Errno::NOMEM,
        Errno::ACCESS,
        Errno::STALE,
        // Of no kind that std names, as each other's.
        Errno::IO,
        Errno::MFILE,
        Errno::NFILE,
    ];
    REFUSALS.iter().any(|refusal| io::Error::from(*refusal).kind() == error.kind())
}

/// Sled panics on damage it did not expect; here a panic is one more error.
fn guard<T>(run: impl FnOnce() -> ::sled::Result<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(Fault::from),
        Err(_) => Err(Fault::Damage("sled panicked".into())),
    }
}

fn key_bytes(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.as_str().len());
    bytes.push(RECORD);
    bytes.extend(key.as_str().as_bytes());
    bytes
}

fn encode(key: &Key, revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + value.len());
    bytes.extend(revision.0.to_le_bytes());
    bytes.extend(checksum(key, revision, value).to_le_bytes());
    bytes.extend(value);
    bytes
}

fn decode(key: &[u8], bytes: &[u8]) -> Option<Record> {
    let key = Key::new(std::str::from_utf8(key.get(1..)?).ok()?);
    let (header, value) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let revision = Revision(u64::from_le_bytes(*header.first_chunk()?));
    let stored = u32::from_le_bytes(*header.last_chunk()?);
    (checksum(&key, revision, value) == stored).then(|| Record { key, value: value.into(), revision })
}

fn checksum(key: &Key, revision: Revision, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_str().as_bytes());
    hasher.update(&revision.0.to_le_bytes());
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_is_no_damage() {
        for refusal in [rustix::io::Errno::NOSPC, rustix::io::Errno::IO, rustix::io::Errno::MFILE] {
            let error = ::sled::Error::Io(refusal.into());
            let copy = error.clone();
            for error in [error, copy] {
                assert!(matches!(Fault::from(error), Fault::System(_)), "{refusal}");
            }
        }
        let refused = Fault::from(::sled::Error::Io(io::ErrorKind::StorageFull.into())).of(Path::new("sled"));
        assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::InvalidData, io::ErrorKind::NotFound] {
            assert!(matches!(Fault::from(::sled::Error::Io(kind.into())), Fault::Damage(_)), "{kind}");
        }
    }
}
