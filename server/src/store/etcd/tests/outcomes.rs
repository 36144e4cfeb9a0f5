//! What becomes of transactions whose answers are lost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use coffer_proto::etcd::RangeRequest;
use tokio::{task::JoinSet, time::Instant};

use super::{
    commit_of, keys_of,
    proxy::{Mode, Proxy},
    server::{Server, free_port},
    soon,
};
use crate::{
    clock::{Clock, SystemClock},
    store::{
        Error, Expect, Store as _,
        conformance::{delete, expecting, put, records, transaction},
        etcd::{Etcd, keys::Keys, sweep::Stood},
    },
};

const PREFIX: &str = "coffer/";

/// A store reached through a proxy, which has connected, and one that is not.
async fn behind_a_proxy() -> (Server, Proxy, Etcd, Etcd) {
    let server = Server::start();
    let direct = server.create(PREFIX).await;
    let proxy = Proxy::start(server.port).await;
    let mut options = server.options(PREFIX);
    options.endpoints = vec![format!("http://127.0.0.1:{}", proxy.port)];
    let store = Etcd::open(options).await.expect("open");
    store.commit(transaction([put("first", "")])).await.expect("commit").expect("no conflict");
    (server, proxy, store, direct)
}

#[tokio::test]
async fn a_transaction_that_landed_without_an_answer_is_found() {
    let (_server, proxy, store, direct) = behind_a_proxy().await;
    proxy.set(Mode::LoseAnswers);
    // Asked for twice, it would conflict.
    let once = expecting([("key", Expect::Absent)], [put("key", "value")]);
    let position = soon(store.commit(once)).await.expect("an outcome").expect("no conflict");
    let (latest, records) = records(&direct).await;
    assert_eq!((latest, records[1].revision), (position, position.revision));
}

#[tokio::test]
async fn what_was_sent_may_land_long_after() {
    let (_server, proxy, store, direct) = behind_a_proxy().await;
    let mut follower = direct.changes(direct.latest().await.expect("latest")).await.expect("a follower");
    proxy.set(Mode::HoldRequests);
    let task = tokio::spawn(async move { store.commit(transaction([put("late", "")])).await });
    proxy.holds().await;
    // Nobody is left to give it up.
    task.abort();
    proxy.let_go().await;
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["late"]);
}

#[tokio::test]
async fn what_was_given_up_never_lands() {
    let (_server, proxy, store, direct) = behind_a_proxy().await;
    proxy.set(Mode::HoldRequests);
    let committed = soon(store.commit(transaction([put("key", "value")]))).await;
    // The second attempt went another way.
    let position = committed.expect("an outcome").expect("no conflict");
    proxy.let_go().await;
    assert_eq!(direct.latest().await, Ok(position), "the first attempt landed after it was given up");
    assert_eq!(records(&direct).await.1[1].revision, position.revision);
}

#[tokio::test]
async fn an_outcome_that_nobody_tells_is_unknown_and_what_comes_after_is_not_sent() {
    let (_server, proxy, store, direct) = behind_a_proxy().await;
    let before = direct.latest().await;
    proxy.set_for_new(Mode::Cut);
    proxy.set(Mode::HoldRequests);
    let unknown = soon(store.commit(transaction([put("key", "1")]))).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    let begun = Instant::now();
    for _ in 0..2 {
        let refused = soon(store.commit(transaction([put("key", "2")]))).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?} for two refusals", begun.elapsed());
    assert_eq!(direct.latest().await, before);
    proxy.set_for_new(Mode::Pass);
    proxy.set(Mode::Cut);
    assert!(soon(store.commit(transaction([put("key", "3")]))).await.is_ok(), "it goes on");
}

#[tokio::test]
async fn without_etcd_nothing_happens_within_two_seconds() {
    let (mut server, _proxy, _, direct) = behind_a_proxy().await;
    server.kill();
    // The first one may have been sent before anybody knew.
    let first = soon(direct.commit(transaction([delete("first")]))).await;
    assert!(matches!(first, Err(Error::Unavailable(_) | Error::Unknown(_))), "{first:?}");
    let begun = Instant::now();
    let refused = soon(direct.commit(transaction([delete("first")]))).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    let latest = soon(direct.latest()).await;
    assert!(matches!(latest, Err(Error::Unavailable(_))), "{latest:?}");
}

#[tokio::test]
async fn a_member_that_is_gone_is_passed_over() {
    let server = Server::start();
    server.create(PREFIX).await;
    let mut options = server.options(PREFIX);
    options.endpoints.insert(0, format!("http://127.0.0.1:{}", free_port()));
    let store = Etcd::open(options).await.expect("open");
    assert!(store.commit(transaction([put("key", "")])).await.is_ok());
}

/// Two days ahead.
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> SystemTime {
        SystemClock.now() + Duration::from_secs(2 * 24 * 60 * 60)
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

#[tokio::test]
async fn few_records_of_attempts_are_kept_and_old_ones_are_swept_away() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let count = async || {
        let requests = Keys::new(PREFIX).expect("a prefix").requests();
        let ask = RangeRequest { key: requests.from, range_end: requests.end, ..RangeRequest::default() };
        server.kv().range(ask).await.expect("read").into_inner().count
    };
    let commit = async |key: String| store.commit(transaction([put(&key, "")])).await.expect("commit");
    for at in 0..10 {
        commit(at.to_string()).await.expect("no conflict");
    }
    assert_eq!(count().await, 1, "one after the other use one");
    let mut tasks = JoinSet::new();
    for at in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { store.commit(transaction([put(&at.to_string(), "")])).await });
    }
    assert!(tasks.join_all().await.iter().all(|outcome| matches!(outcome, Ok(Ok(_)))));
    let all = count().await;
    assert!((2..=64).contains(&all), "{all}");
    // Whoever has not written has touched nothing, whatever its clock says.
    let other = Etcd::open_with(server.options(PREFIX), Arc::new(Ahead)).await.expect("open");
    assert!(!other.0.is_sweeping.load(Ordering::Relaxed) && store.0.is_sweeping.load(Ordering::Relaxed));
    let stood = other.sweep(&Stood::new()).await.expect("a look");
    assert_eq!(count().await, all, "nobody knows yet how long they stand");
    commit("again".to_owned()).await.expect("no conflict");
    let stood_again = other.sweep(&stood).await.expect("a sweep");
    assert_eq!((count().await, stood_again.len()), (1, 1), "the one that was used meanwhile");
    let mut tasks = JoinSet::new();
    for at in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { store.commit(transaction([put(&at.to_string(), "")])).await });
    }
    assert!(tasks.join_all().await.iter().all(|outcome| matches!(outcome, Ok(Ok(_)))), "records are made anew");
}
