//! The past, a page at a time: its files are read in a thread that may block.

use std::{io, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{layout::OpenError, past::Past};
use crate::store::{Error, Load, Millis, Moment, Position, Record};

/// A page ends when it has this many bytes of keys and values.
const PAGE_BYTES: usize = 1 << 20;
/// Most pages that wait for the reader.
const PAGES_WAITING_MAX: usize = 2;

/// The last one is `None`.
type Page = Result<Option<Vec<Record>>, Error>;

struct Pages {
    position: Position,
    pages: mpsc::Receiver<Page>,
}

impl Moment for Arc<Past> {
    fn position(&self) -> Position {
        self.position
    }

    fn time(&self) -> Millis {
        self.overlay.time
    }

    fn about(&self) -> u64 {
        Past::about(self)
    }

    fn load(&self) -> Box<dyn Load> {
        let (sender, pages) = mpsc::channel(PAGES_WAITING_MAX);
        let past = Self::clone(self);
        tokio::task::spawn_blocking(move || {
            // Who has dropped the pages wants no more.
            let _ = sender.blocking_send(read(&past, &sender));
        });
        Box::new(Pages { position: self.position, pages })
    }
}

/// Hands over all pages but the end.
fn read(past: &Past, sender: &mpsc::Sender<Page>) -> Page {
    let (mut page, mut bytes) = (Vec::new(), 0);
    let ran = past.run(|record| {
        bytes += record.key.as_str().len() + record.value.len();
        page.push(record);
        if bytes < PAGE_BYTES {
            return Ok(());
        }
        bytes = 0;
        let unwanted = |_| OpenError::at(Path::new(""))(io::ErrorKind::Interrupted.into());
        sender.blocking_send(Ok(Some(std::mem::take(&mut page)))).map_err(unwanted)
    });
    ran.map_err(|error| Error::Failed(error.to_string()))?;
    if !page.is_empty() {
        let _ = sender.blocking_send(Ok(Some(page)));
    }
    Ok(None)
}

#[async_trait]
impl Load for Pages {
    fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Page {
        // Half of the records must never pass for all of them.
        self.pages.recv().await.unwrap_or_else(|| Err(Error::Failed("the source is not read to its end".into())))
    }
}
