//! Every position of the past, made a store again.

use std::{
    io,
    time::{Duration, SystemTime},
};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::store::{
    Backup, Epoch, Record, Revision,
    conformance::{delete, delete_prefix},
    embedded::{
        Past, RestoreError, Target,
        disk::{Disk, DiskDirectory, DiskFile, RealDisk, Room},
        restore,
        restore::write,
    },
    snapshot::{Reader, Writer},
};

/// A closed store with several segments and snapshots, and what it showed after each transaction.
async fn history() -> (tempfile::TempDir, Vec<Shown>) {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let options = Options { log_segment_bytes: 500, ..Options::default() };
    let mut shows = Vec::new();
    for round in 0..4 {
        let store = Embedded::open(dir.path(), options).await.expect("open");
        for n in 0..6 {
            let changes = match n % 4 {
                3 => vec![delete_prefix(&format!("a/{}", round % 2)), delete(&format!("b/{n}"))],
                _ => vec![put(&format!("a/{}/{n}", round % 3), &format!("{round}{n}")), put(&format!("b/{n}"), "x")],
            };
            commit(&store, transaction(changes)).await;
            shows.push(shown(&store).await);
        }
        if round % 2 == 1 {
            store.snapshot().await.expect("a snapshot");
        }
        store.close().await.expect("close");
    }
    (dir, shows)
}

/// What a restore of a store or a backup shows.
async fn restored(source: &Path, target: Target) -> Result<Shown, RestoreError> {
    let to = tempfile::tempdir().expect("a directory");
    let dir = to.path().join("store");
    let mut told = (0, 0);
    let made = restore(source, &dir, target, None, &mut |done, total| told = (done, total))?;
    let store = open(&dir).await;
    let shown = shown(&store).await;
    assert_eq!((shown.0, shown.1.len() as u64), (made.position, made.records));
    assert_eq!(told, (2 * made.records, 2 * made.records), "each written and compared");
    // It is a store like any other.
    fill(&store, 0..1).await;
    store.close().await.expect("close");
    assert_eq!(super::shown(&open(&dir).await).await.1.len(), shown.1.len() + 1);
    Ok(shown)
}

/// The same in the next epoch.
fn after(shown: &Shown) -> Shown {
    let (position, records) = shown.clone();
    (Position { epoch: Epoch(position.epoch.0 + 1), ..position }, records)
}

#[tokio::test]
async fn what_is_to_be_left_out_is_in_no_part_of_the_new_store() {
    let (dir, shows) = history().await;
    let backup = tempfile::tempdir().expect("a directory");
    let begins = |record: &crate::store::Record| record.key.as_str().starts_with("a/");
    // From the log alone, on a snapshot, and of the end.
    for (at, shown) in shows.iter().enumerate().step_by(5) {
        let to = backup.path().join(at.to_string());
        let made = restore(dir.path(), &to, Target::Position(shown.0), Some("a/"), &mut |_, _| {}).expect("restored");
        let store = open(&to).await;
        let (_, found) = super::shown(&store).await;
        let (_, mut wanted) = shown.clone();
        assert!(wanted.iter().any(begins));
        wanted.retain(|record| !begins(record));
        assert_eq!((found.len() as u64, &found), (made.records, &wanted));
        store.close().await.expect("close");
    }
}

#[tokio::test]
async fn every_position_of_the_past_can_be_restored() {
    let (dir, shows) = history().await;
    let before = super::opening::bytes(dir.path());
    for shown in &shows {
        assert_eq!(restored(dir.path(), Target::Position(shown.0)).await.expect("restored"), after(shown));
    }
    let last = shows.last().expect("some");
    assert_eq!(restored(dir.path(), Target::Newest).await.expect("restored"), after(last));
    let later = SystemClock.now() + Duration::from_secs(1);
    assert_eq!(restored(dir.path(), Target::Time(later)).await.expect("restored"), after(last));
    for (target, word) in [
        (
            Target::Position(Position { revision: Revision(99), ..last.0 }),
            "it has nothing of 1.99; it ends at 1.24 of 2",
        ),
        (Target::Position(Position { epoch: Epoch(2), ..last.0 }), "nothing of 2.24"),
        (Target::Time(SystemTime::UNIX_EPOCH), "there was nothing in it"),
    ] {
        let error = restored(dir.path(), target).await.expect_err("out of reach").to_string();
        assert!(error.contains(word) && error.starts_with(&dir.path().display().to_string()), "{error}");
    }
    assert_eq!(super::opening::bytes(dir.path()), before, "the source is only read");
}

/// A minute later whenever it is asked, but now and then an hour earlier.
#[derive(Default)]
struct Jumping(std::sync::atomic::AtomicU64);

const EPOCH: u64 = 1_700_000_000;

impl Clock for Jumping {
    fn now(&self) -> SystemTime {
        let asked = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let back = if asked % 5 == 4 { 3_600 } else { 0 };
        SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH + asked * 60 - back)
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

#[tokio::test]
async fn every_time_of_the_past_can_be_restored_whatever_the_clock_did() {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let ground = Ground { clock: std::sync::Arc::new(Jumping::default()), ..Ground::default() };
    let store = Embedded::open_on(dir.path(), Options::default(), ground).await.expect("open");
    let mut shows = Vec::new();
    for n in 0..20 {
        commit(&store, transaction([put(&format!("minute-{n}"), "x")])).await;
        shows.push(shown(&store).await);
    }
    store.close().await.expect("close");
    let mut last = None;
    for minute in 0..40 {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH + minute * 60 + 30);
        let Ok(shown) = restored(dir.path(), Target::Time(time)).await else {
            assert_eq!(last, None, "once there is something there always is");
            continue;
        };
        let count = shown.1.len();
        assert_eq!(shown, after(&shows[count - 1]), "a position of the past, whole");
        assert!(last <= Some(count), "time goes one way");
        last = Some(count);
    }
    assert_eq!(last, Some(20), "in the end everything is there");
}

/// Earlier by so many seconds than the real clock, or later.
#[derive(Default)]
struct Off(std::sync::atomic::AtomicI64);

impl Clock for Off {
    fn now(&self) -> SystemTime {
        let seconds = self.0.load(std::sync::atomic::Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { SystemClock.now() - by } else { SystemClock.now() + by }
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

#[tokio::test]
async fn what_stood_at_a_time_is_not_guessed_after_the_clock_was_ahead() {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let clock = std::sync::Arc::new(Off::default());
    let ground = Ground { clock: std::sync::Arc::<Off>::clone(&clock), ..Ground::default() };
    let store = Embedded::open_on(dir.path(), Options::default(), ground).await.expect("open");
    for (at, seconds) in [-7_200, -3_600, 1_000_000_000, 0].into_iter().enumerate() {
        clock.0.store(seconds, std::sync::atomic::Ordering::Relaxed);
        commit(&store, transaction([put(&format!("hour-{at}"), "x")])).await;
    }
    store.close().await.expect("close");
    let ago = |seconds| Target::Time(SystemClock.now() - Duration::from_secs(seconds));
    assert_eq!(restored(dir.path(), ago(5_000)).await.expect("the next one is known to be later").1.len(), 1);
    for ambiguous in [ago(1_800), ago(0)] {
        let error = restored(dir.path(), ambiguous).await.expect_err("any of them may be of then").to_string();
        assert!(error.contains("clock has not reached") && error.contains("follows 1.2 of 20"), "{error}");
    }
    let far = Target::Time(SystemClock.now() + Duration::from_secs(2_000_000_000));
    assert_eq!(restored(dir.path(), far).await.expect("all of them").1.len(), 4);
}

#[tokio::test]
async fn a_time_that_the_source_does_not_reach_is_said() {
    let (dir, shows) = history().await;
    let snapshot = dir.path().join(format!("snapshots/{:010}-{:020}.snapshot", 1, 24));
    for source in [dir.path(), &snapshot] {
        for (target, is_before_time) in [
            (Target::Newest, false),
            (Target::Position(shows[23].0), false),
            (Target::Time(SystemClock.now() + Duration::from_secs(5)), true),
        ] {
            let to = tempfile::tempdir().expect("a directory");
            let restored = restore(source, &to.path().join("new"), target, None, &mut |_, _| {}).expect("restored");
            assert_eq!(restored.is_before_time, is_before_time, "{target:?}");
        }
    }
}

#[tokio::test]
async fn a_segment_that_was_never_begun_is_no_damage() {
    let (dir, shows) = history().await;
    for begun in [0, 30] {
        fs::write(dir.path().join("log/00000000000000000025.log"), vec![0; begun]).expect("write");
        let last = shows.last().expect("some");
        assert_eq!(restored(dir.path(), Target::Newest).await.expect("restored"), after(last));
        let earlier = &shows[20];
        assert_eq!(restored(dir.path(), Target::Position(earlier.0)).await.expect("restored"), after(earlier));
    }
}

#[tokio::test]
async fn a_restore_that_was_interrupted_is_begun_anew_by_the_next() {
    let (dir, shows) = history().await;
    let to = tempfile::tempdir().expect("a directory");
    let new = to.path().join("new");
    restore(dir.path(), &new, Target::Position(shows[3].0), None, &mut |_, _| {}).expect("restored");
    // As a kill leaves it, early and late.
    fs::rename(new.join("format"), new.join("format.new")).expect("rename");
    fs::write(new.join("snapshots/0000000002-00000000000000000024.snapshot.new"), "half").expect("write");
    let told = Embedded::open(&new, Options::default()).await.expect_err("unfinished");
    assert!(matches!(told, OpenError::Unfinished(_)), "{told}");
    let made = restore(dir.path(), &new, Target::Newest, None, &mut |_, _| {}).expect("begun anew");
    let store = open(&new).await;
    assert_eq!(shown(&store).await, after(shows.last().expect("some")));
    assert_eq!(made.from.revision.0, 24);
    store.close().await.expect("close");
    assert_eq!(fs::read_dir(new.join("snapshots")).expect("list").count(), 1);
    // A store is never taken for such remains, whatever lies beside it.
    fs::write(new.join("format.new"), "").expect("write");
    let before = super::opening::bytes(&new);
    let error = restore(dir.path(), &new, Target::Newest, None, &mut |_, _| {}).expect_err("it is there");
    assert!(matches!(error, RestoreError::Open(OpenError::Exists(_))), "{error}");
    let error = Embedded::create(&new).await.expect_err("it is there");
    assert!(matches!(error, OpenError::Exists(_)), "{error}");
    assert_eq!(super::opening::bytes(&new), before);
}

#[tokio::test]
async fn a_restore_that_fails_removes_nothing_that_it_has_not_made() {
    let (dir, _) = history().await;
    let (other, _) = history().await;
    let rescued = tempfile::tempdir().expect("a directory");
    copy(other.path(), rescued.path());
    // What somebody may still rescue, with a lock that cannot be had.
    for gone in ["format", "lock"] {
        fs::remove_file(rescued.path().join(gone)).expect("remove");
    }
    fs::create_dir(rescued.path().join("lock")).expect("create");
    for part in ["log", "snapshots", "sled", "acknowledged"] {
        let before = super::opening::bytes(rescued.path());
        let error =
            restore(dir.path(), rescued.path(), Target::Newest, None, &mut |_, _| {}).expect_err("parts are there");
        assert!(matches!(error, RestoreError::Open(OpenError::Exists(_))), "{part}: {error}");
        assert_eq!(super::opening::bytes(rescued.path()), before, "{part}");
        let path = rescued.path().join(part);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("remove");
    }
    let error = restore(dir.path(), rescued.path(), Target::Newest, None, &mut |_, _| {}).expect_err("no lock");
    assert!(matches!(error, RestoreError::Open(OpenError::Io { .. })), "{error}");
}

#[tokio::test]
async fn a_restore_never_writes_over_a_store_and_never_leaves_half_of_one() {
    let (dir, _) = history().await;
    let (_other, _) = history().await;
    let before = super::opening::bytes(dir.path());
    let error = restore(_other.path(), dir.path(), Target::Newest, None, &mut |_, _| {}).expect_err("it is there");
    assert!(matches!(error, RestoreError::Open(OpenError::Exists(_))), "{error}");
    assert_eq!(super::opening::bytes(dir.path()), before);
    let open = open(dir.path()).await;
    let to = tempfile::tempdir().expect("a directory");
    let error = restore(dir.path(), &to.path().join("new"), Target::Newest, None, &mut |_, _| {}).expect_err("in use");
    assert!(matches!(error, RestoreError::Open(OpenError::InUse(_))), "{error}");
    drop(open);
}

#[tokio::test]
async fn a_backup_is_restored_and_a_part_of_it_is_not() {
    let (dir, shows) = history().await;
    let store = open(dir.path()).await;
    let Backup { snapshot, mut chunks } = store.backup().await.expect("a backup");
    // What is committed meanwhile is not in it.
    fill(&store, 0..3).await;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.chunk().await.expect("a chunk") {
        bytes.extend(chunk);
    }
    let last = shows.last().expect("some");
    assert_eq!((snapshot.position, snapshot.bytes), (last.0, bytes.len() as u64));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), &bytes).expect("written");
    assert_eq!(restored(file.path(), Target::Newest).await.expect("restored"), after(last));
    assert_eq!(restored(file.path(), Target::Position(last.0)).await.expect("restored"), after(last));
    let earlier = Target::Position(shows[0].0);
    assert!(matches!(restored(file.path(), earlier).await, Err(RestoreError::OutOfReach { .. })));
    for keep in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        fs::write(file.path(), &bytes[..keep]).expect("written");
        let to = tempfile::tempdir().expect("a directory");
        let error = restore(file.path(), to.path(), Target::Newest, None, &mut |_, _| {}).expect_err("cut");
        assert!(matches!(error, RestoreError::Open(OpenError::Damaged { .. })), "{error}");
        assert!(!to.path().join("format").exists() && !to.path().join("snapshots").exists());
    }
}

#[tokio::test]
async fn a_snapshot_is_made_again_only_after_a_commit() {
    let (dir, shows) = history().await;
    let store = open(dir.path()).await;
    let (one, two) = (store.snapshot().await.expect("made"), store.snapshot().await.expect("the same"));
    assert_eq!(one, two);
    assert_eq!(one.position, shows.last().expect("some").0);
    fill(&store, 0..1).await;
    let three = store.snapshot().await.expect("made");
    assert_eq!(three.position.revision.0, one.position.revision.0 + 1);
    let kept = store.snapshots().await.expect("listed");
    assert_eq!(kept.iter().map(|kept| kept.position.revision.0).collect::<Vec<_>>(), [12, 24, 25]);
    assert_eq!(kept.last(), Some(&three));
    let condition = store.condition().await;
    assert_eq!(condition.oldest, Some((Position { epoch: Epoch(1), revision: Revision(0) }, None)));
    assert!(condition.history_bytes > 0 && condition.free_bytes.is_some());
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over() {
    let (dir, shows) = history().await;
    let names = fs::read_dir(dir.path().join("snapshots")).expect("listed").map(|entry| entry.expect("entry").path());
    let newest = names.max().expect("some");
    let mut bytes = fs::read(&newest).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("written");
    let last = shows.last().expect("some");
    assert_eq!(restored(dir.path(), Target::Newest).await.expect("restored"), after(last));
    let store = open(dir.path()).await;
    let Backup { mut chunks, .. } = store.backup().await.expect("made anew of an older one");
    let file = tempfile::NamedTempFile::new().expect("a file");
    while let Some(chunk) = chunks.chunk().await.expect("a chunk") {
        std::io::Write::write_all(&mut file.as_file(), &chunk).expect("written");
    }
    assert_eq!(restored(file.path(), Target::Newest).await.expect("restored"), after(last));
    store.close().await.expect("close");
    fs::remove_dir_all(dir.path().join("sled")).expect("removed");
    let store = open(dir.path()).await;
    assert_eq!(&shown(&store).await, last);
    fill(&store, 0..1).await;
    let made = store.snapshot().await.expect("made of an older one");
    assert_eq!(made.position.revision.0, 25);
}

/// Cuts a record out of what is written, or changes a byte, when the snapshot gets its name.
#[derive(Debug)]
struct Altering(Alter);

type Alter = fn(&Path);

impl Disk for Altering {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(from);
        RealDisk.rename(from, to)
    }

    fn directory(&self, path: &Path) -> io::Result<Box<dyn DiskDirectory>> {
        RealDisk.directory(path)
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        RealDisk.room(path)
    }
}

/// Writes a snapshot again with other records: whole, and not what was to be written.
fn rewrite(path: &Path, change: fn(&mut Vec<Record>)) {
    let mut reader = Reader::open(path).expect("a snapshot");
    let header = *reader.header();
    let mut records = Vec::new();
    while let Some(frame) = reader.frame().expect("a frame") {
        records.extend(frame);
    }
    change(&mut records);
    let mut writer = Writer::new(fs::File::create(path).expect("a file"), header).expect("begun");
    for record in &records {
        writer.push(&record.key, record.revision, &record.value).expect("pushed");
    }
    writer.finish().expect("written");
}

#[tokio::test]
async fn what_is_not_on_the_disk_as_in_the_source_never_becomes_a_store() {
    let (dir, _) = history().await;
    let past = Past::find(dir.path(), Target::Newest, None).expect("found");
    let changes: [(Alter, &str); 4] = [
        (|path| rewrite(path, |records| records[1].value = (*b"?").into()), "as it is in the source"),
        (|path| rewrite(path, |records| drop(records.remove(1))), "as it is in the source"),
        (|path| rewrite(path, |records| drop(records.pop())), "as it is in the source"),
        (
            |path| {
                let mut bytes = fs::read(path).expect("read");
                bytes[100] ^= 1;
                fs::write(path, bytes).expect("written");
            },
            "does not match its checksum",
        ),
    ];
    for (change, what) in changes {
        let to = tempfile::tempdir().expect("a directory");
        let written = write(&past, to.path(), [1; 16], &Altering(change), &mut |_, _| {});
        let error = written.expect_err("not what it should be").to_string();
        assert!(error.contains(what), "{error}");
        let opened = Embedded::open(to.path(), Options::default()).await.expect_err("no store");
        assert!(matches!(opened, OpenError::Missing(_)), "{opened}");
    }
    let to = tempfile::tempdir().expect("a directory");
    write(&past, to.path(), [1; 16], &Altering(|_| ()), &mut |_, _| {}).expect("as it should be");
}
