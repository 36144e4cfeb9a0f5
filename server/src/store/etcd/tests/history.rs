//! The history that a server keeps of a store: through restarts, gaps, directories that fail and an etcd that is put back.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use coffer_proto::etcd::CompactionRequest;
use tempfile::TempDir;

use super::{server::Server, soon};
use crate::{
    clock::{Clock, SystemClock},
    store::{
        Change, Epoch, Error, Key, Position, Record, Store as _, Writes,
        conformance::{delete, delete_prefix, put, records, transaction},
        embedded::{Options, RestoreError, Target, restore, runs_in, verify},
        etcd::{Etcd, Recorded},
    },
};

const PREFIX: &str = "coffer/";

/// A clock that is set.
#[derive(Default)]
struct Set(Mutex<u64>);

impl Set {
    fn to(&self, seconds: u64) {
        *self.0.lock().expect("lock") = seconds;
    }
}

impl Clock for Set {
    fn now(&self) -> SystemTime {
        time(*self.0.lock().expect("lock"))
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

/// So many seconds after some whole second of an hour ago.
fn time(seconds: u64) -> SystemTime {
    static BEGAN: OnceLock<Duration> = OnceLock::new();
    let now = || SystemClock.now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let began = *BEGAN.get_or_init(|| Duration::from_secs(now().as_secs() - 3_600));
    SystemTime::UNIX_EPOCH + began + Duration::from_secs(seconds)
}

/// A home for histories.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn history(&self) -> PathBuf {
        self.0.path().join("history")
    }

    fn record(&self, store: &Etcd) -> Recorded {
        let recorded = self.waiting(store);
        recorded.begin();
        recorded
    }

    /// Not begun yet.
    fn waiting(&self, store: &Etcd) -> Recorded {
        Recorded::new(store.clone(), self.history(), Options::default())
    }

    /// The positions at which runs begin.
    fn runs(&self) -> Vec<String> {
        let name = |run: &PathBuf| run.file_name().expect("a name").to_str().expect("plain").to_owned();
        runs_in(&self.history()).expect("listed").iter().map(name).collect()
    }

    /// What a target gives: its position and keys.
    fn keys_at(&self, target: Target) -> Result<(Position, Vec<String>), RestoreError> {
        let to = tempfile::tempdir().expect("a directory");
        let restored = restore(&self.history(), to.path(), target, None, &mut |_, _| {})?;
        Ok((restored.from, end_of(to.path()).into_keys().collect()))
    }

    fn newest(&self) -> PathBuf {
        runs_in(&self.history()).expect("listed").pop().expect("a run")
    }
}

/// The records at the end, each with its bytes and revision.
fn end_of(dir: &Path) -> BTreeMap<String, Record> {
    let mut all = BTreeMap::new();
    let mut each = |record: &Record| drop(all.insert(record.key.to_string(), record.clone()));
    verify(dir, &mut |_, _| {}, &mut each).expect("whole");
    all
}

async fn commit(store: &Etcd, changes: impl Into<Vec<Change>>) -> Position {
    soon(store.commit(transaction(changes))).await.expect("commit").expect("no conflict")
}

/// Waits until everything acknowledged is recorded.
async fn caught_up(recorded: &Recorded, store: &Etcd) {
    let latest = store.latest().await.expect("latest");
    soon(async { while recorded.reached(latest).await.is_err() {} }).await;
}

/// What is recorded is what stands in etcd, record by record.
async fn check(home: &Home, store: &Etcd) {
    let (position, of_etcd) = records(store).await;
    let verified = verify(&home.newest(), &mut |_, _| {}, &mut |_| {}).expect("whole");
    assert_eq!(verified.position, position);
    assert!(end_of(&home.newest()).into_values().eq(of_etcd));
}

async fn compact(server: &Server, at: Position) {
    let request = CompactionRequest { revision: at.revision.0 as i64, physical: true };
    server.kv().compact(request).await.expect("compact");
}

#[tokio::test]
async fn what_was_committed_while_nobody_recorded_is_caught_up_with_its_times() {
    let server = Server::start();
    Etcd::create(server.options(PREFIX)).await.expect("create");
    let clock = Arc::new(Set::default());
    clock.to(0);
    let store = Etcd::open_with(server.options(PREFIX), Arc::<Set>::clone(&clock)).await.expect("open");
    let home = Home::new();
    clock.to(10);
    let began = commit(&store, [put("a", "1"), put("dir/1", ""), put("dir/2", "")]).await;
    let recorded = home.record(&store);
    caught_up(&recorded, &store).await;
    clock.to(20);
    let written = commit(&store, [put("b", "1")]).await;
    let snapshot = soon(recorded.snapshot()).await.expect("a snapshot");
    assert_eq!((snapshot.position, snapshot.records, snapshot.time), (written, 4, Some(time(20))));
    soon(recorded.close()).await;

    clock.to(30);
    let secret = commit(&store, [put("secret", "1")]).await;
    clock.to(40);
    commit(&store, [delete("secret"), delete_prefix("dir/")]).await;
    let elsewhere = store.condition().await;
    assert_eq!((elsewhere.oldest, elsewhere.history_bytes), (None, 0));
    // Another writer, whose clock is behind.
    clock.to(35);
    commit(&store, [put("c", "1")]).await;
    clock.to(1_000);
    let recorded = home.record(&store);
    caught_up(&recorded, &store).await;
    let condition = recorded.condition().await;
    assert_eq!((condition.oldest, condition.history_problem), (Some((began, Some(time(10)))), None));
    assert!(condition.history_bytes > 0 && condition.free_bytes.is_some());
    let positions: Vec<_> = recorded.snapshots().await.expect("listed").iter().map(|kept| kept.position).collect();
    assert_eq!(positions, [began, written]);
    soon(recorded.close()).await;

    assert_eq!(home.runs(), [began.to_string()], "one run, through the restart");
    check(&home, &store).await;
    for (seconds, keys) in [
        (10, &["a", "dir/1", "dir/2"][..]),
        (29, &["a", "b", "dir/1", "dir/2"]),
        (30, &["a", "b", "dir/1", "dir/2", "secret"]),
        (39, &["a", "b", "dir/1", "dir/2", "secret"]),
        (40, &["a", "b", "c"]),
    ] {
        assert_eq!(home.keys_at(Target::Time(time(seconds))).expect("restored").1, keys, "at {seconds}");
    }
    assert!(home.keys_at(Target::Position(secret)).expect("restored").1.contains(&"secret".to_owned()));
}

#[tokio::test]
async fn what_etcd_has_forgotten_is_a_gap_after_which_another_run_begins() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let home = Home::new();
    let began = store.latest().await.expect("latest");
    let recorded = home.record(&store);
    caught_up(&recorded, &store).await;
    let end = commit(&store, [put("a", "")]).await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    let missed = commit(&store, [put("b", "")]).await;
    let next = commit(&store, [put("c", "")]).await;
    compact(&server, next).await;
    let recorded = home.record(&store);
    let last = commit(&store, [put("d", "")]).await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;

    let runs = home.runs();
    assert!(runs.len() == 2 && runs[0] == began.to_string(), "{runs:?}");
    check(&home, &store).await;
    assert_eq!(home.keys_at(Target::Position(end)).expect("restored").1, ["a"]);
    assert_eq!(home.keys_at(Target::Position(last)).expect("restored").1, ["a", "b", "c", "d"]);
    let refused = home.keys_at(Target::Position(missed)).expect_err("nobody has it").to_string();
    assert!(refused.contains(&format!("nothing was recorded of what was between {end}")), "{refused}");
}

#[tokio::test]
async fn an_etcd_that_was_put_back_is_noticed_by_the_history_and_another_run_begins() {
    let mut server = Server::start();
    let store = server.create(PREFIX).await;
    let home = Home::new();
    let began = commit(&store, [put("kept", "")]).await;
    let copy = server.copy();
    let recorded = home.record(&store);
    commit(&store, [put("lost", "")]).await;
    caught_up(&recorded, &store).await;
    // While it is recorded: it notices by itself, once etcd is back.
    server.put_back(&copy);
    let second = soon(async {
        loop {
            match store.latest().await {
                Ok(latest) if latest.epoch == Epoch(2) => break latest,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    let second = second.await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    assert_eq!(home.runs(), [began.to_string(), second.to_string()]);

    // While nobody runs: what is recorded is ahead of etcd, so the epoch rises, above all that were.
    drop(store);
    server.put_back(&copy);
    let store = server.open(PREFIX).await;
    assert_eq!(store.latest().await.expect("latest"), began, "nobody else can know");
    let recorded = home.record(&store);
    soon(async { while store.latest().await.map_or(true, |latest| latest.epoch < Epoch(3)) {} }).await;
    let third = store.load().await.expect("load").position();
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    assert_eq!(home.runs(), [began, second, third].map(|position| position.to_string()));
    check(&home, &store).await;

    // Or as far on as what is recorded, but not by the same transactions.
    drop(store);
    let store = server.open(PREFIX).await;
    // Nothing is left for a later opening to sweep away, which would take a revision.
    let copy = server.copy();
    let recorded = home.record(&store);
    // Connected again, so that no answer is lost.
    soon(async { while store.condition().await.writes != Writes::All {} }).await;
    let lost = commit(&store, [put("lost", "")]).await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    drop(store);
    server.put_back(&copy);
    let store = server.open(PREFIX).await;
    assert_eq!(commit(&store, [put("instead", "")]).await, lost);
    let recorded = home.record(&store);
    soon(async { while store.latest().await.map_or(true, |latest| latest.epoch < Epoch(4)) {} }).await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    assert_eq!(home.runs().len(), 4);
    check(&home, &store).await;
}

#[tokio::test]
async fn the_history_of_another_store_is_not_touched_and_the_store_goes_on() {
    let server = Server::start();
    let (one, two) = (server.create("one/").await, server.create("two/").await);
    let home = Home::new();
    let early = two.latest().await.expect("latest");
    commit(&one, [put("a", "")]).await;
    let recorded = home.record(&one);
    caught_up(&recorded, &one).await;
    soon(recorded.close()).await;
    let before = home.runs();
    let recorded = home.record(&two);
    let problem = soon(async {
        loop {
            match recorded.condition().await.history_problem {
                Some(problem) => break problem,
                None => tokio::task::yield_now().await,
            }
        }
    });
    let problem = problem.await;
    assert!(problem.contains("another store's history") && problem.contains("`etcd.history`"), "{problem}");
    assert_eq!(home.runs(), before);
    let refused = soon(recorded.snapshot()).await;
    assert!(matches!(&refused, Err(Error::NoHistory(why)) if why.ends_with(&problem)), "{refused:?}");
    assert!(commit(&two, [put("a", "")]).await > early);
    soon(recorded.close()).await;
}

#[tokio::test]
async fn a_directory_that_fails_stops_nothing_else_and_is_tried_again() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    let home = Home::new();
    fs::write(home.history(), "in its place").expect("written");
    let recorded = home.waiting(&store);
    recorded.recall().await;
    let problem = recorded.condition().await.history_problem.expect("it cannot be read");
    assert!(problem.contains("nobody here knows whether etcd was put back"), "{problem}");
    recorded.begin();
    commit(&store, [put("a", "")]).await;
    soon(async { while recorded.condition().await.history_problem.is_none_or(|now| now == problem) {} }).await;
    let tried = recorded.condition().await.history_problem.expect("it cannot be made");
    assert!(tried.contains("nobody here knows whether etcd was put back"), "{tried}");
    fs::remove_file(home.history()).expect("removed");
    // Without anything that is to be recorded.
    soon(async { while recorded.condition().await.history_problem.is_some() {} }).await;
    caught_up(&recorded, &store).await;
    // It is taken away in the middle: nothing is lost to the store, and the history begins again where that stands.
    let first = home.runs();
    fs::rename(home.newest(), home.0.path().join("elsewhere")).expect("moved");
    let refused = soon(recorded.snapshot()).await;
    assert!(refused.is_err(), "{refused:?}");
    let large = |at: u8| Change::Put(Key::new(format!("large/{at}")), vec![at; 90_000].into());
    soon(async {
        while home.runs().is_empty() || home.runs() == first {
            // Until the log is to begin a new segment, which it cannot there.
            commit(&store, (0..12).map(large).collect::<Vec<_>>()).await;
        }
    })
    .await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    check(&home, &store).await;
}

#[tokio::test]
async fn nothing_is_recorded_before_it_is_begun_and_what_was_recorded_counts_before() {
    let mut server = Server::start();
    let store = server.create(PREFIX).await;
    let home = Home::new();
    let waiting = home.waiting(&store);
    waiting.recall().await;
    soon(waiting.close()).await;
    assert!(!home.history().exists());

    let copy = server.copy();
    let recorded = home.record(&store);
    commit(&store, [put("lost", "")]).await;
    caught_up(&recorded, &store).await;
    soon(recorded.close()).await;
    drop((store, waiting, recorded));
    server.put_back(&copy);
    let store = server.open(PREFIX).await;
    let waiting = home.waiting(&store);
    waiting.recall().await;
    assert_eq!(waiting.load().await.expect("load").position().epoch, Epoch(2), "the first load says it");
    soon(waiting.close()).await;
}

#[tokio::test]
async fn another_store_that_has_come_further_is_not_recorded_in_its_place() {
    let server = Server::start();
    let one = server.create("one/").await;
    let home = Home::new();
    let recorded = home.record(&one);
    caught_up(&recorded, &one).await;
    soon(recorded.close()).await;
    let before = home.runs();
    let two = server.create("two/").await;
    commit(&two, [put("a", "")]).await;
    let recorded = home.record(&two);
    soon(async { while recorded.condition().await.history_problem.is_none() {} }).await;
    let problem = recorded.condition().await.history_problem.expect("it stays");
    assert!(problem.contains("another store's history"), "{problem}");
    assert_eq!(home.runs(), before);
    soon(recorded.close()).await;
}

#[tokio::test]
async fn a_clock_that_is_ahead_does_not_put_the_history_into_the_future() {
    let server = Server::start();
    Etcd::create(server.options(PREFIX)).await.expect("create");
    let [ahead, right] = [100_000, 10_000].map(|seconds| {
        let clock = Arc::new(Set::default());
        clock.to(seconds);
        clock
    });
    let wrong = Etcd::open_with(server.options(PREFIX), ahead).await.expect("open");
    let store = Etcd::open_with(server.options(PREFIX), right).await.expect("open");
    let home = Home::new();
    let recorded = home.record(&store);
    caught_up(&recorded, &store).await;
    commit(&wrong, [put("a", "")]).await;
    caught_up(&recorded, &store).await;
    let snapshot = soon(recorded.snapshot()).await.expect("a snapshot");
    assert_eq!(snapshot.time, Some(time(10_300)));
    soon(recorded.close()).await;
}

#[tokio::test]
async fn without_a_history_it_is_said_what_would_keep_one() {
    let server = Server::start();
    let store = server.create(PREFIX).await;
    for refused in [store.snapshot().await.map(drop), store.snapshots().await.map(drop)] {
        let Err(Error::NoHistory(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("this server keeps no history: `etcd.history`"), "{why}");
    }
}
