//! Random histories of snapshots, restarts and kills, every position of which is restored.

use proptest::prelude::*;

use super::{
    super::{Target, restore, verify},
    *,
};
use crate::store::{
    Epoch, Record, Revision,
    conformance::{Random, random_transaction},
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Commit(u64),
    Snapshot,
    /// Closed in good order, then opened.
    Reopen,
    /// Killed, and sled is gone.
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any::<u64>().prop_map(Step::Commit),
        2 => Just(Step::Snapshot),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// Small segments, so that there are some.
fn options() -> Options {
    Options { log_segment_bytes: 2_000, ..Options::default() }
}

async fn killed(dir: tempfile::TempDir, store: Embedded) -> (tempfile::TempDir, Embedded) {
    let image = tempfile::tempdir().expect("a directory");
    for part in ["log", "snapshots"] {
        if dir.path().join(part).exists() {
            copy(&dir.path().join(part), &image.path().join(part));
        }
    }
    fs::copy(dir.path().join("format"), image.path().join("format")).expect("copy");
    store.close().await.expect("close");
    let store = Embedded::open(image.path(), options()).await.expect("open");
    (image, store)
}

/// What a restored store shows.
async fn restored(source: &Path, target: Target) -> Shown {
    let parent = tempfile::tempdir().expect("a directory");
    let to = parent.path().join("restored");
    let told = restore(source, &to, target, None, &mut |_, _| {}).expect("restore");
    let store = open(&to).await;
    let shown = shown(&store).await;
    assert_eq!((told.position, told.records), (shown.0, shown.1.len() as u64));
    store.close().await.expect("close");
    let verified = verify(&to, &mut |_, _| {}, &mut |_| {}).expect("whole");
    assert_eq!((verified.position, verified.records), (shown.0, shown.1.len() as u64));
    shown
}

async fn every_position_is_restored(steps: Vec<Step>) {
    let mut dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let mut store = Embedded::open(dir.path(), options()).await.expect("open");
    let mut past: Vec<(Revision, Vec<Record>)> = Vec::new();
    for step in steps {
        match step {
            Step::Commit(seed) => {
                let last = past.last().map_or(Revision(0), |(revision, _)| *revision);
                let committed = store.commit(random_transaction(&mut Random(seed), last)).await.expect("commit");
                if let Ok(position) = committed {
                    let (at, records) = shown(&store).await;
                    assert_eq!(at, position);
                    past.push((position.revision, records));
                }
            }
            Step::Snapshot => {
                let snapshot = store.snapshot().await.expect("snapshot");
                let (position, records) = shown(&store).await;
                assert_eq!((snapshot.position, snapshot.records), (position, records.len() as u64));
            }
            Step::Reopen => {
                store.close().await.expect("close");
                store = Embedded::open(dir.path(), options()).await.expect("open");
            }
            Step::Kill => (dir, store) = killed(dir, store).await,
        }
        let records = past.last().map_or(&[][..], |(_, records)| records);
        assert_eq!(shown(&store).await.1, records, "{step:?}");
    }
    store.close().await.expect("close");
    for (revision, records) in &past {
        let wanted = Position { epoch: Epoch(1), revision: *revision };
        let (position, found) = restored(dir.path(), Target::Position(wanted)).await;
        assert_eq!((position, &found), (Position { epoch: Epoch(2), revision: *revision }, records), "{wanted}");
    }
    if let Some((revision, records)) = past.last() {
        let (position, found) = restored(dir.path(), Target::Newest).await;
        assert_eq!((position.revision, &found), (*revision, records));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn every_position_of_a_random_history_can_be_restored(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(every_position_is_restored(steps));
    }
}

#[tokio::test]
async fn a_snapshot_of_a_store_in_which_nothing_happened_since_it_was_closed() {
    use Step::{Commit, Kill, Reopen, Snapshot};
    every_position_is_restored(vec![Reopen, Snapshot, Kill, Commit(1), Commit(2), Kill]).await;
    // The log was divided for a snapshot that then failed; the next one is made after a restart.
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    fill(&store, 0..3).await;
    let snapshot = store.snapshot().await.expect("snapshot");
    let expected = shown(&store).await;
    store.close().await.expect("close");
    let file = dir.path().join("snapshots").join(format!("{:010}-{:020}.snapshot", 1, snapshot.position.revision.0));
    fs::remove_file(&file).expect("remove");
    let store = open(dir.path()).await;
    store.snapshot().await.expect("snapshot");
    store.close().await.expect("close");
    for part in ["sled", "log/00000000000000000001.log"] {
        let path = dir.path().join(part);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("remove");
    }
    assert_eq!(shown(&open(dir.path()).await).await, expected, "only the snapshot has it");
}

#[tokio::test]
async fn what_lacks_a_part_is_refused_and_never_passes_for_less() {
    let history = || async {
        let dir = tempfile::tempdir().expect("a directory");
        let store = create(dir.path()).await;
        for begin in [0, 3, 6] {
            fill(&store, begin..begin + 3).await;
            store.snapshot().await.expect("snapshot");
        }
        fill(&store, 9..11).await;
        store.close().await.expect("close");
        dir
    };
    let refused = |dir: &Path, target: Target| {
        let to = tempfile::tempdir().expect("a directory");
        let error =
            restore(dir, &to.path().join("new"), target, None, &mut |_, _| {}).expect_err("refused").to_string();
        assert!(error.starts_with(&dir.display().to_string()), "{error}");
        error
    };
    let position = |revision| Target::Position(Position { epoch: Epoch(1), revision: Revision(revision) });
    let remove = |dir: &Path, name: &str| fs::remove_file(dir.join(name)).expect("remove");
    let snapshot = |revision: u64| format!("snapshots/0000000001-{revision:020}.snapshot");

    let dir = history().await;
    remove(dir.path(), "log/00000000000000000007.log");
    remove(dir.path(), &snapshot(9));
    refused(dir.path(), Target::Newest);
    refused(dir.path(), position(8));
    assert_eq!(restored(dir.path(), position(6)).await.1.len(), 6, "what is before the gap is there");

    let dir = history().await;
    let elsewhere = history().await;
    for segment in ["00000000000000000010.log", "00000000000000000001.log"] {
        let path = Path::new("log").join(segment);
        fs::copy(elsewhere.path().join(&path), dir.path().join(&path)).expect("copy");
    }
    assert!(
        refused(dir.path(), Target::Newest).contains("log: damaged")
            || refused(dir.path(), Target::Newest).contains(".log")
    );
    assert!(refused(dir.path(), position(2)).contains("belongs to another store"));

    let dir = history().await;
    remove(dir.path(), "log/00000000000000000001.log");
    remove(dir.path(), "log/00000000000000000004.log");
    remove(dir.path(), &snapshot(3));
    let error = refused(dir.path(), position(2));
    assert!(error.contains("it begins at 1.6 of 20"), "{error}");
    let dir = history().await;
    fs::remove_dir_all(dir.path().join("log")).expect("remove");
    refused(dir.path(), Target::Newest);
}
