//! The contract, on a real server, with and without the decorators in front.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use coffer_proto::etcd::CompactionRequest;
use tempfile::TempDir;

use super::server::Server;
use crate::store::{
    Store,
    conformance::Backend,
    embedded::Options,
    etcd::{Etcd, Recorded},
    faulty::Faulty,
};

const PREFIX: &str = "coffer/test/";

struct Real {
    server: Mutex<Server>,
    with: With,
    /// Of histories, one for each handle.
    home: TempDir,
    histories: AtomicUsize,
}

#[derive(Clone, Copy)]
enum With {
    Nothing,
    Faults,
    History,
}

impl Real {
    fn new(with: With) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        Self { server: Mutex::new(Server::start()), with, home, histories: AtomicUsize::new(0) }
    }

    async fn open(&self) -> [Arc<dyn Store>; 2] {
        [self.handle().await, self.handle().await]
    }

    async fn handle(&self) -> Arc<dyn Store> {
        let options = self.server.lock().expect("lock").options(PREFIX);
        let store = Etcd::open(options).await.expect("open");
        match self.with {
            With::Nothing => Arc::new(store),
            With::Faults => Arc::new(Faulty::new(store).0),
            With::History => {
                let number = self.histories.fetch_add(1, Ordering::Relaxed);
                let directory = self.home.path().join(number.to_string());
                let recorded = Recorded::new(store, directory, Options::default());
                recorded.begin();
                Arc::new(recorded)
            }
        }
    }
}

#[async_trait]
impl Backend for Real {
    async fn create(&self) -> [Arc<dyn Store>; 2] {
        let options = self.server.lock().expect("lock").options(PREFIX);
        Etcd::create(options).await.expect("create");
        self.open().await
    }

    /// etcd itself is killed and started again, too.
    async fn reopen(&self, handles: [Arc<dyn Store>; 2]) -> Option<[Arc<dyn Store>; 2]> {
        drop(handles);
        self.server.lock().expect("lock").restart();
        Some(self.open().await)
    }

    async fn forget(&self) {
        let [store, _] = self.open().await;
        let revision = store.latest().await.expect("latest").revision.0 as i64;
        let mut kv = self.server.lock().expect("lock").kv();
        kv.compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    }

    fn tells_effects(&self) -> bool {
        true
    }
}

mod plain {
    crate::store_conformance!(super::Real::new(super::With::Nothing));
}

mod decorated {
    crate::store_conformance!(super::Real::new(super::With::Faults));
}

mod recorded {
    crate::store_conformance!(super::Real::new(super::With::History));
}
