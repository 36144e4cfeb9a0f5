//! Keeps two processes from writing one log: its chain would break.
//!
//! What is locked is a file of its own beside the log, which stays where it is when the log is rotated.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::sink::{Problem, check_directory, is_trusted};
use crate::lock;

/// The lock of a log, which ends with the file; nothing where none can be made, or the file system has none.
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
    match lock::take(|| file.try_lock()) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Problem::InUse),
        Err(error) => {
            tracing::warn!(%error, lock = %path(log).display(), "the audit log is not locked");
            Ok(None)
        }
    }
}

fn path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
