//! Streams all records of one position.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{checkpoint::Checkpoint, progress::Progress, sled::Records};
use crate::store::{Error, Load, Position, Record};

/// A page holds no more bytes of keys and values than this, unless one record alone does.
const PAGE_BYTES: usize = 1 << 20;
/// Most pages that wait for the reader.
const PAGES_WAITING_MAX: usize = 2;
/// Sled stands still while its records are read, and the log waits for it when it is too far behind: a reader that
/// takes no page for this long is cut off.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for sled to reach what has been acknowledged.
const APPLY_PATIENCE: Duration = Duration::from_secs(30);

/// The last one is `None`.
type Page = Result<Option<Vec<Record>>, Error>;

/// The pages of a load.
#[derive(Debug)]
pub(super) struct Pages {
    position: Position,
    pages: mpsc::Receiver<Page>,
}

/// Begins a load of a position that includes `head`. Sled is read in a thread that may block.
pub(super) async fn load(records: Weak<Records>, progress: Arc<Progress>, head: Position) -> Result<Pages, Error> {
    let (begin, begun) = oneshot::channel();
    let (sender, pages) = mpsc::channel(PAGES_WAITING_MAX);
    let mut pager = Pager { sender, runtime: Handle::current(), page: Vec::new(), bytes: 0 };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = progress.wait_until_applied(head.revision, APPLY_PATIENCE) {
            return drop(begin.send(Err(error)));
        }
        let Some(records) = records.upgrade() else {
            return drop(begin.send(Err(Error::Unavailable("it is closed".into()))));
        };
        let begin = |checkpoint: Option<Checkpoint>| drop(begin.send(Ok(checkpoint.map_or(head, |at| at.position))));
        let outcome = records.read(begin, |record| pager.add(record));
        // Who has taken the last page can close the store and find its directory free.
        drop(records);
        match outcome {
            Ok(true) => drop(pager.turn() && pager.send(Ok(None))),
            Ok(false) => {}
            Err(why) => drop(pager.send(Err(Error::Failed(format!("reading the records: {why}"))))),
        }
    });
    let failed = |_| Error::Failed("the records cannot be read".into());
    Ok(Pages { position: begun.await.map_err(failed)??, pages })
}

/// Collects records into pages and hands them over. Its functions return `false` when nobody takes them.
struct Pager {
    sender: mpsc::Sender<Page>,
    runtime: Handle,
    page: Vec<Record>,
    bytes: usize,
}

impl Pager {
    fn add(&mut self, record: Record) -> bool {
        let bytes = record.key.as_str().len() + record.value.len();
        if self.bytes + bytes > PAGE_BYTES && !self.turn() {
            return false;
        }
        self.bytes += bytes;
        self.page.push(record);
        true
    }

    /// Hands over the page, if there is something on it, and begins the next.
    fn turn(&mut self) -> bool {
        self.bytes = 0;
        let page = std::mem::take(&mut self.page);
        page.is_empty() || self.send(Ok(Some(page)))
    }

    fn send(&self, page: Page) -> bool {
        let sent = self.runtime.block_on(async { timeout(READER_PATIENCE, self.sender.send(page)).await });
        matches!(sent, Ok(Ok(())))
    }
}

#[async_trait]
impl Load for Pages {
    fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        match self.pages.recv().await {
            Some(page) => page,
            // Half of the records must never pass for all of them.
            None => Err(Error::Unavailable("the load was cut off: its pages were taken too slowly".into())),
        }
    }
}
