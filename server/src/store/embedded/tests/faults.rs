//! Disks that fail: what is answered, what is not, and what stands afterwards.

use std::{io::ErrorKind, time::Duration};

use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    super::applier::GROUPS_BEHIND_MAX,
    disk::{Fault, On, TestDisk},
    *,
};
use crate::store::{
    Error, Expect, Next, Writes,
    conformance::{delete, expecting, pending},
};

/// What does not happen is watched for this long. Too short can hide a mistake, never make one up.
const A_WHILE: Duration = Duration::from_millis(30);

async fn start(options: Options) -> (TempDir, TestDisk, Embedded) {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let disk = TestDisk::default();
    let store = Embedded::open_on(dir.path(), options, ground(&disk)).await.expect("open");
    (dir, disk, store)
}

type Task = tokio::task::JoinHandle<super::super::writer::Outcome>;

fn spawn(store: &Embedded, transaction: Transaction) -> Task {
    let store = store.clone();
    tokio::spawn(async move { store.commit(transaction).await })
}

/// Commits while the log hangs: all are waiting in the queue when this returns, in this order.
async fn queue(store: &Embedded, transactions: impl IntoIterator<Item = Transaction>) -> Vec<Task> {
    let mut tasks = Vec::new();
    for transaction in transactions {
        let before = store.requests.capacity();
        tasks.push(spawn(store, transaction));
        while store.requests.capacity() == before {
            tokio::task::yield_now().await;
        }
    }
    tasks
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_retried() {
    let (dir, disk, store) = start(Options::default()).await;
    fill(&store, 0..3).await;
    let before = shown(&store).await;
    disk.fail(On::Log, Fault::Sync(ErrorKind::Other));
    let outcome = store.commit(transaction([put("lost", "or not")])).await;
    assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
    let calls = disk.log_calls();
    for _ in 0..3 {
        let later = store.commit(transaction([put("later", "x")])).await;
        assert!(matches!(&later, Err(Error::Failed(why)) if why.contains("syncing the log")), "{later:?}");
    }
    assert!(matches!(store.close().await, Err(Error::Failed(_))));
    assert_eq!(disk.log_calls(), calls, "the log was touched after a failed sync");

    let (again, position) = shown_after_reopening(dir.path()).await;
    let names: Vec<_> = again.iter().map(|record| record.key.as_str()).collect();
    assert!(names == ["key-0", "key-1", "key-2"] || names == ["key-0", "key-1", "key-2", "lost"], "{names:?}");
    assert!(position >= before.0);
}

async fn shown_after_reopening(dir: &Path) -> (Vec<crate::store::Record>, Position) {
    let store = open(dir).await;
    let (position, records) = shown(&store).await;
    // It works again.
    commit(&store, transaction([put("again", "x"), delete("again")])).await;
    store.close().await.expect("close");
    (records, position)
}

#[tokio::test]
async fn reads_go_on_after_a_failed_sync() {
    let (_dir, disk, store) = start(Options::default()).await;
    let begin = store.latest().await.expect("latest");
    fill(&store, 0..3).await;
    let before = shown(&store).await;
    disk.fail(On::Log, Fault::Sync(ErrorKind::Other));
    assert!(store.commit(transaction([put("lost", "or not")])).await.is_err());
    assert_eq!(shown(&store).await, before);
    assert_eq!(store.latest().await, Ok(before.0));
    let mut follower = store.changes(begin).await.expect("a follower");
    for _ in 0..3 {
        assert!(matches!(follower.next().await, Ok(Next::Commit(_))));
    }
    pending(&mut follower.next()).await;
}

#[tokio::test]
async fn after_a_failed_write_the_store_has_failed() {
    for keep in [0, 30, 80, 10_000] {
        let (dir, disk, store) = start(Options::default()).await;
        fill(&store, 0..2).await;
        let before = shown(&store).await;
        disk.fail(On::Log, Fault::Write(keep, ErrorKind::Other));
        let outcome = store.commit(transaction([put("lost", "or not")])).await;
        assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
        let later = store.commit(transaction([delete("key-0")])).await;
        assert!(matches!(later, Err(Error::Failed(_))), "{later:?}");
        assert!(store.close().await.is_err());
        let (records, _) = shown_after_reopening(dir.path()).await;
        // Whole or not at all; with the whole frame written it stands.
        assert_eq!(records.len(), before.1.len() + usize::from(keep == 10_000), "{keep} bytes written");
    }
}

#[tokio::test]
async fn a_full_disk_is_answered_with_full_and_work_goes_on() {
    let (dir, disk, store) = start(Options::default()).await;
    fill(&store, 0..2).await;
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        disk.fail(On::Log, Fault::Write(60, kind));
        let outcome = store.commit(transaction([put("big", "x")])).await;
        assert!(matches!(outcome, Err(Error::Exhausted(_))), "{outcome:?}");
    }
    commit(&store, transaction([delete("key-0")])).await;
    commit(&store, transaction([put("new", "x")])).await;
    let before = shown(&store).await;
    assert_eq!(before.1.len(), 2);
    // Without closing: what a kill leaves must open, too.
    drop(store);
    let store = open_when_free(dir.path()).await;
    assert_eq!(shown(&store).await, before);
}

#[tokio::test]
async fn deletes_beside_puts_that_do_not_fit_pass() {
    let (_dir, disk, store) = start(Options::default()).await;
    fill(&store, 0..2).await;
    disk.fail(On::Log, Fault::HangSync);
    let first = spawn(&store, transaction([put("first", "x")]));
    disk.hung(1).await;
    let group = queue(&store, [transaction([put("big", "x")]), transaction([delete("key-0")])]).await;
    disk.fail(On::Log, Fault::Write(20, ErrorKind::StorageFull));
    disk.release();
    let mut outcomes = Vec::new();
    for task in [first].into_iter().chain(group) {
        outcomes.push(task.await.expect("the task ends"));
    }
    assert!(matches!(outcomes[..], [Ok(Ok(_)), Err(Error::Full(_)), Ok(Ok(_))]), "{outcomes:?}");
}

#[tokio::test]
async fn a_full_disk_that_cannot_be_cut_back_is_a_failure() {
    let (dir, disk, store) = start(Options::default()).await;
    fill(&store, 0..2).await;
    let before = shown(&store).await;
    disk.fail(On::Log, Fault::Write(60, ErrorKind::StorageFull));
    disk.fail(On::Log, Fault::Truncate);
    let outcome = store.commit(transaction([put("big", "x")])).await;
    assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
    assert!(matches!(store.commit(transaction([delete("key-0")])).await, Err(Error::Failed(_))));
    assert!(store.close().await.is_err());
    assert_eq!(shown_after_reopening(dir.path()).await.0, before.1);
}

#[tokio::test]
async fn nothing_is_answered_or_shown_before_the_sync_and_one_sync_serves_all() {
    let (_dir, disk, store) = start(Options::default()).await;
    let begin = store.latest().await.expect("latest");
    let mut follower = store.changes(begin).await.expect("a follower");
    let syncs = disk.log_calls().1;
    disk.fail(On::Log, Fault::HangSync);
    disk.fail(On::Log, Fault::HangSync);
    let mut first = spawn(&store, transaction([put("first", "x")]));
    disk.hung(1).await;
    assert!(timeout(A_WHILE, &mut first).await.is_err(), "answered before the sync");
    pending(&mut follower.next()).await;
    assert_eq!(store.latest().await, Ok(begin));

    // These form the next group; the last one speaks of what another of them does.
    let mut transactions: Vec<_> = (0..9).map(|at| transaction([put(&format!("{at}"), "x")])).collect();
    transactions.push(expecting([("3", Expect::Absent)], [put("never", "x")]));
    let mut group = queue(&store, transactions).await;
    disk.release();
    assert!(first.await.expect("the task ends").expect("commit").is_ok());
    disk.hung(2).await;
    for task in &mut group {
        assert!(timeout(A_WHILE / 10, task).await.is_err(), "answered before the sync");
    }
    disk.release();
    let mut conflicts = 0;
    for task in group {
        conflicts += usize::from(task.await.expect("the task ends").expect("commit").is_err());
    }
    assert_eq!(conflicts, 1);
    assert_eq!(disk.log_calls().1, syncs + 2, "one sync for each group");
}

#[tokio::test]
async fn what_sled_fails_to_take_is_in_the_log() {
    let (dir, disk, store) = start(Options::default()).await;
    fill(&store, 0..3).await;
    let _ = shown(&store).await;
    disk.fail(On::Sled, Fault::Sync(ErrorKind::Other));
    let mut acknowledged = 3;
    let failed = loop {
        let next = transaction([put(&format!("key-{acknowledged}"), "x")]);
        match store.commit(next).await {
            Ok(outcome) => acknowledged += usize::from(outcome.is_ok()),
            Err(error) => break error,
        }
    };
    assert!(matches!(&failed, Error::Failed(why) if why.contains("sled")), "{failed:?}");
    assert!(acknowledged > 3);
    let loaded = store.load().await.err();
    assert!(matches!(loaded, Some(Error::Failed(_))), "{loaded:?}");
    assert!(store.close().await.is_err());
    assert_eq!(shown_after_reopening(dir.path()).await.0.len(), acknowledged);
}

#[tokio::test]
async fn the_log_waits_for_a_sled_that_is_too_far_behind() {
    let (_dir, disk, store) = start(Options::default()).await;
    disk.fail(On::Sled, Fault::HangSync);
    fill(&store, 0..GROUPS_BEHIND_MAX).await;
    let mut next = spawn(&store, transaction([put("next", "x")]));
    disk.hung(1).await;
    assert!(timeout(A_WHILE, &mut next).await.is_err(), "sled is further behind than it may be");
    disk.release();
    assert!(next.await.expect("the task ends").expect("commit").is_ok());
    assert_eq!(shown(&store).await.1.len(), GROUPS_BEHIND_MAX + 1);
}

#[tokio::test]
async fn a_sled_that_hangs_is_said_to_and_forgiven_when_it_moves() {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let disk = TestDisk::default();
    let impatient = Ground { sled_patience: A_WHILE, ..ground(&disk) };
    let store = Embedded::open_on(dir.path(), Options::default(), impatient).await.expect("open");
    disk.fail(On::Sled, Fault::HangSync);
    fill(&store, 0..GROUPS_BEHIND_MAX).await;
    for _ in 0..2 {
        let outcome = store.commit(transaction([put("next", "x")])).await;
        assert!(matches!(&outcome, Err(Error::Unavailable(why)) if why.contains("do not move")), "{outcome:?}");
        let writes = store.condition().await.writes;
        assert!(matches!(&writes, Writes::Nothing(why) if why.contains("do not move")), "{writes:?}");
    }
    disk.release();
    // Nothing of what was refused happened, and it passes as soon as sled has moved.
    assert_eq!(shown(&store).await.1.len(), GROUPS_BEHIND_MAX);
    commit(&store, transaction([put("next", "x")])).await;
    assert_eq!(store.condition().await.writes, Writes::All);
}

#[tokio::test]
async fn little_space_is_kept_for_deletes_and_the_rest_for_what_is_under_way() {
    let options = Options { reserve_bytes: Some(1_000), floor_bytes: Some(100), ..Options::default() };
    let (_dir, disk, store) = start(options).await;
    let puts = || store.commit(transaction([put("new", "x"), delete("other")]));
    let deletes = || store.commit(transaction([delete("key-0")]));
    fill(&store, 0..2).await;
    disk.set_free(999);
    assert!(matches!(puts().await, Err(Error::Full(_))));
    assert!(deletes().await.is_ok());
    disk.set_free(99);
    assert!(matches!(puts().await, Err(Error::Exhausted(_))));
    assert!(matches!(deletes().await, Err(Error::Exhausted(_))));
    assert_eq!(shown(&store).await.1.len(), 1, "reads go on");
    disk.set_free(1_000);
    assert!(puts().await.is_ok());
    assert!(deletes().await.is_ok());
}

#[tokio::test]
async fn segments_follow_each_other_and_old_ones_go() {
    let options = Options { log_segment_bytes: 600, retention: Duration::ZERO, ..Options::default() };
    let (dir, disk, store) = start(options).await;
    let segments = || fs::read_dir(dir.path().join("log")).expect("list").count();
    fill(&store, 0..20).await;
    // There is no room for a segment: the current one grows.
    disk.fail(On::Log, Fault::Create);
    fill(&store, 20..40).await;
    let before = shown(&store).await;
    assert!(log_file(dir.path()).exists(), "as long as no snapshot stands for it");
    store.snapshot().await.expect("a snapshot");
    // What may go goes with the next commit.
    commit(&store, transaction([delete("none")])).await;
    assert!(segments() <= 2, "{} segments", segments());
    store.close().await.expect("close");
    let store = Embedded::open(dir.path(), options).await.expect("open");
    assert_eq!(shown(&store).await.1, before.1);
    // While sled stands still, nothing of what it lacks goes.
    store.close().await.expect("close");
    let disk = TestDisk::default();
    let store = Embedded::open_on(dir.path(), options, ground(&disk)).await.expect("open");
    disk.fail(On::Sled, Fault::HangSync);
    fill(&store, 40..80).await;
    assert!(segments() > 3, "{} segments", segments());
    let image = tempfile::tempdir().expect("a directory");
    disk.hung(1).await;
    copy(&dir.path().join("log"), image.path());
    disk.release();
    assert_eq!(shown(&store).await.1.len(), 80);
}
