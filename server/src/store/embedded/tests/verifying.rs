//! Verifying: what is whole is said to be, what is not is found, and nothing is changed.

use super::{
    super::{Target, formerly, restore, verify},
    opening::bytes,
    *,
};
use crate::store::{Change, Key, Record, Revision};

/// A closed store with three segments, two snapshots, and something after them.
async fn history() -> (tempfile::TempDir, Shown) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    fill(&store, 0..10).await;
    store.snapshot().await.expect("snapshot");
    commit(&store, transaction([Change::DeletePrefix(Key::new("key-1"))])).await;
    fill(&store, 8..15).await;
    store.snapshot().await.expect("snapshot");
    commit(&store, transaction([Change::Delete(Key::new("key-2")), put("key-3", "new")])).await;
    let shown = shown(&store).await;
    store.close().await.expect("close");
    (dir, shown)
}

fn verified(source: &Path) -> (Result<verify::Verified, String>, Vec<Record>) {
    let (mut records, mut told) = (Vec::new(), Vec::new());
    let outcome =
        verify(source, &mut |done, total| told.push((done, total)), &mut |record| records.push(record.clone()));
    assert!(told.is_sorted() && told.iter().all(|(done, total)| done <= total), "{told:?}");
    assert!(outcome.is_err() || told.last().is_some_and(|(done, total)| done == total), "{told:?}");
    (outcome.map_err(|error| error.to_string()), records)
}

#[tokio::test]
async fn a_whole_store_is_said_to_be_and_left_as_it_is() {
    let (dir, (position, records)) = history().await;
    fs::remove_file(dir.path().join("lock")).expect("remove");
    let before = bytes(dir.path());
    let (outcome, given) = verified(dir.path());
    let found = outcome.expect("whole");
    assert_eq!((found.position, found.records, given), (position, records.len() as u64, records));
    assert_eq!((found.snapshots, found.segments, found.unfinished_bytes, found.is_end_known), (2, 3, 0, true));
    assert!(found.time.is_some());
    assert_eq!(bytes(dir.path()), before);
}

#[tokio::test]
async fn a_store_in_use_is_not_verified() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    assert!(verified(dir.path()).0.expect_err("in use").contains("in use"));
    store.close().await.expect("close");
    let found = verified(dir.path()).0.expect("whole");
    assert_eq!((found.records, found.snapshots, found.time), (0, 0, None));
}

#[tokio::test]
async fn every_flipped_byte_of_log_and_snapshots_is_found() {
    let (dir, (position, _)) = history().await;
    let files: Vec<_> =
        bytes(dir.path()).into_iter().filter(|(path, _)| !path.starts_with(dir.path().join("sled"))).collect();
    assert_eq!(files.len(), 8, "acknowledged, format, lock, three segments, two snapshots");
    for (path, kept) in files {
        let is_last = path.ends_with("log/00000000000000000019.log");
        let closing = kept.len().saturating_sub(super::super::log::frame::HEADER_BYTES);
        for at in (0..kept.len()).step_by(3) {
            let mut flipped = kept.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, flipped).expect("write");
            match verified(dir.path()).0 {
                // A hexadecimal digit of the instance, in the other case.
                Ok(_) if path.ends_with("format") && kept[at].is_ascii_alphabetic() => assert_eq!(at % 8, 5),
                Ok(found) if path.ends_with("acknowledged") => assert!(!found.is_end_known, "byte {at}"),
                // The last frame cannot be told from one that a crash left unfinished; that is said.
                Ok(found) => {
                    assert!(is_last && at >= closing, "{} byte {at}", path.display());
                    assert_eq!((found.position, found.unfinished_bytes), (position, (kept.len() - closing) as u64));
                }
                Err(error) if path.ends_with("format") => {
                    assert!(
                        error.contains("damaged") || error.contains("format") || error.contains("another store"),
                        "{error}"
                    );
                }
                Err(error) => assert!(error.starts_with(&path.display().to_string()), "byte {at}: {error}"),
            }
        }
        fs::write(&path, kept).expect("write");
    }
    verified(dir.path()).0.expect("whole again");
}

#[tokio::test]
async fn an_end_of_the_log_that_is_missing_is_missed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    fill(&store, 0..4).await;
    let boundary = store.snapshot().await.expect("snapshot").position;
    fill(&store, 4..7).await;
    let shown = shown(&store).await;
    let segment = "log/00000000000000000005.log";
    let whole = fs::read(dir.path().join(segment)).expect("read");
    // As a kill leaves it, and then something was done to the log.
    let spoilt = |bytes: &[u8], has_sled: bool| {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        fs::write(copied.path().join(segment), bytes).expect("write");
        if !has_sled {
            fs::remove_dir_all(copied.path().join("sled")).expect("remove");
        }
        copied
    };
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("some") ^= 1;
    let header_bytes = super::super::log::segment::HEADER_BYTES;
    for (bytes, last) in [(&whole[..whole.len() - 5], 6), (&flipped, 6), (&whole[..header_bytes], 4)] {
        for has_sled in [true, false] {
            let copied = spoilt(bytes, has_sled);
            let missing = "was acknowledged: acknowledged transactions are missing";
            let error = verified(copied.path()).0.expect_err("an end is missing");
            assert!(error.contains(missing) && error.contains(segment), "{error}");
            let opened = Embedded::open(copied.path(), Options::default()).await;
            assert_eq!(opened.expect_err("as it is verified").to_string(), error);
            let to = tempfile::tempdir().expect("a directory");
            let error = restore(copied.path(), &to.path().join("new"), Target::Newest, None, &mut |_, _| {});
            let error = error.expect_err("an end is missing").to_string();
            assert!(error.contains(missing) && error.contains(&format!("it ends at 1.{last}, ")), "{error}");
            let wanted = Target::Position(Position { revision: Revision(last), ..boundary });
            let restored =
                restore(copied.path(), &to.path().join("new"), wanted, None, &mut |_, _| {}).expect("it is there");
            assert_eq!((restored.from.revision.0, restored.records), (last, last));
        }
    }
    // What was never finished was never acknowledged either.
    let copied = spoilt(&[&whole[..], &whole[header_bytes..header_bytes + 50]].concat(), true);
    let found = verified(copied.path()).0.expect("whole");
    assert_eq!((found.position, found.unfinished_bytes, found.is_end_known), (shown.0, 50, true));
    let to = tempfile::tempdir().expect("a directory");
    let restored =
        restore(copied.path(), &to.path().join("new"), Target::Newest, None, &mut |_, _| {}).expect("restored");
    assert_eq!((restored.from, restored.unfinished_bytes), (shown.0, 50));
    assert_eq!(super::shown(&open(copied.path()).await).await, shown);
    // And where nothing was noted, that is said.
    fs::remove_file(dir.path().join("acknowledged")).expect("remove");
    assert!(!verified(spoilt(&whole, true).path()).0.expect("whole").is_end_known);
    let fresh = verified(&to.path().join("new")).0.expect("whole");
    assert!(fresh.is_end_known, "it was never opened");
}

#[tokio::test]
async fn two_may_read_a_store_at_once() {
    let (dir, _) = history().await;
    let layout = super::super::Layout::new(dir.path().into());
    let reading = layout.lock_to_read().expect("free").expect("there is a lock");
    verified(dir.path()).0.expect("whole");
    let refused = Embedded::open(dir.path(), Options::default()).await;
    assert!(matches!(refused, Err(OpenError::InUse(_))), "nobody writes meanwhile");
    drop(reading);
    open(dir.path()).await;
}

#[tokio::test]
async fn a_missing_file_or_a_snapshot_of_something_else_is_found() {
    let (dir, _) = history().await;
    let (other, _) = history().await;
    let parts: Vec<_> = ["log", "snapshots"].iter().flat_map(|part| bytes(&dir.path().join(part))).collect();
    assert_eq!(parts.len(), 5);
    for (path, kept) in &parts {
        let is_snapshot = path.starts_with(dir.path().join("snapshots"));
        fs::remove_file(path).expect("remove");
        // A snapshot less is made up for by the log, and the log's beginning by a snapshot: so it is in time anyway.
        let is_made_up_for = is_snapshot || path.ends_with("00000000000000000001.log");
        assert_eq!(verified(dir.path()).0.is_ok(), is_made_up_for, "{} removed", path.display());
        let elsewhere = other.path().join(path.strip_prefix(dir.path()).expect("below it"));
        fs::copy(elsewhere, path).expect("copy");
        assert!(verified(dir.path()).0.is_err(), "{} of another store", path.display());
        fs::write(path, kept).expect("write");
    }
    let [older, newer] = [&parts[3], &parts[4]];
    fs::write(&newer.0, &older.1).expect("write");
    assert!(verified(dir.path()).0.is_err(), "an older snapshot under a newer name");
}

#[tokio::test]
async fn a_snapshot_that_is_whole_but_wrong_is_found() {
    use crate::store::snapshot::{Reader, Writer};
    let (dir, _) = history().await;
    let mut snapshots = bytes(&dir.path().join("snapshots"));
    let (path, kept) = snapshots.pop().expect("two snapshots");
    let mut reader = Reader::new(&kept[..]).expect("whole");
    let mut records = Vec::new();
    while let Some(frame) = reader.frame().expect("whole") {
        records.extend(frame);
    }
    let rewritten = |records: &[Record]| {
        let mut writer = Writer::new(Vec::new(), *reader.header()).expect("memory");
        for record in records {
            writer.push(&record.key, record.revision, &record.value).expect("memory");
        }
        fs::write(&path, writer.finish().expect("memory").0).expect("write");
        verified(dir.path()).0.err()
    };
    assert_eq!(rewritten(&records), None);
    let missing = rewritten(&records[1..]).expect("one is missing");
    assert!(missing.starts_with(&path.display().to_string()), "{missing}");
    assert!(rewritten(&records[..records.len() - 1]).expect("the last is missing").contains("is missing"));
    let mut changed = records.clone();
    changed[0].value = b"other"[..].into();
    assert!(rewritten(&changed).is_some(), "another value");
    let mut more = records.clone();
    more.push(Record { key: Key::new("zzz"), ..records[0].clone() });
    assert!(rewritten(&more).expect("one too many").contains("too many"));
}

#[tokio::test]
async fn a_backup_is_verified_alone() {
    let (dir, _) = history().await;
    let (path, kept) = bytes(&dir.path().join("snapshots")).pop().expect("a snapshot");
    let (outcome, records) = verified(&path);
    let found = outcome.expect("whole");
    assert_eq!((found.records, found.snapshots, found.segments), (records.len() as u64, 1, 0));
    assert_eq!(found.position.revision.0, 18);
    fs::write(&path, &kept[..kept.len() - 1]).expect("write");
    let error = verified(&path).0.expect_err("cut");
    assert!(error.starts_with(&path.display().to_string()), "{error}");
    assert!(verified(&dir.path().join("nothing")).0.expect_err("missing").contains("nothing"));
}

#[tokio::test]
async fn what_is_no_file_of_a_store_is_neither_waited_for_nor_read_to_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let look = |path: &std::path::Path| verify(path, &mut |_, _| {}, &mut |_| {}).expect_err("damaged");
    let log = super::log_file(dir.path());
    for path in [dir.path().join("format"), log] {
        let aside = dir.path().join("aside");
        std::fs::rename(&path, &aside).expect("put aside");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        assert!(matches!(look(&path), OpenError::Damaged { .. }), "as a backup");
        assert!(matches!(look(dir.path()), OpenError::Damaged { file, .. } if file == path), "a pipe");
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        assert!(matches!(look(dir.path()), OpenError::Damaged { file, .. } if file == path), "an endless one");
        std::fs::remove_file(&path).expect("removed");
        std::fs::rename(&aside, &path).expect("put back");
        let length = std::fs::metadata(&path).expect("there").len();
        let file = std::fs::File::options().write(true).open(&path).expect("a file");
        file.set_len(3 << 30).expect("a hole");
        assert!(
            matches!(look(dir.path()), OpenError::Damaged { what, .. } if what.contains("has more than")),
            "a hole"
        );
        file.set_len(length).expect("as it was");
    }
}

#[tokio::test]
async fn every_value_of_before_that_is_kept_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    let found = || {
        let found = formerly(dir.path(), &Key::new("key-2")).expect("whole");
        found.into_values().map(|value| String::from_utf8(value).expect("text")).collect::<Vec<_>>()
    };
    for (at, value) in ["one", "two", "three"].into_iter().enumerate() {
        commit(&store, transaction([put("key-1", "beside it"), put("key-2", value), put("key-3", "after it")])).await;
        commit(&store, transaction([put("key-1", &format!("another {at}"))])).await;
        store.snapshot().await.expect("snapshot");
    }
    commit(&store, transaction([put("key-2", "four")])).await;
    assert!(matches!(formerly(dir.path(), &Key::new("key-2")), Err(OpenError::InUse(_))));
    store.close().await.expect("close");
    assert_eq!(found(), ["one", "two", "three", "four"]);
    // As retention does: the snapshots say what the log said before.
    let mut segments: Vec<_> =
        fs::read_dir(dir.path().join("log")).expect("a log").map(|entry| entry.expect("an entry").path()).collect();
    segments.sort();
    segments[..segments.len() - 1].iter().for_each(|segment| fs::remove_file(segment).expect("removed"));
    assert_eq!(found(), ["one", "two", "three", "four"]);
}
