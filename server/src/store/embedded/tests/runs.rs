//! Runs of a history: what is recorded is restored and verified like a store, whatever happens to the disk.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use super::{
    super::{Begin, Logged, Recorded, RestoreError, Run, Runs, Target, Unrecorded, restore, runs_in, verify},
    disk::{Fault, On, TestDisk},
    *,
};
use crate::{
    clock::{Clock, SystemClock},
    store::{
        Change, Epoch, Key, Millis, Record, Revision, TransactionId,
        conformance::{delete, delete_prefix},
    },
};

/// Of the first record, in milliseconds since 1970.
const BEGAN: u64 = 1_700_000_000_000;

fn at(epoch: u64, revision: u64) -> Position {
    Position { epoch: Epoch(epoch), revision: Revision(revision) }
}

/// So many milliseconds after the first record.
fn time(after: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(BEGAN + after)
}

fn recorded(revision: u64, after: u64, changes: impl Into<Vec<Change>>) -> Recorded {
    let commit = Logged {
        id: TransactionId([revision as u8; 16]),
        revision: Revision(revision),
        changes: changes.into().into(),
    };
    Recorded { time: Millis(BEGAN + after), commit }
}

fn record(key: &str, revision: u64) -> Record {
    Record { key: Key::new(key), value: key.as_bytes().into(), revision: Revision(revision) }
}

fn begin(runs: &Runs, position: Position, after: u64, records: &[Record]) -> Run {
    let begin = Begin { instance: [7; 16], position, time: Millis(BEGAN + after) };
    let mut pages = records.chunks(2).map(<[Record]>::to_vec);
    runs.begin(begin, &mut || Ok(pages.next())).expect("a run")
}

fn opened(dir: &Path) -> Runs {
    Runs::open(dir, Options::default()).expect("a history")
}

fn newest(runs: &Runs) -> Run {
    runs.run(&runs.list().expect("listed").pop().expect("a run")).expect("open")
}

/// What stands at the end of a run or store: each key with its revision.
fn end_of(dir: &Path) -> BTreeMap<String, u64> {
    let mut records = BTreeMap::new();
    let mut each = |record: &Record| {
        records.insert(record.key.to_string(), record.revision.0);
    };
    verify(dir, &mut |_, _| {}, &mut each).expect("whole");
    records
}

fn keys_at(history: &Path, target: Target) -> Result<(Position, String), RestoreError> {
    let to = tempfile::tempdir().expect("a directory");
    let restored = restore(history, to.path(), target, None, &mut |_, _| {})?;
    Ok((restored.from, end_of(to.path()).into_keys().collect::<Vec<_>>().join(" ")))
}

fn refused(history: &Path, target: Target) -> String {
    keys_at(history, target).expect_err("refused").to_string()
}

/// A run from 3.40 to 3.90.
fn first_run(runs: &Runs) -> Run {
    let run = begin(runs, at(3, 40), 0, &[record("a", 12), record("b", 40), record("later", 41)]);
    run.record(&[recorded(57, 10, [put("c", "x")]), recorded(58, 10, [delete("b")])]).expect("recorded");
    run.record(&[recorded(90, 20, [put("d/1", "x"), put("d/2", "x")])]).expect("recorded");
    run
}

#[test]
fn every_position_and_time_of_a_run_is_restored() {
    let home = tempfile::tempdir().expect("a directory");
    let history = home.path().join("history");
    let runs = opened(&history);
    first_run(&runs).close();
    let run = newest(&runs);
    assert_eq!((run.instance(), run.position(), run.last_id()), ([7; 16], at(3, 90), Some(TransactionId([90; 16]))));
    // A clock that goes back, and a revision that was told already.
    run.record(&[recorded(91, 5, [delete_prefix("d/"), put("e", "x")])]).expect("recorded");
    assert_eq!(run.time(), Millis(BEGAN + 20));
    run.close();
    assert_eq!(runs_in(&history).expect("listed"), [history.join("3.40")]);

    for (revision, keys) in [(40, "a b"), (57, "a b c"), (58, "a c"), (90, "a c d/1 d/2"), (91, "a c e")] {
        let found = keys_at(&history, Target::Position(at(3, revision))).expect("restored");
        assert_eq!(found, (at(3, revision), keys.to_owned()));
    }
    for (after, revision) in [(0, 40), (9, 40), (10, 58), (19, 58), (20, 91), (1_000, 91)] {
        let found = keys_at(&history, Target::Time(time(after))).expect("restored");
        assert_eq!(found.0, at(3, revision), "after {after} ms");
    }
    assert_eq!(keys_at(&history, Target::Newest).expect("restored").0, at(3, 91));
    assert_eq!(end_of(&history.join("3.40")), [("a", 12), ("c", 57), ("e", 91)].map(|(k, r)| (k.to_owned(), r)).into());

    let none = refused(&history, Target::Position(at(3, 60)));
    assert!(none.contains("it has no 3.60; the last one before that is 3.58"), "{none}");
    let none = refused(&history, Target::Position(at(3, 92)));
    assert!(none.contains("it ends at 3.91"), "{none}");
    let none = refused(&history, Target::Time(time(0) - Duration::from_millis(1)));
    assert!(none.contains("does not reach back so far: it begins at 3.40"), "{none}");
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let set = |mode| fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).expect("its own directory");
    set(0o777);
    let refused = Runs::open(home.path(), Options::default()).map(drop).expect_err("anybody could make a history up");
    assert!(refused.to_string().contains("others can write to it"), "{refused}");
    set(0o755);
    Runs::open(home.path(), Options::default()).map(drop).expect("nobody else can");
}

#[test]
fn what_fell_between_two_runs_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let runs = opened(home.path());
    first_run(&runs).close();
    let second = begin(&runs, at(3, 200), 1_000, &[record("z", 150)]);
    second.record(&[recorded(201, 1_001, [put("y", "x")])]).expect("recorded");
    second.close();
    begin(&runs, at(4, 10), 2_000, &[record("x", 5)]).close();
    drop(runs);
    for (target, from) in [
        (Target::Position(at(3, 90)), at(3, 90)),
        (Target::Time(time(20)), at(3, 90)),
        (Target::Time(time(1_000)), at(3, 200)),
        (Target::Position(at(3, 201)), at(3, 201)),
        (Target::Time(time(2_000)), at(4, 10)),
        (Target::Newest, at(4, 10)),
    ] {
        assert_eq!(keys_at(home.path(), target).expect("restored").0, from, "{target:?}");
    }
    for target in [Target::Position(at(3, 91)), Target::Position(at(3, 199)), Target::Time(time(21))] {
        let why = refused(home.path(), target);
        assert!(why.contains("nothing was recorded of what was between 3.90 of 2023-"), "{why}");
        assert!(why.contains(" and 3.200 of 2023-"), "{why}");
    }
    let why = refused(home.path(), Target::Time(time(1_999)));
    assert!(why.contains("between 3.201") && why.contains("and 4.10"), "{why}");
}

#[tokio::test]
async fn snapshots_are_made_of_a_run_and_its_log_goes_with_them() {
    let home = tempfile::tempdir().expect("a directory");
    // No time is kept, so that each snapshot takes what is before it.
    let options = Options { log_segment_bytes: 300, retention: Duration::ZERO, ..Options::default() };
    let runs = Runs::open(home.path(), options).expect("a history");
    let run = Arc::new(first_run(&runs));
    let first = [("a", 12), ("c", 57), ("d/1", 90), ("d/2", 90)];
    let mut expected = BTreeMap::from(first.map(|(key, revision)| (key.to_owned(), revision)));
    for revision in 100..140 {
        run.record(&[recorded(revision * 3, revision, [put(&format!("{revision}"), "x")])]).expect("recorded");
        expected.insert(revision.to_string(), revision * 3);
        if revision % 10 == 0 {
            let snapshot = run.snapshot().await.expect("a snapshot");
            assert_eq!((snapshot.position, snapshot.records as usize), (at(3, revision * 3), expected.len()));
        }
    }
    let (oldest, bytes) = runs.extent();
    assert_eq!(oldest.expect("kept"), (at(3, 390), Some(time(130))));
    assert!(bytes > 0 && runs.snapshots().expect("listed").len() == 1);
    let run_of = Arc::clone(&run);
    tokio::task::spawn_blocking(move || run_of.close()).await.expect("closed");
    assert!(!home.path().join("3.40/log/00000000000000000041.log").exists(), "a snapshot stands for it");
    assert_eq!(end_of(&home.path().join("3.40")), expected);
    assert_eq!(keys_at(home.path(), Target::Position(at(3, 411))).expect("restored").0, at(3, 411));
    let why = refused(home.path(), Target::Position(at(3, 58)));
    assert!(why.contains("it begins at 3.390"), "{why}");
}

#[test]
fn a_disk_that_fails_loses_nothing_that_was_recorded() {
    let home = tempfile::tempdir().expect("a directory");
    let disk = TestDisk::default();
    let runs = Runs::open_on(home.path(), Options::default(), ground(&disk)).expect("a history");
    let run = first_run(&runs);
    let next = [recorded(100, 30, [put("e", "x")])];
    disk.fail(On::Log, Fault::Write(30, io::ErrorKind::StorageFull));
    assert!(matches!(run.record(&next), Err(Unrecorded::Full(_))));
    disk.set_free(1 << 20);
    assert!(matches!(run.record(&next), Err(Unrecorded::Full(why)) if why.contains("bytes are free")));
    disk.set_free(1 << 30);
    run.record(&next).expect("there is room again");
    disk.fail(On::Log, Fault::Sync(io::ErrorKind::Other));
    let last = [recorded(101, 31, [put("f", "x")])];
    for _ in 0..2 {
        assert!(matches!(run.record(&last), Err(Unrecorded::Failed(_))), "and never again");
    }
    run.close();
    let run = newest(&runs);
    let reached = run.position();
    assert!(reached == at(3, 100) || reached == at(3, 101), "{reached}");
    run.close();
    drop(runs);
    assert_eq!(end_of(&home.path().join("3.40")).get("e"), Some(&100));
}

#[test]
fn an_end_that_a_crash_left_is_cut_and_the_run_goes_on() {
    let home = tempfile::tempdir().expect("a directory");
    let runs = opened(home.path());
    first_run(&runs).close();
    let log = home.path().join("3.40/log/00000000000000000041.log");
    let whole = fs::read(&log).expect("read");
    // Without the closing frame, and half of the one before it.
    fs::write(&log, &whole[..whole.len() - 60]).expect("write");
    fs::remove_file(home.path().join("3.40/acknowledged")).expect("it was never synced");
    let run = newest(&runs);
    assert_eq!((run.position(), run.last_id()), (at(3, 58), Some(TransactionId([58; 16]))));
    run.record(&[recorded(90, 20, [put("again", "x")])]).expect("recorded");
    run.close();
    assert!(end_of(&home.path().join("3.40")).contains_key("again"));
}

#[test]
fn a_run_is_begun_wholly_or_not_at_all() {
    let home = tempfile::tempdir().expect("a directory");
    let disk = TestDisk::default();
    let runs = Runs::open_on(home.path(), Options::default(), ground(&disk)).expect("a history");
    let attempt = |page: &mut dyn FnMut() -> Result<Option<Vec<Record>>, crate::store::Error>| {
        let begin = Begin { instance: [7; 16], position: at(1, 5), time: Millis(1) };
        runs.begin(begin, page).map(drop).expect_err("it fails").to_string()
    };
    let mut pages = [Ok(Some(vec![record("a", 1)])), Err(crate::store::Error::Unavailable("gone".into()))].into_iter();
    assert!(attempt(&mut || pages.next().expect("a page")).contains("gone"));
    disk.fail(On::Snapshot, Fault::Sync(io::ErrorKind::Other));
    attempt(&mut || Ok(None));
    disk.set_free(1 << 20);
    let mut pages = [Ok(Some(vec![record("a", 1)])), Ok(None)].into_iter();
    assert!(attempt(&mut || pages.next().expect("a page")).contains("bytes are free"));
    assert_eq!(runs_in(home.path()).expect("listed"), Vec::<PathBuf>::new());
    drop(runs);
    // As a kill leaves it.
    fs::create_dir_all(home.path().join("unfinished/snapshots")).expect("created");
    drop(opened(home.path()));
    assert!(!home.path().join("unfinished").exists());
}

#[tokio::test]
async fn one_process_records_in_a_directory_and_nobody_serves_from_it() {
    let home = tempfile::tempdir().expect("a directory");
    let runs = opened(home.path());
    let again = Runs::open(home.path(), Options::default()).map(drop);
    assert!(matches!(again, Err(OpenError::InUse(_))), "{again:?}");
    let run = first_run(&runs);
    let dir = home.path().join("3.40");
    assert!(matches!(verify(&dir, &mut |_, _| {}, &mut |_| {}), Err(OpenError::InUse(_))), "while it is recorded");
    run.close();
    drop(run);
    let served = Embedded::open(&dir, Options::default()).await.map(drop);
    assert!(matches!(served, Err(OpenError::History(_))), "{served:?}");
    // Nor is a store a history.
    let store = home.path().join("store");
    Embedded::create(&store).await.expect("create");
    assert!(matches!(Runs::open(&store, Options::default()), Err(OpenError::Exists(_))));
    assert_eq!(runs_in(&store).expect("looked"), Vec::<PathBuf>::new());
}

#[test]
fn a_transaction_that_no_run_can_hold_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let run = first_run(&opened(home.path()));
    let key = "k".repeat(1_000);
    let deletes = |count: usize| vec![delete(&key); count];
    assert_eq!(run.record(&[recorded(100, 30, deletes(70_000))]), Err(Unrecorded::TooLarge));
    run.record(&[recorded(100, 30, deletes(50_000))]).expect("a large one is recorded whole");
    run.close();
    assert_eq!(end_of(&home.path().join("3.40")).len(), 4);
}

/// A clock that stands where it was put.
struct Stopped(Mutex<SystemTime>);

impl Clock for Stopped {
    fn now(&self) -> SystemTime {
        *self.0.lock().expect("lock")
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

#[test]
fn runs_that_are_too_old_go_unless_somebody_restores_them() {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let home = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(Stopped(Mutex::new(time(6 * DAY))));
    let ground = Ground { clock: Arc::<Stopped>::clone(&clock), ..Ground::default() };
    let runs = Runs::open_on(home.path(), Options::default(), ground).expect("a history");
    begin(&runs, at(1, 1), 0, &[]).close();
    begin(&runs, at(1, 50), DAY, &[]).close();
    begin(&runs, at(1, 90), 5 * DAY, &[]).close();
    let left = || runs.list().expect("listed").iter().map(|run| run.position.revision.0).collect::<Vec<_>>();
    runs.retain().expect("looked");
    assert_eq!(left(), [1, 50, 90]);
    *clock.0.lock().expect("lock") = time(8 * DAY);
    let oldest = runs.run(&runs.list().expect("listed")[0]).expect("open");
    runs.retain().expect("looked");
    assert_eq!(left(), [1, 50, 90], "it is in use");
    oldest.close();
    drop(oldest);
    runs.retain().expect("looked");
    assert_eq!(left(), [50, 90]);
    assert!(!home.path().join("unfinished").exists());
}

/// Changes the first byte of a run's snapshots, or one in the middle.
fn damage_snapshots(run: &Path, at_the_middle: bool) {
    for entry in fs::read_dir(run.join("snapshots")).expect("read") {
        let path = entry.expect("read").path();
        let mut bytes = fs::read(&path).expect("read");
        let at = if at_the_middle { bytes.len() / 2 } else { 0 };
        bytes[at] ^= 1;
        fs::write(&path, bytes).expect("write");
    }
}

#[test]
fn a_run_of_which_nothing_could_be_restored_is_not_gone_on_with_and_takes_no_other_one_along() {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let home = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(Stopped(Mutex::new(time(8 * DAY))));
    let ground = Ground { clock: Arc::<Stopped>::clone(&clock), ..Ground::default() };
    let runs = Runs::open_on(home.path(), Options::default(), ground).expect("a history");
    begin(&runs, at(1, 1), 0, &[record("a", 1)]).close();
    begin(&runs, at(1, 50), 7 * DAY, &[record("a", 1)]).close();
    assert_eq!(runs.problem(), None);
    let second = home.path().join("1.50");
    for at_the_middle in [true, false] {
        damage_snapshots(&second, at_the_middle);
        let listed = runs.list().expect("listed").pop().expect("a run");
        let refused = runs.run(&listed).map(drop);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    }
    let problem = runs.problem().expect("its beginning is not known");
    assert!(problem.starts_with(&second.display().to_string()), "{problem}");
    runs.retain().expect("looked");
    assert_eq!(runs.list().expect("listed").len(), 2, "nobody knows when the first one ended");
}

#[test]
fn a_run_that_cannot_be_read_is_not_passed_over_in_silence() {
    let home = tempfile::tempdir().expect("a directory");
    let runs = opened(home.path());
    first_run(&runs).close();
    begin(&runs, at(3, 200), 1_000, &[record("z", 150)]).close();
    begin(&runs, at(4, 10), 2_000, &[record("x", 5)]).close();
    drop(runs);
    damage_snapshots(&home.path().join("3.200"), false);
    for (target, from) in [
        (Target::Position(at(3, 90)), at(3, 90)),
        (Target::Time(time(19)), at(3, 58)),
        (Target::Time(time(2_000)), at(4, 10)),
        (Target::Newest, at(4, 10)),
    ] {
        assert_eq!(keys_at(home.path(), target).expect("restored").0, from, "{target:?}");
    }
    for target in [Target::Position(at(3, 200)), Target::Time(time(20)), Target::Time(time(1_999))] {
        let why = refused(home.path(), target);
        assert!(why.contains("3.200: what is wanted may be in this run") && why.ends_with("ends at 3.90"), "{why}");
    }
    damage_snapshots(&home.path().join("4.10"), false);
    for target in [Target::Newest, Target::Time(time(3_000)), Target::Position(at(4, 10))] {
        assert!(matches!(keys_at(home.path(), target), Err(RestoreError::RunLost { .. })), "{target:?}");
    }
    damage_snapshots(&home.path().join("3.40"), false);
    let why = refused(home.path(), Target::Newest);
    assert!(why.contains("nothing of it can be restored"), "{why}");
}

#[test]
fn what_a_failed_removal_left_does_not_stop_the_next_run() {
    let home = tempfile::tempdir().expect("a directory");
    let runs = opened(home.path());
    fs::create_dir_all(home.path().join("unfinished/snapshots")).expect("created");
    fs::write(home.path().join("unfinished/format"), "").expect("written");
    first_run(&runs).close();
    assert!(!home.path().join("unfinished").exists());
}
