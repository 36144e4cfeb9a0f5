//! Keeps two processes from writing one log: its chain would break.
//!
//! What is locked is a file of its own beside the log, which stays where it is when the log is rotated.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

use super::sink::{Problem, check_directory, is_trusted};

/// How long a process that is ending may still hold it.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Before it is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// The lock of a log, which ends with the file; nothing where none can be made, or the file system has none.
#[allow(clippy::disallowed_methods, reason = "a lock can be waited for with a deadline in no other way")]
pub(super) fn take(log: &Path) -> Result<Option<File>, Problem> {
    let is_shared = check_directory(log)?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits() as i32);
    let file = match options.open(path(log)) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(%error, lock = %path(log).display(), "the audit log is not locked");
            return Ok(None);
        }
    };
    if is_shared && file.metadata().map_or(true, |metadata| !is_trusted(metadata.uid())) {
        return Err(Problem::Strange);
    }
    let began = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if began.elapsed() < WAIT_MAX => thread::sleep(AGAIN),
            Err(Errno::WOULDBLOCK) => return Err(Problem::InUse),
            Err(error) => {
                tracing::warn!(%error, lock = %path(log).display(), "the audit log is not locked");
                return Ok(None);
            }
        }
    }
}

fn path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
