//! The contract of a store as tests, for every implementation and decorator.
//!
//! `store_conformance!(backend)` makes one test of each check; the backend is made anew for each.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{
    Change, Conflict, Epoch, Error, Expect, Follow, KEY_BYTES, Key, Next, Position, RECORD_BYTES, Record, Revision,
    Store, TRANSACTION_BYTES, TRANSACTION_CHANGES, TRANSACTION_EXPECTATIONS, Transaction, TransactionId,
};

/// A backend under test keeps this many commits for followers.
pub const HISTORY_COMMITS: usize = 256;

/// What is tested.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Two handles of a new, empty store that keeps [`HISTORY_COMMITS`] commits. Called once.
    async fn create(&self) -> [Arc<dyn Store>; 2];
    /// Ends the store and opens it again; `None` if it does not outlive its handles.
    async fn reopen(&self, handles: [Arc<dyn Store>; 2]) -> Option<[Arc<dyn Store>; 2]>;
}

/// Makes a test of each check.
#[macro_export]
macro_rules! store_conformance {
    ($backend:expr) => {
        $crate::store_conformance! { $backend;
            an_empty_store_is_empty
            records_stand_at_the_transaction_that_put_them
            a_transaction_happens_only_if_all_expectations_hold
            changes_are_made_in_order
            a_prefix_deletes_what_begins_with_it_and_nothing_else
            limits_are_kept_and_reached
            followers_see_each_commit_once_in_order
            a_follower_waits_without_losing_anything
            what_is_not_kept_is_a_gap
            a_load_is_of_one_position
            no_update_is_lost
            concurrent_transactions_match_the_model
            reopening_keeps_everything
        }
    };
    ($backend:expr; $($check:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            $crate::store::conformance::$check(&$backend).await;
        }
    )* };
}

/// A small generator of numbers (SplitMix64), so that a run can be repeated.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below a limit, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Puts a text.
pub fn put(key: &str, value: &str) -> Change {
    Change::Put(Key::new(key), value.as_bytes().into())
}

/// Deletes a key.
pub fn delete(key: &str) -> Change {
    Change::Delete(Key::new(key))
}

/// Deletes what begins with a prefix.
pub fn delete_prefix(prefix: &str) -> Change {
    Change::DeletePrefix(Key::new(prefix))
}

/// A transaction without expectations.
pub fn transaction(changes: impl Into<Vec<Change>>) -> Transaction {
    expecting([], changes)
}

/// A transaction with expectations.
pub fn expecting<const N: usize>(expectations: [(&str, Expect); N], changes: impl Into<Vec<Change>>) -> Transaction {
    Transaction {
        id: TransactionId::random().expect("randomness"),
        expectations: expectations.map(|(key, expect)| (Key::new(key), expect)).into(),
        changes: changes.into(),
    }
}

/// Everything there is, and of which position. Checks the pages on the way.
pub async fn records(store: &dyn Store) -> (Position, Vec<Record>) {
    let mut load = store.load().await.expect("load");
    let mut records = Vec::new();
    while let Some(page) = load.page().await.expect("page") {
        assert!(!page.is_empty(), "an empty page");
        let bytes: usize = page.iter().map(|record| record.key.as_str().len() + record.value.len()).sum();
        assert!(bytes <= (1 << 20) + RECORD_BYTES + KEY_BYTES, "a page of {bytes} bytes");
        records.extend(page);
    }
    assert!(records.is_sorted_by(|a, b| a.key < b.key), "records are not sorted by key");
    (load.position(), records)
}

/// Makes sure that a future has nothing to say yet.
pub async fn pending<T: std::fmt::Debug>(future: &mut (impl Future<Output = T> + Unpin)) {
    let polled = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await;
    assert!(polled.is_pending(), "it should wait: {polled:?}");
}

async fn commit(store: &dyn Store, transaction: Transaction) -> Position {
    store.commit(transaction).await.expect("commit").expect("no conflict")
}

async fn texts(store: &dyn Store) -> Vec<String> {
    let text = |record: &Record| format!("{}={}", record.key, String::from_utf8_lossy(&record.value));
    records(store).await.1.iter().map(text).collect()
}

async fn next(follower: &mut Box<dyn Follow>) -> super::Commit {
    match follower.next().await.expect("a follower goes on") {
        Next::Commit(commit) => commit,
        Next::Gap => panic!("a gap where history is kept"),
    }
}

/// What records and commits come to, computed in the plainest way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<Key, (Revision, Arc<[u8]>)>);

impl Model {
    fn of(records: Vec<Record>) -> Self {
        Self(records.into_iter().map(|record| (record.key, (record.revision, record.value))).collect())
    }

    fn apply(&mut self, commit: &super::Commit) {
        for change in commit.changes.iter() {
            match change {
                Change::Put(key, value) => {
                    drop(self.0.insert(key.clone(), (commit.position.revision, Arc::clone(value))))
                }
                Change::Delete(key) => drop(self.0.remove(key)),
                Change::DeletePrefix(prefix) => self.0.retain(|key, _| !key.as_str().starts_with(prefix.as_str())),
            }
        }
    }

    fn first_conflict(&self, expectations: &[(Key, Expect)]) -> Option<Conflict> {
        let found = |key: &Key| self.0.get(key).map(|(revision, _)| *revision);
        let (key, _) = expectations.iter().find(|(key, expect)| !expect.holds(found(key)))?;
        Some(Conflict { key: key.clone(), found: found(key) })
    }
}

/// Nothing is there, and both handles agree on it.
pub async fn an_empty_store_is_empty(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let latest = one.latest().await.expect("latest");
    assert_eq!(records(&*one).await, (latest, Vec::new()));
    assert_eq!(records(&*two).await, (latest, Vec::new()));
    assert!(latest.epoch >= Epoch(1));
}

/// Puts, overwrites, deletes; from either handle, seen by both; positions rise.
pub async fn records_stand_at_the_transaction_that_put_them(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let before = one.latest().await.expect("latest");
    let first = commit(&*one, transaction([put("a", "1"), put("b", "1"), put("empty", "")])).await;
    let second = commit(&*two, transaction([put("b", "2"), delete("missing")])).await;
    assert!(before < first && first < second && first.revision >= Revision(1));
    for store in [&one, &two] {
        let (position, records) = records(&**store).await;
        let stands: Vec<_> = records.iter().map(|record| (record.key.as_str(), record.revision)).collect();
        assert_eq!(stands, [("a", first.revision), ("b", second.revision), ("empty", first.revision)]);
        assert_eq!(position, second);
        assert_eq!(store.latest().await, Ok(second));
    }
    commit(&*one, transaction([delete("a"), delete("empty")])).await;
    assert_eq!(texts(&*two).await, ["b=2"]);
}

/// Expectations on keys that are and are not changed; the first that fails is named; then nothing happens.
pub async fn a_transaction_happens_only_if_all_expectations_hold(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let at = commit(&*one, transaction([put("a", "1")])).await.revision;
    let holds = [
        ("a", Expect::Present, "none", Expect::Absent),
        ("a", Expect::At(at), "a", Expect::Present),
        ("none", Expect::Absent, "also-none", Expect::Absent),
    ];
    for (key, expect, other, other_expect) in holds {
        commit(&*two, expecting([(key, expect), (other, other_expect)], [put("elsewhere", "1")])).await;
    }
    let before = (one.latest().await, records(&*one).await);
    let conflicts = [
        ("a", Expect::Absent, Some(at)),
        ("a", Expect::At(Revision(at.0 + 1)), Some(at)),
        ("none", Expect::Present, None),
        ("none", Expect::At(at), None),
        // A prefix of a key is another key.
        ("else", Expect::Present, None),
    ];
    for (key, expect, found) in conflicts {
        let refused = expecting(
            [("a", Expect::Present), (key, expect), ("never", Expect::Present)],
            [put("a", "2"), put("c", "2"), delete_prefix("e")],
        );
        let conflict = Conflict { key: Key::new(key), found };
        assert_eq!(two.commit(refused).await, Ok(Err(conflict)), "{key} {expect:?}");
    }
    assert_eq!((one.latest().await, records(&*one).await), before);
}

/// A later change of a key wins, whatever the kinds; expectations see the state before all of them.
pub async fn changes_are_made_in_order(backend: &dyn Backend) {
    let [one, _] = backend.create().await;
    commit(&*one, transaction([put("p/1", "old"), put("p/2", "old"), put("q", "old")])).await;
    let changes = [put("p/3", "gone"), delete_prefix("p/"), put("p/2", "new"), put("q", "1"), put("q", "2")];
    commit(&*one, expecting([("p/1", Expect::Present), ("p/3", Expect::Absent)], changes)).await;
    assert_eq!(texts(&*one).await, ["p/2=new", "q=2"]);
    commit(&*one, transaction([put("r", "1"), delete("r"), delete("q"), put("q", "3"), delete_prefix("p")])).await;
    assert_eq!(texts(&*one).await, ["q=3"]);
}

/// Neighbours in the order of keys stay.
pub async fn a_prefix_deletes_what_begins_with_it_and_nothing_else(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let keys = ["a", "a.", "a/", "a/1", "a/\u{10ffff}", "a/é/x", "a0", "b", "b/a/"];
    commit(&*one, transaction(keys.map(|key| put(key, "")))).await;
    commit(&*two, transaction([delete_prefix("a/"), delete_prefix("none")])).await;
    assert_eq!(texts(&*one).await, ["a=", "a.=", "a0=", "b=", "b/a/="]);
}

/// What breaks a limit is refused before anything happens; what reaches it is not.
pub async fn limits_are_kept_and_reached(backend: &dyn Backend) {
    let [one, _] = backend.create().await;
    let empty = one.latest().await;
    let bytes = |length| -> Arc<[u8]> { vec![7; length].into() };
    let key = |length| Key::new("k".repeat(length));
    let numbered = |count: usize| (0..count).map(|at| put(&format!("{at:04}"), "")).collect::<Vec<_>>();
    let expected = |count: usize| {
        let expectations = (0..count).map(|at| (Key::new(format!("{at}-none")), Expect::Absent)).collect();
        Transaction { expectations, ..transaction([put("a", "")]) }
    };
    let filled = |length: usize| {
        let whole = length / RECORD_BYTES;
        let put = |at: usize, bytes| Change::Put(Key::new(format!("{at:02}")), bytes);
        let mut changes: Vec<_> = (0..whole).map(|at| put(at, bytes(RECORD_BYTES - 2))).collect();
        changes.push(put(whole, bytes(length % RECORD_BYTES - 2)));
        assert_eq!(changes.iter().map(Change::bytes).sum::<usize>(), length);
        transaction(changes)
    };
    let invalid = [
        transaction([]),
        transaction(numbered(TRANSACTION_CHANGES + 1)),
        expected(TRANSACTION_EXPECTATIONS + 1),
        transaction([put("", "x")]),
        transaction([delete_prefix("")]),
        transaction([Change::Delete(key(KEY_BYTES + 1))]),
        Transaction { expectations: vec![(key(KEY_BYTES + 1), Expect::Absent)], ..transaction([put("a", "")]) },
        transaction([Change::Put(key(1), bytes(RECORD_BYTES + 1))]),
        filled(TRANSACTION_BYTES + 1),
    ];
    for (at, refused) in invalid.into_iter().enumerate() {
        let outcome = one.commit(refused).await;
        assert!(matches!(outcome, Err(Error::Invalid(_))), "case {at}: {outcome:?}");
    }
    assert_eq!(one.latest().await, empty);
    let largest = [
        transaction(numbered(TRANSACTION_CHANGES)),
        expected(TRANSACTION_EXPECTATIONS),
        transaction([Change::Put(key(KEY_BYTES), bytes(RECORD_BYTES))]),
        filled(TRANSACTION_BYTES),
    ];
    for largest in largest {
        commit(&*one, largest).await;
    }
    let (_, records) = records(&*one).await;
    let long = records.iter().find(|record| record.key == key(KEY_BYTES)).expect("the longest key");
    assert_eq!(long.value, bytes(RECORD_BYTES));
    assert_eq!(records.len(), TRANSACTION_CHANGES + 1 + 1 + TRANSACTION_BYTES.div_ceil(RECORD_BYTES));
}

/// Whole transactions, as they were given, none missing, none twice; for followers of both handles, from any position.
pub async fn followers_see_each_commit_once_in_order(backend: &dyn Backend) {
    const WRITERS: usize = 4;
    const EACH: usize = 20;
    let [one, two] = backend.create().await;
    let start = one.latest().await.expect("latest");
    let mut followers =
        vec![one.changes(start).await.expect("a follower"), two.changes(start).await.expect("a follower")];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone([&one, &two][writer % 2]);
        writers.spawn(async move {
            let mut made = Vec::new();
            for at in 0..EACH {
                let changes =
                    vec![put(&format!("{writer}/{at}"), "x"), delete_prefix(&format!("{writer}/")), put("shared", "y")];
                made.push((commit(&*store, transaction(changes.clone())).await, changes));
            }
            made
        });
    }
    let mut made = writers.join_all().await.concat();
    made.sort_by_key(|(position, _)| *position);
    let middle = made[made.len() / 2].0;
    followers.push(two.changes(start).await.expect("a late follower"));
    for follower in &mut followers {
        for (position, changes) in &made {
            let seen = next(follower).await;
            assert_eq!((seen.position, &*seen.changes), (*position, &changes[..]));
        }
        pending(&mut follower.next()).await;
    }
    let mut late = one.changes(middle).await.expect("a follower from the middle");
    assert_eq!(next(&mut late).await.position, made[made.len() / 2 + 1].0);
}

/// Waiting can be given up and taken up again.
pub async fn a_follower_waits_without_losing_anything(backend: &dyn Backend) {
    let [one, two] = backend.create().await;
    let mut follower = two.changes(one.latest().await.expect("latest")).await.expect("a follower");
    for at in 0..3 {
        pending(&mut follower.next()).await;
        let position = commit(&*one, transaction([put("key", &at.to_string())])).await;
        assert_eq!(next(&mut follower).await.position, position);
    }
    let refused = one.commit(expecting([("key", Expect::Absent)], [put("key", "x")])).await;
    assert!(matches!(refused, Ok(Err(_))));
    pending(&mut follower.next()).await;
}

/// Too old, of another epoch, or not there yet; also for a follower that was in time once.
pub async fn what_is_not_kept_is_a_gap(backend: &dyn Backend) {
    let [one, _] = backend.create().await;
    let start = one.latest().await.expect("latest");
    let mut slow = one.changes(start).await.expect("a follower");
    let mut writers = JoinSet::new();
    for at in 0..HISTORY_COMMITS + 1 {
        let store = Arc::clone(&one);
        writers.spawn(async move { commit(&*store, transaction([put("key", &at.to_string())])).await });
    }
    writers.join_all().await;
    assert_eq!(slow.next().await, Ok(Next::Gap));
    let latest = one.latest().await.expect("latest");
    let positions = [
        start,
        Position { epoch: Epoch(latest.epoch.0 - 1), ..latest },
        Position { epoch: Epoch(latest.epoch.0 + 1), ..latest },
        Position { revision: Revision(latest.revision.0 + 1), ..latest },
    ];
    for position in positions {
        let mut follower = one.changes(position).await.expect("a follower");
        assert_eq!(follower.next().await, Ok(Next::Gap), "{position}");
    }
    let mut follower = one.changes(latest).await.expect("a follower");
    let position = commit(&*one, transaction([put("key", "last")])).await;
    assert_eq!(next(&mut follower).await.position, position);
}

/// While commits go on: every load shows whole transactions, what was acknowledged before, and continues into changes.
pub async fn a_load_is_of_one_position(backend: &dyn Backend) {
    const KEYS: usize = 40;
    const LOADS: usize = 5;
    let [one, two] = backend.create().await;
    let value = |at: usize| format!("{at:04}").repeat(2_000);
    let changes = move |at: usize| (0..KEYS).map(|key| put(&format!("k{key:02}"), &value(at))).collect::<Vec<_>>();
    // Large records between them, so that there are several pages.
    for key in 0..KEYS {
        commit(&*one, transaction([put(&format!("k{key:02}-large"), &"x".repeat(RECORD_BYTES))])).await;
    }
    commit(&*one, transaction(changes(0))).await;
    let enough = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (one, enough) = (Arc::clone(&one), Arc::clone(&enough));
        async move {
            for at in 1.. {
                commit(&*one, transaction(changes(at))).await;
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..LOADS {
        let before = two.latest().await.expect("latest");
        let (position, mut records) = records(&*two).await;
        assert!(position >= before);
        records.retain(|record| !record.key.as_str().ends_with("large"));
        let first = &records[0].value;
        let whole = records.iter().all(|record| record.value == *first && record.revision == position.revision);
        assert!(whole && records.len() == KEYS, "records of several positions");

        let mut model = Model::of(records);
        let mut follower = two.changes(position).await.expect("a follower");
        let next = next(&mut follower).await;
        model.apply(&next);
        assert!(next.position > position && model.0.values().all(|(at, _)| *at == next.position.revision));
    }
    enough.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends well");
}

/// Concurrent read-modify-write on one record, with expectations: every increment counts.
pub async fn no_update_is_lost(backend: &dyn Backend) {
    const TASKS: usize = 6;
    const EACH: usize = 10;
    let [one, two] = backend.create().await;
    commit(&*one, transaction([put("counter", "0")])).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone([&one, &two][task % 2]);
        tasks.spawn(async move {
            for _ in 0..EACH {
                loop {
                    let (_, records) = records(&*store).await;
                    let number: usize = String::from_utf8_lossy(&records[0].value).parse().expect("a number");
                    let expect = [("counter", Expect::At(records[0].revision))];
                    let change = [put("counter", &(number + 1).to_string())];
                    if store.commit(expecting(expect, change)).await.expect("commit").is_ok() {
                        break;
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(texts(&*one).await, [format!("counter={}", TASKS * EACH)]);
}

/// Random transactions from many tasks: replaying the changes in order, every success was allowed at its place, every
/// conflict was true at some place, and the end is what the model says.
pub async fn concurrent_transactions_match_the_model(backend: &dyn Backend) {
    const TASKS: u64 = 8;
    const EACH: usize = 25;
    let [one, two] = backend.create().await;
    let start = one.latest().await.expect("latest");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = Arc::clone([&one, &two][task as usize % 2]);
        tasks.spawn(async move {
            let mut random = Random(task);
            let mut outcomes = Vec::new();
            let mut seen = Revision(1);
            for _ in 0..EACH {
                let transaction = random_transaction(&mut random, seen);
                let outcome = store.commit(transaction.clone()).await.expect("commit");
                if let Ok(position) = &outcome {
                    seen = position.revision;
                }
                outcomes.push((transaction, outcome));
            }
            outcomes
        });
    }
    let outcomes = tasks.join_all().await.concat();
    let mut made: Vec<_> = outcomes.iter().filter_map(|(made, outcome)| Some((outcome.as_ref().ok()?, made))).collect();
    made.sort_by_key(|(position, _)| **position);
    let mut refused: Vec<_> =
        outcomes.iter().filter_map(|(made, outcome)| Some((made, outcome.as_ref().err()?))).collect();
    let mut model = Model::default();
    let mut follower = one.changes(start).await.expect("a follower");
    for (position, transaction) in &made {
        assert_eq!(model.first_conflict(&transaction.expectations), None, "allowed at {position}");
        refused.retain(|(refused, conflict)| model.first_conflict(&refused.expectations).as_ref() != Some(conflict));
        let seen = next(&mut follower).await;
        assert_eq!((seen.position, &*seen.changes), (**position, &transaction.changes[..]));
        model.apply(&seen);
    }
    refused.retain(|(refused, conflict)| model.first_conflict(&refused.expectations).as_ref() != Some(conflict));
    assert!(refused.is_empty(), "conflicts that were never true: {refused:?}");
    assert_eq!(Model::of(records(&*two).await.1), model);
}

/// A transaction on few keys, so that many meet.
pub fn random_transaction(random: &mut Random, seen: Revision) -> Transaction {
    let key = |random: &mut Random| Key::new(format!("{}/{}", random.below(3), random.below(4)));
    let expectations = (0..random.below(3))
        .map(|_| {
            let expect = match random.below(4) {
                0 => Expect::Absent,
                1 => Expect::Present,
                _ => Expect::At(seen),
            };
            (key(random), expect)
        })
        .collect();
    let changes = (0..1 + random.below(4))
        .map(|_| match random.below(6) {
            0 => Change::Delete(key(random)),
            1 => Change::DeletePrefix(Key::new(format!("{}/", random.below(3)))),
            _ => Change::Put(key(random), vec![random.below(256) as u8; random.below(300) as usize].into()),
        })
        .collect();
    Transaction { id: TransactionId::random().expect("randomness"), expectations, changes }
}

/// Records, revisions and position survive, and history goes on from there.
pub async fn reopening_keeps_everything(backend: &dyn Backend) {
    let mut handles = backend.create().await;
    let mut random = Random(42);
    for round in 0..3 {
        let mut seen = handles[0].latest().await.expect("latest").revision;
        for _ in 0..20 {
            let outcome = handles[0].commit(random_transaction(&mut random, seen)).await.expect("commit");
            seen = outcome.map_or(seen, |position| position.revision);
        }
        let before = (handles[0].latest().await, records(&*handles[0]).await);
        let Some(reopened) = backend.reopen(handles).await else { return };
        handles = reopened;
        assert_eq!((handles[0].latest().await, records(&*handles[1]).await), before, "round {round}");
        let latest = before.0.expect("latest");
        let mut follower = handles[1].changes(latest).await.expect("a follower goes on where it was");
        let position = commit(&*handles[0], transaction([put("again", "x")])).await;
        assert!(position > latest);
        assert_eq!(next(&mut follower).await.position, position);
    }
}
