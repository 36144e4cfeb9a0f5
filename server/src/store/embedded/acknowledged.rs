//! How far the log has come, said beside it: a log whose end is missing looks like one that a crash cut short.
//!
//! It is written when a group is durable and before it is answered, and never synced: after a power loss it may be behind
//! the log, but never ahead of it. So it proves that something is missing, and not that nothing is.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
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
    disk: Arc<dyn Disk>,
    /// None while it cannot be written: what it says meanwhile stays true.
    file: Option<Box<dyn DiskFile>>,
    warned: bool,
}

impl Acknowledged {
    /// Begins where the log ends.
    pub(super) fn begin(layout: &Layout, disk: Arc<dyn Disk>, at: &Checkpoint) -> Self {
        let mut begun = Self { path: layout.acknowledged(), disk, file: None, warned: false };
        begun.set(at);
        begun
    }

    /// The log has come so far. What failed before is tried again each time.
    pub(super) fn set(&mut self, at: &Checkpoint) {
        let written = self.write(at);
        let file = self.path.display();
        match written {
            Ok(()) if self.warned => tracing::info!(%file, "how far the log has come is noted again"),
            Err(error) if !self.warned => tracing::warn!(
                %error, %file,
                "how far the log has come is not noted for now; an end that goes missing may not be missed"
            ),
            Ok(()) | Err(_) => {}
        }
        self.warned = self.file.is_none();
    }

    fn write(&mut self, at: &Checkpoint) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => match self.disk.open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&self.path)?,
                opened => opened?,
            },
        };
        file.write_at(0, &at.encode())?;
        self.file = Some(file);
        Ok(())
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
