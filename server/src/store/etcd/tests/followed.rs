//! Following through what happens to connections and to etcd's history.

use std::time::Duration;

use coffer_proto::etcd::{CompactionRequest, RangeRequest, TxnRequest};
use tokio::time::Instant;

use super::{
    commit_of, keys_of,
    proxy::{Mode, Proxy},
    server::Server,
    soon,
};
use crate::store::{
    Change, Key, Next, RECORD_BYTES, Store as _, TransactionId,
    conformance::{delete, delete_prefix, put, transaction},
    etcd::{Etcd, head::Head, net::Net, transaction as encoding},
};

const PREFIX: &str = "coffer/";

async fn behind_a_proxy() -> (Server, Proxy, Etcd, Etcd) {
    let server = Server::start();
    let direct = server.create(PREFIX).await;
    let proxy = Proxy::start(server.port).await;
    let mut options = server.options(PREFIX);
    options.endpoints = vec![format!("http://127.0.0.1:{}", proxy.port)];
    (server, proxy, Etcd::open(options).await.expect("open"), direct)
}

#[tokio::test]
async fn transactions_larger_than_a_message_stay_whole() {
    const EACH: usize = 13;
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let start = store.latest().await.expect("latest");
    let mut follower = store.changes(start).await.expect("a follower");
    let large = |at: usize| Change::Put(Key::new(format!("k{at:02}")), vec![7; RECORD_BYTES].into());
    for _ in 0..4 {
        store
            .commit(transaction((0..EACH).map(large).collect::<Vec<_>>()))
            .await
            .expect("commit")
            .expect("no conflict");
    }
    store.commit(transaction([delete_prefix("k")])).await.expect("commit").expect("no conflict");
    for _ in 0..4 {
        assert_eq!(commit_of(&mut follower).await.changes.len(), EACH);
    }
    let deleted = commit_of(&mut follower).await;
    assert!(keys_of(&deleted).iter().all(|key| key.starts_with("-k")) && deleted.changes.len() == EACH);
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_without_gap_or_repeat() {
    const COMMITS: usize = 60;
    let (_server, proxy, store, direct) = behind_a_proxy().await;
    let mut follower = store.changes(direct.latest().await.expect("latest")).await.expect("a follower");
    let writer = tokio::spawn(async move {
        for at in 0..COMMITS {
            direct.commit(transaction([put(&format!("{at}"), "")])).await.expect("commit").expect("no conflict");
        }
    });
    for at in 0..COMMITS {
        if at % 10 == 5 {
            proxy.set(Mode::Cut);
            proxy.set(Mode::Pass);
        }
        assert_eq!(keys_of(&commit_of(&mut follower).await), [at.to_string()]);
    }
    writer.await.expect("the writer ends well");
}

#[tokio::test]
async fn a_delete_that_becomes_the_first_revision_kept_while_a_watch_begins_is_not_left_out() {
    let (server, proxy, store, direct) = behind_a_proxy().await;
    let after = direct.commit(transaction([put("gone", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(store.latest().await, Ok(after), "it is connected");
    // The watch has a connection of its own, which comes late.
    proxy.set_for_new(Mode::HoldRequests);
    let mut follower = store.changes(after).await.expect("a follower");
    let next = tokio::spawn(async move { soon(follower.next()).await });
    proxy.holds().await;
    let deleted = direct.commit(transaction([delete("gone")])).await.expect("commit").expect("no conflict");
    let revision = deleted.revision.0 as i64;
    server.kv().compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    proxy.set(Mode::Pass);
    proxy.release();
    assert_eq!(next.await.expect("no panic"), Ok(Next::Gap));
}

/// While etcd compacts, it has forgotten some deletes of a transaction and still has others, for some milliseconds in which a
/// watch is to be served. So what it tells then is written as it is told.
#[tokio::test]
async fn deletes_that_etcd_may_have_forgotten_are_a_gap_and_those_of_nothing_are_none() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    let fewer = [put("two", ""), delete_prefix("none"), delete("none")];
    store.commit(transaction(fewer)).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["two"]);
    let fewer = [delete("two"), delete("none")];
    store.commit(transaction(fewer.clone())).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["-two"]);

    let mut kv = server.kv();
    store.commit(transaction([put("two", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["two"]);
    let head = kv.range(RangeRequest { key: b"coffer/head".to_vec(), ..RangeRequest::default() }).await.expect("read");
    let (head, _) = Head::of(&head.into_inner().kvs[0]).expect("a head");
    let head = Head { id: TransactionId([1; 16]), deletes: Net::of(&fewer).deletes_max(), ..head };
    let success = vec![
        encoding::delete(b"coffer/r/two".to_vec(), Vec::new()),
        encoding::put(b"coffer/head".to_vec(), head.encode()),
    ];
    let written = kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("written").into_inner();
    let revision = written.header.expect("a header").revision;
    kv.compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    assert_eq!(soon(follower.next()).await, Ok(Next::Gap));
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_found_out_within_15_seconds() {
    let (_server, proxy, store, direct) = behind_a_proxy().await;
    let mut follower = store.changes(direct.latest().await.expect("latest")).await.expect("a follower");
    direct.commit(transaction([put("heard", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["heard"]);
    proxy.set(Mode::LoseAnswers);
    direct.commit(transaction([put("unheard", "")])).await.expect("commit").expect("no conflict");
    let begun = Instant::now();
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["unheard"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_watch_of_a_member_that_fell_behind_is_found_out_before_it_is_silent_for_long() {
    let (server, proxy, _, direct) = behind_a_proxy().await;
    let mut options = server.options(PREFIX);
    options.endpoints.insert(0, format!("http://127.0.0.1:{}", proxy.port));
    let store = Etcd::open(options).await.expect("open");
    let mut follower = store.changes(direct.latest().await.expect("latest")).await.expect("a follower");
    direct.commit(transaction([put("heard", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["heard"]);
    // The member says nothing more; the other is asked, and knows that there is something.
    proxy.set_for_new(Mode::LoseAnswers);
    proxy.set(Mode::LoseAnswers);
    direct.commit(transaction([put("unheard", "")])).await.expect("commit").expect("no conflict");
    let begun = Instant::now();
    let latest = soon(store.latest()).await.expect("of the other member");
    let told = commit_of(&mut follower).await;
    assert_eq!((keys_of(&told), told.position), (vec!["unheard".to_owned()], latest));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn history_compacted_while_a_watch_was_broken_is_a_gap() {
    let (server, proxy, store, direct) = behind_a_proxy().await;
    let mut follower = store.changes(direct.latest().await.expect("latest")).await.expect("a follower");
    direct.commit(transaction([put("heard", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["heard"]);
    proxy.set_for_new(Mode::Cut);
    proxy.set(Mode::Cut);
    for _ in 0..2 {
        direct.commit(transaction([put("missed", "")])).await.expect("commit").expect("no conflict");
    }
    let revision = direct.latest().await.expect("latest").revision.0 as i64;
    server.kv().compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    proxy.set_for_new(Mode::Pass);
    assert_eq!(soon(follower.next()).await, Ok(Next::Gap));
}

#[tokio::test]
async fn what_others_write_and_etcd_forgets_is_no_gap() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let at = store.commit(transaction([put("one", "")])).await.expect("commit").expect("no conflict");
    let mut kv = server.kv();
    for _ in 0..5 {
        let write =
            TxnRequest { success: vec![encoding::put(b"other/key".to_vec(), Vec::new())], ..TxnRequest::default() };
        let revision = kv.txn(write).await.expect("put").into_inner().header.expect("a header").revision;
        kv.compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    }
    let mut follower = store.changes(at).await.expect("a follower");
    // A gap would be told at once.
    let told = tokio::time::timeout(Duration::from_secs(1), follower.next()).await;
    assert!(told.is_err(), "{told:?}");
    // What it did not see is one all the same.
    let mut behind = store.changes(at).await.expect("a follower");
    let last = store.commit(transaction([put("two", "")])).await.expect("commit").expect("no conflict");
    let revision = last.revision.0 as i64;
    kv.compact(CompactionRequest { revision, physical: true }).await.expect("compact");
    assert_eq!(soon(behind.next()).await, Ok(Next::Gap));
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["two"]);
    assert_eq!(store.load().await.expect("load").position().epoch, at.epoch, "nobody put etcd back");
}
