//! Histories that are not the one that was told.

use super::{
    commit_of, keys_of,
    proxy::{Mode, Proxy},
    server::Server,
    soon,
};
use crate::store::{
    Epoch, Error, Next, Store as _, Transaction, Writes,
    conformance::{put, transaction},
    etcd::Etcd,
};

#[tokio::test]
async fn after_the_epoch_rose_everything_is_loaded_again_before_anything_is_written() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    let start = store.latest().await.expect("latest");
    let mut follower = store.changes(start).await.expect("a follower");
    store.commit(transaction([put("before", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["before"]);
    let epoch = Epoch(start.epoch.0 + 1);
    let raised = server.open("coffer/").await.raise_epoch().await.expect("raised");
    assert_eq!(raised.epoch, epoch);
    assert_eq!(soon(follower.next()).await, Ok(Next::Gap));
    assert_eq!(store.latest().await.map(|latest| latest.epoch), Ok(epoch));
    let refused = store.commit(transaction([put("key", "")])).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let loaded = store.load().await.expect("load").position();
    assert_eq!(loaded.epoch, epoch);
    // Whoever decided before that does not know what it was decided on now.
    let decided = |epoch| Transaction { epoch: Some(epoch), ..transaction([put("key", "")]) };
    let refused = store.commit(decided(start.epoch)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let position = store.commit(decided(epoch)).await.expect("commit").expect("no conflict");
    assert_eq!(position.epoch, epoch);
}

#[tokio::test]
async fn an_etcd_that_was_put_back_is_noticed_although_its_revisions_are_the_same() {
    let mut server = Server::start();
    let store = server.create("coffer/").await;
    let commit = async |store: &Etcd, key: &str| {
        store.commit(transaction([put(key, "")])).await.expect("commit").expect("no conflict")
    };
    commit(&store, "kept").await;
    let copy = server.copy();
    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    let lost = commit(&store, "lost").await;
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["lost"]);
    server.put_back(&copy);
    let instead = soon(commit(&server.open("coffer/").await, "instead")).await;
    assert_eq!(instead, lost, "the same position in another history");
    assert_eq!(soon(follower.next()).await, Ok(Next::Gap));
    // Whoever loads next says so to everybody, once.
    for store in [&store, &server.open("coffer/").await, &store] {
        assert_eq!(store.load().await.expect("load").position().epoch, Epoch(lost.epoch.0 + 1));
    }
}

#[tokio::test]
async fn an_etcd_that_was_put_back_is_noticed_by_who_writes_or_asks_for_the_latest() {
    let mut server = Server::start();
    let (one, two) = (server.create("coffer/").await, server.open("coffer/").await);
    let copy = server.copy();
    for (store, key) in [(&one, "a"), (&two, "b"), (&one, "c"), (&two, "d")] {
        soon(store.commit(transaction([put(key, "")]))).await.expect("commit").expect("no conflict");
    }
    server.put_back(&copy);
    // Connected again, so that no answer is lost.
    while soon(one.condition()).await.writes != Writes::All {}
    let landed = soon(one.commit(transaction([put("a", "")]))).await;
    assert!(matches!(&landed, Err(Error::Unknown(why)) if why.contains("put back")), "{landed:?}");
    let latest = soon(two.latest()).await;
    assert!(matches!(latest, Err(Error::Unavailable(_))), "{latest:?}");
    let loaded = soon(one.load()).await.expect("load").position();
    assert_eq!(loaded.epoch, Epoch(2));
    assert_eq!(soon(two.latest()).await, Ok(loaded));
}

#[tokio::test]
async fn an_etcd_that_was_put_back_twice_gets_no_epoch_twice() {
    let mut server = Server::start();
    let store = server.create("coffer/").await;
    let copy = server.copy();
    for epoch in 2..4 {
        // Each time to the first epoch, which nobody may take for the last one.
        soon(async { while store.commit(transaction([put("a", "")])).await.is_err() {} }).await;
        server.put_back(&copy);
        soon(async { while store.latest().await.is_ok_and(|latest| latest.epoch < Epoch(epoch)) {} }).await;
        let position = soon(async {
            loop {
                if let Ok(load) = store.load().await {
                    return load.position();
                }
            }
        });
        assert_eq!(position.await.epoch, Epoch(epoch));
        assert_eq!(soon(store.latest()).await.map(|latest| latest.epoch), Ok(Epoch(epoch)));
    }
}

/// As another server raises it, while this one has an attempt under way or has read what it goes by.
#[tokio::test]
async fn an_epoch_that_rises_meanwhile_is_not_that_of_what_was_done_and_read_before() {
    let server = Server::start();
    let direct = server.create("coffer/").await;
    let proxy = Proxy::start(server.port).await;
    let mut options = server.options("coffer/");
    options.endpoints.insert(0, format!("http://127.0.0.1:{}", proxy.port));
    let store = Etcd::open(options).await.expect("open");
    let before = store.latest().await.expect("latest");
    proxy.set(Mode::LoseAnswers);
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit(transaction([put("key", "")])).await }
    });
    while direct.latest().await.expect("latest") == before {}
    let raised = direct.raise_epoch().await.expect("raised");
    // By the other way.
    store.0.cluster.prefer(1);
    let loaded = store.load().await.expect("load").position();
    assert_eq!(loaded, raised);
    let position = soon(committing).await.expect("no panic").expect("an outcome").expect("no conflict");
    assert!(position > before && position.epoch == before.epoch, "{position} was committed before {raised}");
    assert_eq!(store.latest().await, Ok(raised), "nobody takes it for a history that was replaced");

    // A backup reads for nobody's decisions, and what was read before does not count any more.
    let raised = direct.raise_epoch().await.expect("raised");
    store.backup().await.expect("a backup");
    let refused = store.commit(transaction([put("key", "")])).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let old = *store.0.stored.read().expect("no panic before");
    assert_eq!(store.load().await.expect("load").position(), raised);
    store.set_stored(old);
    let committed = store.commit(transaction([put("key", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(committed.epoch, raised.epoch);
}
