//! When snapshots are made and how long they stay, and what happens when making one fails.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    super::{Target, restore},
    disk::{Fault, On, TestDisk},
    *,
};
use crate::{
    clock::{Clock, SystemClock},
    store::{Error, Snapshot},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(20);

/// So many hours ahead of the real clock, and how often it was asked.
#[derive(Default)]
struct Ahead {
    hours: AtomicU64,
    asked: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> SystemTime {
        self.asked.fetch_add(1, Ordering::Relaxed);
        SystemClock.now() + Duration::from_secs(60 * 60) * self.hours.load(Ordering::Relaxed) as u32
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<Ahead>,
    disk: TestDisk,
    store: Embedded,
}

impl World {
    async fn new(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Embedded::create(dir.path()).await.expect("create");
        let (clock, disk) = (Arc::new(Ahead::default()), TestDisk::default());
        let ground =
            Ground { clock: Arc::<Ahead>::clone(&clock), looks_every: Duration::from_millis(2), ..ground(&disk) };
        let store = Embedded::open_on(dir.path(), options, ground).await.expect("open");
        Self { dir, clock, disk, store }
    }

    /// Waits until the keeper has looked several times.
    async fn looked(&self) {
        let before = self.clock.asked.load(Ordering::Relaxed);
        self.until(|| async { self.clock.asked.load(Ordering::Relaxed) >= before + 6 }).await;
    }

    async fn until<F: Future<Output = bool>>(&self, mut holds: impl FnMut() -> F) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !holds().await {
            assert!(tokio::time::Instant::now() < until, "it does not come to pass");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Writes until the log begins behind a revision: it is cut when it is written, once the keeper has told from where on
    /// it is needed, up to what sled has.
    async fn cut_behind(&self, revision: u64) {
        let revision = format!("{revision:020}.log");
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.files("log")[0] <= revision {
            assert!(tokio::time::Instant::now() < until, "the log is not cut");
            fill(&self.store, 12..13).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn snapshots(&self) -> Vec<u64> {
        let kept: Vec<Snapshot> = self.store.snapshots().await.expect("list");
        kept.iter().map(|kept| kept.position.revision.0).collect()
    }

    fn pass(&self, time: Duration) {
        self.clock.hours.fetch_add(time.as_secs() / 3_600, Ordering::Relaxed);
    }

    fn files(&self, part: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path().join(part))
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_made_each_day_on_which_something_was_committed() {
    let world = World::new(Options::default()).await;
    world.pass(DAY * 2);
    world.looked().await;
    assert!(world.snapshots().await.is_empty(), "nothing was committed");
    fill(&world.store, 0..1).await;
    world.until(|| async { world.snapshots().await == [1] }).await;
    world.looked().await;
    assert_eq!(world.snapshots().await, [1], "nothing was committed since");
    fill(&world.store, 1..2).await;
    // The clock is ahead of the file's time by two days already.
    world.until(|| async { world.snapshots().await == [1, 2] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_retention_goes_and_the_rest_can_be_restored() {
    let options = Options { retention: DAY * 3, log_segment_bytes: 400, ..Options::default() };
    let world = World::new(options).await;
    fill(&world.store, 0..6).await;
    let oldest = world.store.snapshot().await.expect("snapshot").position;
    world.looked().await;
    fill(&world.store, 6..12).await;
    world.store.snapshot().await.expect("snapshot");
    world.looked().await;
    assert!(world.snapshots().await.starts_with(&[6, 12]), "both are young");
    assert_eq!(world.files("log")[0], "00000000000000000001.log");
    assert_eq!(world.store.condition().await.oldest.expect("some").0.revision.0, 0);
    world.pass(DAY * 4);
    world.until(|| async { world.snapshots().await.first() == Some(&12) }).await;
    world.cut_behind(12).await;
    let (position, time) = world.store.condition().await.oldest.expect("some");
    assert!((position.revision.0, time.is_some()) == (12, true), "{position}");
    let expected = shown(&world.store).await.1;
    world.store.close().await.expect("close");
    let to = tempfile::tempdir().expect("a directory");
    let new = to.path().join("new");
    let error =
        restore(world.dir.path(), &new, Target::Position(oldest), None, &mut |_, _| {}).expect_err("gone").to_string();
    assert!(error.contains("it begins at 1.12 of"), "{error}");
    restore(world.dir.path(), &new, Target::Newest, None, &mut |_, _| {}).expect("restore");
    assert_eq!(shown(&open(&new).await).await.1, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_bytes_shorten_the_retention() {
    let options = Options { history_bytes_max: 1, log_segment_bytes: 400, ..Options::default() };
    let world = World::new(options).await;
    for round in 0..3 {
        fill(&world.store, round * 4..round * 4 + 4).await;
        world.store.snapshot().await.expect("snapshot");
    }
    world.until(|| async { world.snapshots().await == [12] }).await;
    world.cut_behind(12).await;
    assert_eq!(shown(&world.store).await.1.len(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_harms_nothing_and_is_made_later() {
    let world = World::new(Options::default()).await;
    fill(&world.store, 0..3).await;
    for fault in [
        Fault::Create,
        Fault::Write(0, ErrorKind::StorageFull),
        Fault::Write(30, ErrorKind::Other),
        Fault::Sync(ErrorKind::Other),
    ] {
        world.disk.fail(On::Snapshot, fault);
        let outcome = world.store.snapshot().await;
        match fault {
            Fault::Create | Fault::Write(0, _) => {
                assert!(matches!(outcome, Err(Error::NoRoom(_))), "{fault:?}: {outcome:?}")
            }
            _ => assert!(matches!(outcome, Err(Error::Unavailable(_))), "{fault:?}: {outcome:?}"),
        }
        assert!(world.files("snapshots").is_empty(), "{fault:?}: {:?}", world.files("snapshots"));
        fill(&world.store, 3..4).await;
    }
    // It is due by now: the first try fails, a later one does not, and nobody had to ask.
    world.disk.fail(On::Snapshot, Fault::Sync(ErrorKind::Other));
    world.pass(DAY * 2);
    world.until(|| async { world.snapshots().await == [7] }).await;
    assert_eq!(world.files("snapshots").len(), 1);
    assert_eq!(shown(&world.store).await.1.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_lacks_room_says_how_much_it_needs() {
    let world = World::new(Options::default()).await;
    fill(&world.store, 0..3).await;
    world.disk.set_free(70 << 20);
    let Err(Error::NoRoom(why)) = world.store.snapshot().await else { panic!("there is no room") };
    assert!(why.contains("97 MiB free on") && why.contains("70 MiB are free"), "{why}");
    fill(&world.store, 3..4).await;
    world.disk.set_free(98 << 20);
    world.store.snapshot().await.expect("a snapshot");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_while_a_snapshot_hangs() {
    let world = World::new(Options::default()).await;
    fill(&world.store, 0..3).await;
    world.disk.fail(On::Snapshot, Fault::HangSync);
    let store = world.store.clone();
    let snapshot = tokio::spawn(async move { store.snapshot().await });
    world.disk.hung(1).await;
    fill(&world.store, 3..9).await;
    assert_eq!(shown(&world.store).await.1.len(), 9);
    assert!(world.snapshots().await.is_empty(), "it has no name before it is durable");
    world.disk.release();
    let snapshot = snapshot.await.expect("the task ends").expect("snapshot");
    assert_eq!((snapshot.position.revision.0, snapshot.records), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_outlives_the_snapshot_that_it_is_of() {
    let world = World::new(Options { history_bytes_max: 1, ..Options::default() }).await;
    fill(&world.store, 0..3).await;
    let mut backup = world.store.backup().await.expect("backup");
    fill(&world.store, 3..6).await;
    world.store.snapshot().await.expect("snapshot");
    world.until(|| async { world.snapshots().await == [6] }).await;
    let mut bytes = Vec::new();
    while let Some(chunk) = backup.chunks.chunk().await.expect("chunk") {
        bytes.extend(chunk);
    }
    let file = world.dir.path().join("backup");
    fs::write(&file, bytes).expect("write");
    let verified = super::super::verify(&file, &mut |_, _| {}, &mut |_| {}).expect("whole");
    assert_eq!((verified.position, verified.records), (backup.snapshot.position, 3));
}
