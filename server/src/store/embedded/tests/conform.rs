//! The contract, on a real directory, with and without the decorator in front.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tempfile::TempDir;

use super::super::{Embedded, Ground, Options};
use crate::store::{
    Store,
    conformance::{Backend, HISTORY_COMMITS},
    faulty::Faulty,
    history::Limits,
};

struct Directory {
    dir: TempDir,
    decorated: bool,
    open: Mutex<Option<Embedded>>,
}

impl Directory {
    fn new(decorated: bool) -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), decorated, open: Mutex::default() }
    }

    async fn open(&self) -> [Arc<dyn Store>; 2] {
        let history = Limits { commits: HISTORY_COMMITS, bytes: 64 << 20 };
        let ground = Ground { history, ..Ground::default() };
        let store = Embedded::open_on(self.dir.path(), Options::default(), ground).await.expect("open");
        *self.open.lock().expect("lock") = Some(store.clone());
        let handle = |store: Embedded| -> Arc<dyn Store> {
            if self.decorated { Arc::new(Faulty::new(store).0) } else { Arc::new(store) }
        };
        [handle(store.clone()), handle(store)]
    }
}

#[async_trait]
impl Backend for Directory {
    async fn create(&self) -> [Arc<dyn Store>; 2] {
        Embedded::create(self.dir.path()).await.expect("create");
        self.open().await
    }

    async fn reopen(&self, handles: [Arc<dyn Store>; 2]) -> Option<[Arc<dyn Store>; 2]> {
        drop(handles);
        let store = self.open.lock().expect("lock").take().expect("it is open");
        store.close().await.expect("close");
        Some(self.open().await)
    }
}

mod plain {
    crate::store_conformance!(super::Directory::new(false));
}

mod decorated {
    crate::store_conformance!(super::Directory::new(true));
}
