//! Addresses that lead to another store below the same prefix.

use coffer_proto::etcd::{KeyValue, RangeRequest, TxnRequest};

use super::{
    commit_of, keys_of,
    proxy::{Mode, Proxy},
    server::Server,
    soon,
};
use crate::store::{
    Epoch, Error, Millis, Position, Store as _, TransactionId,
    conformance::{put, records, transaction},
    etcd::{
        Etcd,
        head::{Head, Stored},
        sweep::Stood,
        transaction as encoding,
    },
};

const PREFIX: &str = "coffer/";

/// A store, and another one of the same prefix at an address that is given for the first one's, too.
struct Strangers {
    ours: Server,
    stranger: Server,
    /// Reaches both.
    store: Etcd,
    /// Reaches only the right one.
    direct: Etcd,
    proxy: Option<Proxy>,
}

impl Strangers {
    async fn start(is_behind_a_proxy: bool) -> Self {
        let (ours, stranger) = (Server::start(), Server::start());
        let direct = ours.create(PREFIX).await;
        let other = stranger.create(PREFIX).await;
        let proxy = if is_behind_a_proxy { Some(Proxy::start(ours.port).await) } else { None };
        let mut options = stranger.options(PREFIX);
        let port = proxy.as_ref().map_or(ours.port, |proxy| proxy.port);
        options.endpoints.insert(0, format!("http://127.0.0.1:{port}"));
        let store = Etcd::open(options).await.expect("open");
        other.commit(transaction([put("theirs", "")])).await.expect("commit").expect("no conflict");
        Self { ours, stranger, store, direct, proxy }
    }

    async fn write(&self, key: &str) -> Result<Position, Error> {
        soon(self.store.commit(transaction([put(key, "")]))).await.map(|outcome| outcome.expect("no conflict"))
    }
}

/// All that an etcd has below the prefix.
async fn all(server: &Server) -> Vec<KeyValue> {
    let all = RangeRequest { key: PREFIX.into(), range_end: b"coffer0".to_vec(), ..RangeRequest::default() };
    server.kv().range(all).await.expect("read").into_inner().kvs
}

#[tokio::test]
async fn another_store_is_never_taken_for_ours_nor_written_to() {
    let mut it = Strangers::start(false).await;
    for key in ["one", "two", "three"] {
        it.write(key).await.expect("written");
    }
    let before = all(&it.stranger).await;
    let at = it.store.latest().await.expect("latest");
    let mut follower = it.store.changes(at).await.expect("a follower");
    it.write("followed").await.expect("written");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["followed"]);
    it.ours.kill();
    let next = tokio::spawn(async move { commit_of(&mut follower).await });
    let latest = soon(it.store.latest()).await;
    assert!(matches!(latest, Err(Error::Unavailable(_))), "{latest:?}");
    let loaded = soon(it.store.load()).await.err();
    assert!(matches!(loaded, Some(Error::Unavailable(_))), "{loaded:?}");
    let written = it.write("refused").await;
    assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    let stood: Stood = before.iter().map(|key| (key.key.clone(), key.mod_revision)).collect();
    let swept = soon(it.store.sweep(&stood)).await;
    assert!(matches!(swept, Err(Error::Unavailable(_))), "{swept:?}");
    assert_eq!(all(&it.stranger).await, before);
    assert!(!next.is_finished(), "there is nothing to tell");
    it.ours.restart();
    let mut written = it.write("back").await;
    while let Err(Error::Unavailable(_)) = written {
        written = it.write("back").await;
    }
    let position = written.expect("written");
    assert_eq!(position.epoch, Epoch(1), "nobody put etcd back");
    assert_eq!(soon(next).await.expect("no panic").position, position);
    assert_eq!(records(&it.store).await, records(&it.direct).await);
    assert_eq!(all(&it.stranger).await, before);
}

#[tokio::test]
async fn the_outcome_of_a_transaction_is_not_learnt_from_another_store() {
    let it = Strangers::start(true).await;
    let before = all(&it.stranger).await;
    assert!(it.store.latest().await.is_ok(), "it is connected");
    // The connection there is; a new one passes.
    it.proxy.iter().for_each(|proxy| proxy.set(Mode::LoseAnswers));
    let position = it.write("landed").await.expect("it landed");
    assert_eq!(it.direct.latest().await, Ok(position));
    assert_eq!(all(&it.stranger).await, before);
}

#[tokio::test]
async fn a_store_that_was_made_in_place_of_ours_is_another_one() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let start = store.latest().await.expect("latest");
    store.commit(transaction([put("ours", "")])).await.expect("commit").expect("no conflict");
    // As a restore makes one where all was deleted.
    let (instance, epoch) = ([1; 16], Epoch(start.epoch.0 + 1));
    let head = Head { instance, epoch, id: TransactionId([1; 16]), time: Millis(1), deletes: 0 }.encode();
    let stored = Stored { instance, epoch }.encode();
    let success = vec![encoding::put(b"coffer/store".to_vec(), stored), encoding::put(b"coffer/head".to_vec(), head)];
    let kept = all(&server).await;
    server.kv().txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("write");
    let before = all(&server).await;
    for _ in 0..2 {
        assert!(matches!(soon(store.latest()).await, Err(Error::Unavailable(_))));
        assert!(matches!(soon(store.load()).await.err(), Some(Error::Unavailable(_))));
        let written = soon(store.commit(transaction([put("refused", "")]))).await;
        assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    }
    assert_eq!(all(&server).await, before);
    let back = kept.into_iter().filter(|key| key.key == b"coffer/store" || key.key == b"coffer/head");
    let success = back.map(|key| encoding::put(key.key, key.value)).collect();
    server.kv().txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("write");
    let position = soon(store.commit(transaction([put("back", "")]))).await.expect("commit").expect("no conflict");
    assert_eq!(soon(store.latest()).await, Ok(position));
}
