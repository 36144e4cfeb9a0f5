//! Creating, opening, closing: who may, what is refused, what stands in the directory.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store::{Error, conformance::pending};

fn text(outcome: Result<impl Sized, OpenError>) -> String {
    outcome.err().expect("an error").to_string()
}

async fn open_error(dir: &Path) -> String {
    text(Embedded::open(dir, Options::default()).await)
}

/// Every file with its content.
pub(super) fn bytes(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => all.extend(bytes(&path)),
            false => all.push((path.clone(), fs::read(&path).expect("read"))),
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_store_is_created_once_and_only_where_there_is_none() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("deep/store");
    assert_eq!(open_error(&dir).await, format!("{}: there is no store here", dir.display()));
    assert!(!dir.exists(), "opening creates nothing");
    let store = create(&dir).await;
    fill(&store, 0..1).await;
    store.close().await.expect("close");
    let before = bytes(&dir);
    let exists = format!("{}: there is already a store here, or parts of one", dir.display());
    assert_eq!(text(Embedded::create(&dir).await), exists);
    assert_eq!(bytes(&dir), before);

    fs::remove_file(dir.join("format")).expect("remove");
    assert_eq!(text(Embedded::create(&dir).await), exists, "without its format, it is still not created over");
    assert!(open_error(&dir).await.contains("format: damaged: it is missing"));
}

#[tokio::test]
async fn a_store_is_open_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    let in_use = format!("{}: the store is in use by another process", dir.path().display());
    assert_eq!(open_error(dir.path()).await, in_use);
    let other = store.clone();
    drop(store);
    assert_eq!(open_error(dir.path()).await, in_use);
    other.close().await.expect("close");
    open(dir.path()).await;
}

#[tokio::test]
async fn a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().expect("a directory");
    create(dir.path()).await.close().await.expect("close");
    let format = fs::read_to_string(dir.path().join("format")).expect("read");
    for (other, expected) in [
        ("store 3", "the store has format 3, and this version reads formats up to 2: use a newer one"),
        ("store 1", "the store has format 1, of before the first release, which is not read"),
    ] {
        fs::write(dir.path().join("format"), format.replace("store 2", other)).expect("write");
        let before = bytes(dir.path());
        assert_eq!(open_error(dir.path()).await, format!("{}: {expected}", dir.path().display()));
        assert_eq!(bytes(dir.path()), before);
    }
    for garbage in ["", "coffer store", "coffer store 0\n", "coffer store 2\ninstance xyz\n", "\u{0}"] {
        fs::write(dir.path().join("format"), garbage).expect("write");
        assert!(open_error(dir.path()).await.contains("format: damaged"), "{garbage:?}");
    }
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("store");
    let store = create(&dir).await;
    fill(&store, 0..1).await;
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    for directory in ["", "log", "sled"] {
        assert_eq!(mode(&dir.join(directory)), 0o700, "{directory}");
    }
    for (file, _) in bytes(&dir) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = create(dir.path()).await;
    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    pending(&mut follower.next()).await;
    store.close().await.expect("close");
    store.close().await.expect("close again");
    let closed = Error::Unavailable("it is closed".into());
    assert_eq!(store.commit(transaction([put("key", "x")])).await, Err(closed.clone()));
    assert_eq!(store.load().await.err(), Some(closed.clone()));
    assert_eq!(follower.next().await, Err(closed));
}

#[tokio::test]
async fn parts_of_two_stores_do_not_open() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    for dir in [&one, &two] {
        let store = create(dir.path()).await;
        fill(&store, 0..3).await;
        store.close().await.expect("close");
    }
    let mixed = |part: &str| {
        let mixed = tempfile::tempdir().expect("a directory");
        replace(one.path(), mixed.path());
        replace(&two.path().join(part), &mixed.path().join(part));
        mixed
    };
    let error = open_error(mixed("log").path()).await;
    assert!(error.contains("belongs to another store"), "{error}");
    // Sled only follows the log, and is made anew.
    let with_sled = mixed("sled");
    let [shown, expected] =
        [with_sled.path(), one.path()].map(|dir| async move { super::shown(&open(dir).await).await });
    assert_eq!(shown.await, expected.await);
}

#[tokio::test]
async fn what_sled_did_not_finish_is_no_damage() {
    for torn in [&b""[..], b"half", &[0; 84]] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = create(dir.path()).await;
        fill(&store, 0..3).await;
        let before = shown(&store).await;
        store.close().await.expect("close");
        // Sled sorts its snapshots by name and believes the last one.
        fs::write(dir.path().join("sled/snap.FFFFFFFFFFFFFFFF.generating"), torn).expect("write");
        let store = open(dir.path()).await;
        assert_eq!(shown(&store).await, before);
        let names = fs::read_dir(dir.path()).expect("list").map(|entry| entry.expect("entry").file_name());
        let anew: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("sled.")).collect();
        assert!(anew.is_empty(), "sled was made anew: {anew:?}");
        store.close().await.expect("close");
    }
}
