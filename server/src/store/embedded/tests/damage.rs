//! Damage to any file: found or harmless, never served, and nothing acknowledged is lost.

use super::{
    super::{disk, layout, sled::Records},
    *,
};

/// A closed store with some history, the directory of its sled as it was half way, and what it shows.
async fn history(options: Options) -> (tempfile::TempDir, tempfile::TempDir, Shown) {
    let (dir, half) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = create(dir.path()).await;
    fill(&store, 0..10).await;
    store.close().await.expect("close");
    copy(&dir.path().join("sled"), half.path());
    let store = Embedded::open(dir.path(), options).await.expect("open");
    fill(&store, 5..15).await;
    commit(&store, transaction([crate::store::Change::DeletePrefix(crate::store::Key::new("key-1"))])).await;
    let shown = shown(&store).await;
    store.close().await.expect("close");
    (dir, half, shown)
}

/// Opens a damaged copy: `None` if that is refused, with a text that names a file of the store.
async fn open_damaged(dir: &Path) -> Option<Shown> {
    match Embedded::open(dir, Options::default()).await {
        Ok(store) => {
            let shown = shown(&store).await;
            store.close().await.expect("close");
            Some(shown)
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with(&dir.display().to_string()), "{error}");
            None
        }
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[at] ^= 1 << (at % 8);
    fs::write(path, bytes).expect("write");
}

fn cut(path: &Path, length: usize) {
    let bytes = fs::read(path).expect("read");
    fs::write(path, &bytes[..length]).expect("write");
}

#[tokio::test]
async fn a_flipped_byte_of_the_log_is_refused_wherever_it_stands() {
    let (dir, _, expected) = history(Options::default()).await;
    let length = fs::metadata(log_file(dir.path())).expect("metadata").len() as usize;
    let closing = super::super::log::frame::HEADER_BYTES;
    for at in (0..length).step_by(61).chain([length - closing - 1, length - closing, length - 1]) {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        flip(&log_file(copied.path()), at);
        let shown = open_damaged(copied.path()).await;
        // The closing frame alone says nothing that is missed.
        assert_eq!(shown, (at >= length - closing).then(|| expected.clone()), "byte {at} of {length}");
    }
}

#[tokio::test]
async fn a_log_that_ends_before_sled_is_refused() {
    let (dir, _, expected) = history(Options::default()).await;
    let length = fs::metadata(log_file(dir.path())).expect("metadata").len() as usize;
    let closing = super::super::log::frame::HEADER_BYTES;
    for keep in (0..length).step_by(97).chain([length - closing - 1, length - closing, length - 1]) {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        cut(&log_file(copied.path()), keep);
        let shown = open_damaged(copied.path()).await;
        assert_eq!(shown, (keep >= length - closing).then(|| expected.clone()), "{keep} bytes of {length}");
    }
}

#[tokio::test]
async fn sled_rolls_forward_from_wherever_it_is() {
    let (dir, half, expected) = history(Options::default()).await;
    replace(half.path(), &dir.path().join("sled"));
    assert_eq!(open_damaged(dir.path()).await, Some(expected.clone()), "from half way");
    fs::remove_dir_all(dir.path().join("sled")).expect("remove");
    assert_eq!(open_damaged(dir.path()).await, Some(expected.clone()), "from nothing");
    assert_eq!(open_damaged(dir.path()).await, Some(expected), "again");
}

#[tokio::test]
async fn a_torn_last_frame_is_cut_and_everything_before_it_stands() {
    let (dir, half, _) = history(Options::default()).await;
    let closing = super::super::log::frame::HEADER_BYTES;
    let length = fs::metadata(log_file(dir.path())).expect("metadata").len() as usize - closing;
    let last =
        length - closing - super::super::log::group::encoded_bytes(&[crate::store::conformance::delete("key-1")]) - 4;
    let mut shown_before = None;
    for keep in [last, last + 1, last + 20, length - 1] {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        replace(half.path(), &copied.path().join("sled"));
        cut(&log_file(copied.path()), keep);
        // It was not acknowledged.
        fs::remove_file(copied.path().join("acknowledged")).expect("remove");
        let shown = open_damaged(copied.path()).await.expect("it opens");
        let now = fs::metadata(log_file(copied.path())).expect("metadata").len() as usize;
        assert_eq!(now, last + closing, "the torn frame is gone");
        assert_eq!(shown.1.len(), 15, "all but the last transaction");
        assert_eq!(*shown_before.get_or_insert_with(|| shown.clone()), shown);
        // The cut is durable: what is written next is found again.
        let store = open(copied.path()).await;
        fill(&store, 20..21).await;
        drop(store);
        let store = open_when_free(copied.path()).await;
        assert_eq!(super::shown(&store).await.1.len(), 16);
    }
}

#[tokio::test]
async fn a_lost_sled_is_made_anew_and_refused_where_nothing_can_make_it() {
    let options = Options { log_segment_bytes: 300, ..Options::default() };
    let (dir, half, expected) = history(options).await;
    let sled = dir.path().join("sled");
    replace(half.path(), &sled);
    assert_eq!(open_damaged(dir.path()).await, Some(expected.clone()), "rolled back");
    fs::remove_dir_all(&sled).expect("remove");
    assert_eq!(open_damaged(dir.path()).await, Some(expected), "removed");
    // Without the log's beginning nothing stands for the first records.
    fs::remove_file(log_file(dir.path())).expect("remove");
    fs::remove_dir_all(&sled).expect("remove");
    assert_eq!(open_damaged(dir.path()).await, None, "removed with the first segment");
    assert!(!sled.exists(), "it is not begun anew");
    fs::remove_dir_all(dir.path().join("log")).expect("remove");
    assert_eq!(open_damaged(dir.path()).await, None, "log removed");
}

#[tokio::test]
async fn whatever_happens_to_sleds_files_the_right_records_are_shown() {
    let (dir, _, expected) = history(Options::default()).await;
    let db = fs::read(dir.path().join("sled/db")).expect("read");
    let used = db.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    let tally = |shown: Option<Shown>, what: String| assert_eq!(shown.as_ref(), Some(&expected), "{what}");
    for at in (0..40).map(|step| step * used / 40) {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        match at % 3 {
            0 => cut(&copied.path().join("sled/db"), at),
            _ => flip(&copied.path().join("sled/db"), at),
        }
        tally(open_damaged(copied.path()).await, format!("byte {at} of {used}"));
    }
    for file in ["conf", "db"] {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        fs::remove_file(copied.path().join("sled").join(file)).expect("remove");
        tally(open_damaged(copied.path()).await, format!("{file} removed"));
    }
}

#[tokio::test]
async fn a_record_that_sled_lost_or_brought_back_is_missed_and_made_anew() {
    let (dir, _, expected) = history(Options::default()).await;
    let record = &expected.1[0];
    let older = (crate::store::Revision(record.revision.0 - 1), record.value.clone());
    for (write, missed) in [(None, true), (Some(older), true), (Some((record.revision, record.value.clone())), false)] {
        let copied = tempfile::tempdir().expect("a directory");
        copy(dir.path(), copied.path());
        let layout = layout::Layout::new(copied.path().into());
        let lock = std::sync::Arc::new(layout.lock().expect("lock"));
        let records = Records::open(&layout.sled(), 1 << 20, &disk::RealDisk, lock).expect("open sled");
        let checkpoint = records.checkpoint().expect("read").expect("a checkpoint");
        let writes = [(record.key.clone(), write.clone())].into();
        records.apply(&writes, &checkpoint).expect("apply");
        drop(records);
        let shown = open_damaged(copied.path()).await;
        assert_eq!(shown.as_ref(), Some(&expected), "{write:?}");
        assert_eq!(copied.path().join("sled.damaged-1").exists(), missed, "{write:?}");
    }
}
