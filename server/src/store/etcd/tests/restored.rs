//! Stores in etcd that were made of what another one was.

use std::sync::Arc;

use async_trait::async_trait;
use coffer_proto::etcd::RangeRequest;

use super::{
    commit_of, keys_of,
    proxy::{Mode, Proxy},
    server::Server,
    soon,
};
use crate::store::{
    Epoch, Error, Key, Load, Millis, Moment, Next, Position, RECORD_BYTES, Record, Revision, Store as _,
    conformance::{put, records, transaction},
    etcd::{
        Etcd, OpenError, RestoreError,
        keys::Keys,
        restore::{Restore, Steps},
    },
};

const TIME: Millis = Millis(1_700_000_000_000);

/// What is to be restored.
#[derive(Clone)]
struct Held(Vec<Record>);

struct Pages(std::vec::IntoIter<Vec<Record>>);

impl Held {
    fn of(keys: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let record =
            |(key, value): (String, Vec<u8>)| Record { key: Key::new(key), value: value.into(), revision: Revision(7) };
        Self(keys.into_iter().map(record).collect())
    }

    fn small(count: usize, value: &str) -> Self {
        Self::of((0..count).map(|at| (format!("key/{at:06}"), value.into())))
    }

    fn values(&self) -> Vec<(Key, Arc<[u8]>)> {
        self.0.iter().map(|record| (record.key.clone(), record.value.clone())).collect()
    }
}

impl Moment for Held {
    fn position(&self) -> Position {
        Position { epoch: Epoch(4), revision: Revision(u64::MAX >> 2) }
    }

    fn time(&self) -> Millis {
        TIME
    }

    fn about(&self) -> u64 {
        self.0.len() as u64
    }

    fn load(&self) -> Box<dyn Load> {
        let pages: Vec<_> = self.0.chunks(100).map(<[Record]>::to_vec).collect();
        Box::new(Pages(pages.into_iter()))
    }
}

#[async_trait]
impl Load for Pages {
    fn position(&self) -> Position {
        Position::default()
    }

    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        Ok(self.0.next())
    }
}

async fn restore(server: &Server, prefix: &str, held: &Held) -> Result<(Position, u64), RestoreError> {
    soon(Etcd::restore(server.options(prefix), held, &mut |_, _| {})).await
}

/// One that has come as far as its records.
async fn filled(server: &Server, prefix: &str, held: &Held) -> Restore {
    let mut restore = Restore::begin(server.options(prefix)).await.expect("begun");
    restore.clear().await.expect("cleared");
    fill(&mut restore, held).await.expect("filled");
    restore
}

async fn fill(restore: &mut Restore, held: &Held) -> Result<(), RestoreError> {
    restore.fill(held, &mut Steps { done: 0, total: 0, progress: &mut |_, _| {} }).await
}

async fn compare(restore: &Restore, held: &Held) -> Result<u64, RestoreError> {
    restore.compare(held, &mut Steps { done: 0, total: 0, progress: &mut |_, _| {} }).await
}

async fn shown(server: &Server, prefix: &str) -> Vec<(Key, Arc<[u8]>)> {
    let (_, records) = records(&server.open(prefix).await).await;
    records.into_iter().map(|record| (record.key, record.value)).collect()
}

#[tokio::test]
async fn what_is_restored_is_a_store_of_the_next_epoch_with_every_record() {
    let server = Server::start();
    // More than a transaction takes, by their number and by their bytes.
    let small = (0..5_000).map(|at| (format!("a/{at:06}"), vec![1; at % 90]));
    let large = (0..60).map(|at| (format!("b/{at:06}/{}", "é".repeat(490)), vec![2; RECORD_BYTES]));
    let held = Held::of(small.chain(large));
    let mut told = (0, 0);
    let mut tell = |done, total| told = (done, total);
    let restored = soon(Etcd::restore(server.options("coffer/"), &held, &mut tell)).await;
    let (position, count) = restored.expect("restored");
    assert_eq!((position.epoch, count, told), (Epoch(5), 5_060, (10_120, 10_120)));
    assert_eq!(shown(&server, "coffer/").await, held.values());
    let store = server.open("coffer/").await;
    let latest = store.latest().await.expect("latest");
    assert_eq!(latest, position);
    let backup = store.backup().await.expect("a backup").snapshot;
    assert_eq!((backup.position, backup.time), (position, TIME.time()));
    // It is a store like any other, and nothing of its making is followed.
    let mut follower = store.changes(latest).await.expect("a follower");
    store.commit(transaction([put("more", "1")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["more"]);
    assert!(matches!(restore(&server, "coffer/", &held).await, Err(RestoreError::Open(OpenError::Exists(_)))));
}

#[tokio::test]
async fn one_that_was_interrupted_is_no_store_and_the_next_begins_anew() {
    let server = Server::start();
    filled(&server, "coffer/", &Held::small(2_500, "of before")).await;
    let unfinished = OpenError::Unfinished("coffer/".to_owned());
    assert_eq!(Etcd::open(server.options("coffer/")).await.err(), Some(unfinished.clone()));
    assert_eq!(Etcd::create(server.options("coffer/")).await, Err(unfinished.clone()));
    assert_eq!(Etcd::moment(server.options("coffer/")).await.err(), Some(unfinished));
    for prefix in ["coffer/r/", "coffer/x/"] {
        assert_eq!(Etcd::create(server.options(prefix)).await, Err(OpenError::Exists(prefix.to_owned())));
    }
    let held = Held::small(10, "of after");
    assert_eq!(restore(&server, "coffer/", &held).await.expect("begun anew").1, 10);
    assert_eq!(shown(&server, "coffer/").await, held.values());
}

#[tokio::test]
async fn of_two_at_once_the_later_one_wins_and_nothing_of_the_other_lands() {
    let server = Server::start();
    let (one, two) = (Held::small(2_000, "one"), Held::small(1_000, "two"));
    let mut first = filled(&server, "coffer/", &one).await;
    let mut second = Restore::begin(server.options("coffer/")).await.expect("begun");
    let replaced = Err(RestoreError::Replaced("coffer/".to_owned()));
    assert_eq!(fill(&mut first, &one).await, replaced);
    second.clear().await.expect("cleared");
    fill(&mut second, &two).await.expect("filled");
    assert_eq!(compare(&second, &two).await, Ok(1_000));
    assert_eq!(first.clear().await, replaced);
    assert_eq!(first.clone().finish(&one).await.map(drop), replaced);
    second.clone().finish(&two).await.expect("a store");
    // What was sent and comes late.
    for late in [&mut first, &mut second] {
        assert_eq!(fill(late, &one).await, replaced);
    }
    assert_eq!(shown(&server, "coffer/").await, two.values());
}

#[tokio::test]
async fn nothing_of_a_stage_lands_once_it_is_over() {
    let server = Server::start();
    let (held, other) = (Held::small(1_000, "value"), Held::small(1_000, "other"));
    let mut restore = Restore::begin(server.options("coffer/")).await.expect("begun");
    let mut clearing = restore.clone();
    restore.clear().await.expect("cleared");
    let mut filling = restore.clone();
    fill(&mut restore, &held).await.expect("filled");
    let over = Err(RestoreError::Replaced("coffer/".to_owned()));
    assert_eq!(clearing.clear().await, over);
    assert_eq!(compare(&restore, &held).await, Ok(1_000));
    for late in [&mut clearing, &mut filling] {
        assert_eq!(late.clear().await, over);
        assert_eq!(fill(late, &other).await, over);
        assert_eq!(late.clone().finish(&other).await.map(drop), over);
    }
    restore.finish(&held).await.expect("a store");
    assert_eq!(shown(&server, "coffer/").await, held.values());
}

#[tokio::test]
async fn a_delete_of_before_that_comes_late_takes_nothing() {
    let server = Server::start();
    filled(&server, "coffer/", &Held::small(10, "of before")).await;
    let proxy = Proxy::start(server.port).await;
    let mut options = server.options("coffer/");
    options.endpoints = vec![format!("http://127.0.0.1:{}", proxy.port)];
    let mut restore = Restore::begin(options).await.expect("begun");
    // Whatever changes something names it; what is held is sent again.
    proxy.set(Mode::HoldNaming(b"coffer/restore"));
    soon(restore.clear()).await.expect("cleared");
    proxy.holds().await;
    let held = Held::small(10, "of after");
    fill(&mut restore, &held).await.expect("filled");
    assert_eq!(compare(&restore, &held).await, Ok(10));
    proxy.let_go().await;
    restore.finish(&held).await.expect("a store");
    assert_eq!(shown(&server, "coffer/").await, held.values());
}

#[tokio::test]
async fn what_is_not_there_as_it_was_written_is_found_before_it_is_a_store() {
    let server = Server::start();
    let held = Held::small(3_000, "value");
    let restore = filled(&server, "coffer/", &held).await;
    let key = |at: usize| held.0[at].key.clone();
    let mut differs = held.clone();
    differs.0[1_700].value = b"velue".as_slice().into();
    let mut lacks = held.clone();
    lacks.0.remove(2_999);
    let mut more = held.clone();
    more.0.insert(0, Record { key: Key::new("a"), value: (*b"x").into(), revision: Revision(1) });
    for (source, at) in [(&differs, key(1_700)), (&lacks, key(2_999)), (&more, Key::new("a"))] {
        assert_eq!(compare(&restore, source).await, Err(RestoreError::Differs(at)));
    }
    assert_eq!(compare(&restore, &held).await, Ok(3_000));
}

#[tokio::test]
async fn without_room_it_ends_and_there_is_no_store() {
    let server = Server::start_with(&["--quota-backend-bytes=8000000"]);
    let large = Held::of((0..400).map(|at| (format!("{at:04}"), vec![3; RECORD_BYTES])));
    let ended = soon(Etcd::restore(server.options("coffer/"), &large, &mut |_, _| {})).await;
    assert!(matches!(ended, Err(RestoreError::Open(OpenError::Store(Error::Full(_))))), "{ended:?}");
    assert!(matches!(Etcd::open(server.options("coffer/")).await.err(), Some(OpenError::Unfinished(_))));
    let all = Keys::new("coffer/").expect("a prefix").records();
    let count = RangeRequest { key: all.from, range_end: all.end, count_only: true, ..RangeRequest::default() };
    let written = server.kv().range(count).await.expect("a count").into_inner().count;
    assert!(written < 400, "etcd's quota held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_when_etcd_is_back() {
    let mut server = Server::start();
    let held = Held::small(20_000, &"x".repeat(400));
    let (options, source) = (server.options("coffer/"), held.clone());
    let (told, is_told) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    let restoring = tokio::spawn(async move {
        let mut tell = |_, _| {
            let _ = told.take().map(|told| told.send(()));
        };
        Etcd::restore(options, &source, &mut tell).await
    });
    soon(is_told).await.expect("it writes");
    server.restart();
    assert_eq!(soon(restoring).await.expect("no panic").expect("restored").1, 20_000);
    assert!(shown(&server, "coffer/").await == held.values());
}

#[tokio::test]
async fn who_raises_the_epoch_ends_what_was_of_before_on_every_handle() {
    let server = Server::start();
    let (one, two) = (server.create("coffer/").await, server.open("coffer/").await);
    let before = one.commit(transaction([put("key", "")])).await.expect("commit").expect("no conflict");
    let mut follower = one.changes(before).await.expect("a follower");
    let raised = two.raise_epoch().await.expect("raised");
    assert_eq!(raised.epoch, Epoch(before.epoch.0 + 1));
    assert_eq!(soon(follower.next()).await, Ok(Next::Gap));
    let mut of_before = one.changes(before).await.expect("a follower");
    assert_eq!(soon(of_before.next()).await, Ok(Next::Gap));
    let refused = one.commit(transaction([put("key", "1")])).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(one.load().await.expect("load").position(), raised);
    one.commit(transaction([put("key", "1")])).await.expect("commit").expect("no conflict");
}
