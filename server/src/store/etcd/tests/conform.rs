//! The contract, on a real server, with and without the decorator in front.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use coffer_proto::etcd::CompactionRequest;

use super::server::Server;
use crate::store::{Store, conformance::Backend, etcd::Etcd, faulty::Faulty};

const PREFIX: &str = "coffer/test/";

struct Real {
    server: Mutex<Server>,
    decorated: bool,
}

impl Real {
    fn new(decorated: bool) -> Self {
        Self { server: Mutex::new(Server::start()), decorated }
    }

    async fn open(&self) -> [Arc<dyn Store>; 2] {
        [self.handle().await, self.handle().await]
    }

    async fn handle(&self) -> Arc<dyn Store> {
        let options = self.server.lock().expect("lock").options(PREFIX);
        let store = Etcd::open(options).await.expect("open");
        if self.decorated { Arc::new(Faulty::new(store).0) } else { Arc::new(store) }
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
    crate::store_conformance!(super::Real::new(false));
}

mod decorated {
    crate::store_conformance!(super::Real::new(true));
}
