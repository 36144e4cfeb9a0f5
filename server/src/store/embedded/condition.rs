//! How the store is, for its operator.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    time::SystemTime,
};

use async_trait::async_trait;

use super::{
    Embedded, Passing,
    layout::Layout,
    log::segment_revisions,
    snapshots::{self, Kept},
    writer::Request,
};
use crate::store::{Backup, CHUNK_BYTES, Chunks, Condition, Epoch, Error, Position, Revision, Snapshot, Writes};

/// What this kind of store is called.
pub(super) const KIND: &str = "embedded";

/// Looks at directories, not into files: quick, whatever they hold.
pub(super) fn of(store: &Embedded) -> Condition {
    Condition {
        kind: KIND,
        writes: writes(store),
        oldest: oldest(&store.layout, store.history.head().epoch),
        history_bytes: bytes(&store.layout),
        history_problem: None,
        free_bytes: store.space.free_bytes(),
    }
}

/// Which writes pass, by what the log's thread asks itself before it takes any.
pub(super) fn writes(store: &Embedded) -> Writes {
    if store.progress.is_refusing() {
        // Nothing else might be written for long. If its queue is full, what waits there tells the same.
        let _ = store.requests.try_send(Request::Probe);
    }
    match store.progress.moves() {
        Err(error) => Writes::Nothing(error.to_string()),
        Ok(()) => match store.space.ask(store.progress.behind_bytes()) {
            Passing::All => Writes::All,
            Passing::Deletes(why) => Writes::Deletes(why),
            Passing::Nothing(why) => Writes::Nothing(why),
        },
    }
}

/// The earliest position that can be restored, and its time.
pub(super) fn oldest(layout: &Layout, epoch: Epoch) -> Option<(Position, Option<SystemTime>)> {
    let begins = segment_revisions(&layout.log()).ok()?.first().copied()?;
    if begins == Revision(1) {
        return Some((Position { epoch, revision: Revision(0) }, None));
    }
    // What the log does not reach back to is a position of its own, from which nothing follows.
    let kept = snapshots::list(&layout.snapshots()).ok()?;
    let oldest = kept.iter().find(|kept| begins.0 <= kept.position.revision.0 + 1)?;
    oldest.look().ok().map(|snapshot| (snapshot.position, snapshot.time))
}

/// Size of the log and of all snapshots, in bytes.
pub(super) fn bytes(layout: &Layout) -> u64 {
    let entries = [layout.log(), layout.snapshots()].into_iter().flat_map(fs::read_dir).flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// What stands in the directory, as far as it can be read.
pub(super) fn snapshots(directory: &Path) -> Result<Vec<Snapshot>, Error> {
    let kept = snapshots::list(directory).map_err(|error| Error::Unavailable(error.to_string()))?;
    let looked = kept
        .iter()
        .map(Kept::look)
        .filter_map(|looked| looked.inspect_err(|error| tracing::warn!(%error, "a snapshot cannot be listed")).ok());
    Ok(looked.collect())
}

/// The file of a snapshot, as chunks. Open it is there to its end, whatever becomes of its name.
pub(super) async fn backup(directory: &Path, snapshot: Snapshot) -> Result<Backup, Error> {
    let path = snapshots::path(directory, snapshot.position);
    let failed = move |error: std::io::Error| Error::Unavailable(format!("{}: {error}", path.display()));
    let path = snapshots::path(directory, snapshot.position);
    let file = tokio::task::spawn_blocking(move || File::open(path)).await;
    let file = file.map_err(|_| Error::Unavailable("the snapshot cannot be read".into()))?.map_err(failed)?;
    Ok(Backup { snapshot, chunks: Box::new(FileChunks(Some(file))) })
}

struct FileChunks(Option<File>);

#[async_trait]
impl Chunks for FileChunks {
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.0.take() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
            (file, read.map(|_| chunk))
        });
        let (file, chunk) = read.await.map_err(|_| Error::Unavailable("the snapshot cannot be read".into()))?;
        let chunk = chunk.map_err(|error| Error::Unavailable(format!("reading the snapshot: {error}")))?;
        if chunk.is_empty() {
            return Ok(None);
        }
        self.0 = Some(file);
        Ok(Some(chunk))
    }
}
