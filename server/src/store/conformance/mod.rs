//! The contract of a store as tests, for every implementation and decorator.
//!
//! `store_conformance!(backend)` makes one test of each check; the backend is made anew for each.

mod concurrency;
mod following;
mod model;
mod transactions;

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

pub use concurrency::*;
pub use following::*;
use model::Model;
pub use transactions::*;

/// A backend under test keeps this many commits for followers.
pub const HISTORY_COMMITS: usize = 256;

/// What is tested.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Two handles of a new, empty store that keeps [`HISTORY_COMMITS`] commits. Called once.
    async fn create(&self) -> [Arc<dyn Store>; 2];
    /// Ends the store and opens it again; `None` if it does not outlive its handles.
    async fn reopen(&self, handles: [Arc<dyn Store>; 2]) -> Option<[Arc<dyn Store>; 2]>;
    /// Lets go of all history, where a number of commits is no bound of it.
    async fn forget(&self) {}
    /// Whether followers are told what a transaction came to, instead of the changes that it was given.
    fn tells_effects(&self) -> bool {
        false
    }
}

/// Makes a test of each check.
#[macro_export]
macro_rules! store_conformance {
    ($backend:expr) => {
        $crate::store_conformance! { $backend;
            an_empty_store_is_empty
            records_stand_at_the_transaction_that_put_them
            a_transaction_happens_only_if_all_expectations_hold
            none_below_sees_what_was_put_and_deleted_before
            changes_are_made_in_order
            a_prefix_deletes_what_begins_with_it_and_nothing_else
            limits_are_kept_and_reached
            what_another_epoch_decided_is_refused
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
        epoch: None,
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
