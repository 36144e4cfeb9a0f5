//! How far the log has come, said beside it: a log whose end is missing looks like one that a crash cut short.
//!
//! It is written when a group is durable and before it is answered, and never synced: after a power loss it may be behind
//! the log, but never ahead of it. So it proves that something is missing, and not that nothing is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    checkpoint::{BYTES, Checkpoint},
    disk::{Disk, DiskFile},
    layout::{Layout, OpenError},
    log::Recovered,
};
use crate::store::{Position, Revision};

/// Follows the log.
#[derive(Debug)]
pub(super) struct Acknowledged {
    path: PathBuf,
    /// None once it could not be written: what it says then stays true.
    file: Option<Box<dyn DiskFile>>,
}

impl Acknowledged {
    /// Begins where the log ends.
    pub(super) fn begin(layout: &Layout, disk: &dyn Disk, at: &Checkpoint) -> Self {
        let path = layout.acknowledged();
        let opened = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path),
            opened => opened,
        };
        let mut begun = Self { path, file: None };
        match opened {
            Ok(file) => {
                begun.file = Some(file);
                begun.set(at);
            }
            Err(error) => begun.give_up(&error),
        }
        begun
    }

    /// The log has come so far.
    pub(super) fn set(&mut self, at: &Checkpoint) {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_at(0, &at.encode()));
        if let Err(error) = written {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        self.file = None;
        let file = self.path.display();
        tracing::warn!(%error, %file, "how far the log has come is not noted; an end that goes missing may not be missed");
    }
}

/// A revision that was acknowledged. Nothing if nobody noted one, or the note is of another store.
pub(super) fn read(layout: &Layout, instance: [u8; 16]) -> Option<Position> {
    let checkpoint = Checkpoint::decode(&content(&layout.acknowledged())?)?;
    (checkpoint.instance == instance).then_some(checkpoint.position)
}

/// Whatever else lies there is not waited for and not read to its end.
fn content(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).ok()?;
    if metadata.is_file() && metadata.len() == BYTES as u64 { fs::read(path).ok() } else { None }
}

/// Refuses a log that ends before what was acknowledged. Returns a revision that was.
pub(super) fn check(layout: &Layout, recovered: &Recovered, instance: [u8; 16]) -> Result<Option<Revision>, OpenError> {
    let Some(Position { epoch, revision }) = read(layout, instance) else { return Ok(None) };
    if epoch != recovered.epoch() {
        return Ok(None);
    }
    let (offset, end) = (recovered.end(), recovered.last());
    if revision > end {
        let what = format!(
            "offset {offset}: the log ends at revision {}, and {} was acknowledged: acknowledged transactions are missing",
            end.0, revision.0
        );
        return Err(OpenError::damaged(&recovered.current_path(), what));
    }
    Ok(Some(revision))
}
