//! Every file of the data directory cut, flipped, deleted, rolled back: everything that was acknowledged is shown, or the
//! store does not open and names a file. Damage is never served.

use super::{opening::bytes, *};
use crate::store::{Change, Key};

/// A closed store with segments, snapshots and sled, how its directory was earlier, and what it shows.
struct History {
    dir: tempfile::TempDir,
    earlier: tempfile::TempDir,
    shown: Shown,
}

async fn history() -> History {
    let (dir, earlier) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = create(dir.path()).await;
    fill(&store, 0..6).await;
    store.snapshot().await.expect("snapshot");
    fill(&store, 4..10).await;
    store.close().await.expect("close");
    copy(dir.path(), earlier.path());
    let store = open(dir.path()).await;
    commit(&store, transaction([Change::DeletePrefix(Key::new("key-1")), put("key-2", "newer")])).await;
    store.snapshot().await.expect("snapshot");
    fill(&store, 20..24).await;
    let shown = shown(&store).await;
    store.close().await.expect("close");
    History { dir, earlier, shown }
}

impl History {
    /// Files by their paths below the directory, with their content; sled's without the room it reserves.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let below = |path: &Path| path.strip_prefix(self.dir.path()).expect("below").to_str().expect("text").to_owned();
        bytes(self.dir.path()).into_iter().map(|(path, content)| (below(&path), content)).collect()
    }

    /// Opens a copy in which one file is as `change` leaves it. `Ok`: it opened with everything. Otherwise the error, whose
    /// file is in the directory and stands at the beginning.
    async fn open_with(&self, what: &str, change: impl FnOnce(&Path)) -> Result<(), String> {
        let copied = tempfile::tempdir().expect("a directory");
        copy(self.dir.path(), copied.path());
        change(copied.path());
        let log = || copied.path().join("log").exists().then(|| bytes(&copied.path().join("log")));
        let before = log();
        match Embedded::open(copied.path(), Options::default()).await {
            Ok(store) => {
                assert_eq!(shown(&store).await, self.shown, "{what}");
                // What was mended stays mended, and takes writes.
                commit(&store, transaction([put("after", what)])).await;
                store.close().await.expect("close");
                let store = open(copied.path()).await;
                assert_eq!(shown(&store).await.1.len(), self.shown.1.len() + 1, "{what}");
                store.close().await.expect("close");
                Ok(())
            }
            Err(error) => {
                let error = error.to_string();
                let named = error.strip_prefix(&copied.path().display().to_string());
                assert!(named.is_some(), "{what}: {error}");
                assert_eq!(log(), before, "{what}: refused, and the log was touched");
                Err(named.expect("checked").to_owned())
            }
        }
    }
}

/// Which files may cost the store its opening.
fn is_needed(file: &str) -> bool {
    file == "format" || file.starts_with("log/")
}

#[tokio::test]
async fn files_that_are_cut() {
    let history = history().await;
    for (file, content) in history.files() {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for keep in [0, 1, used / 3, used / 2, used.saturating_sub(50), used.saturating_sub(1)] {
            if keep >= content.len() {
                continue;
            }
            let what = format!("{file} cut to {keep} of {}", content.len());
            let opened =
                history.open_with(&what, |dir| fs::write(dir.join(&file), &content[..keep]).expect("write")).await;
            if !is_needed(&file) {
                assert_eq!(opened, Ok(()), "{what}");
            } else if keep + super::super::log::frame::HEADER_BYTES < content.len() {
                // No more than the closing frame can go without being missed. A last segment without its header looks
                // as if it was never begun; then the one before it ends too early.
                let named = if keep < super::super::log::segment::HEADER_BYTES { "/log/" } else { file.as_str() };
                assert!(opened.is_err_and(|error| error.contains(named) || file == "format"), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn files_in_which_a_byte_is_flipped() {
    let history = history().await;
    for (file, content) in history.files() {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (0..9).map(|step| step * used / 9).chain([used.saturating_sub(1)]) {
            if at >= content.len() {
                continue;
            }
            let mut flipped = content.clone();
            flipped[at] ^= 1 << (at % 8);
            let what = format!("{file} with byte {at} of {used} flipped");
            let opened = history.open_with(&what, |dir| fs::write(dir.join(&file), &flipped).expect("write")).await;
            if !is_needed(&file) {
                assert_eq!(opened, Ok(()), "{what}");
            } else if file.starts_with("log/") && at + super::super::log::frame::HEADER_BYTES < used {
                assert!(opened.is_err_and(|error| error.contains(&file)), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn files_and_directories_that_are_gone() {
    let history = history().await;
    let files = history.files().into_iter().map(|(file, _)| file);
    for gone in files.chain(["log", "sled", "snapshots"].map(String::from)) {
        let opened = history
            .open_with(&gone, |dir| {
                let path = dir.join(&gone);
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("remove");
            })
            .await;
        match gone.as_str() {
            // Sled stands at a later position than where the log then begins.
            "log/00000000000000000001.log" => assert_eq!(opened, Ok(()), "{gone}"),
            gone if is_needed(gone) || gone == "log" => assert!(opened.is_err(), "{gone}"),
            gone => assert_eq!(opened, Ok(()), "{gone}"),
        }
    }
}

#[tokio::test]
async fn files_and_directories_as_they_were_earlier() {
    let history = history().await;
    let files = history.files().into_iter().map(|(file, _)| file);
    for old in files.chain(["log", "sled", "snapshots"].map(String::from)) {
        let from = history.earlier.path().join(&old);
        if !from.exists() {
            continue;
        }
        let opened = history
            .open_with(&old, |dir| {
                if from.is_dir() {
                    return replace(&from, &dir.join(&old));
                }
                fs::copy(&from, dir.join(&old)).expect("copy");
            })
            .await;
        match old.as_str() {
            "log" => assert!(opened.is_err_and(|error| error.contains("acknowledged transactions are missing"))),
            old if old.starts_with("log/00000000000000000007") => assert!(opened.is_err(), "{old}"),
            old => assert_eq!(opened, Ok(()), "{old}"),
        }
    }
}

#[tokio::test]
async fn sled_is_made_anew_from_whichever_snapshot_is_whole() {
    let history = history().await;
    let snapshots: Vec<_> =
        history.files().into_iter().filter(|(file, _)| file.starts_with("snapshots/")).map(|(file, _)| file).collect();
    assert_eq!(snapshots.len(), 2);
    let spoil = |dir: &Path, file: &str| {
        let mut content = fs::read(dir.join(file)).expect("read");
        let at = content.len() / 2;
        content[at] ^= 1;
        fs::write(dir.join(file), content).expect("write");
    };
    for spoilt in 0..4_usize {
        for log_begins_later in [false, true] {
            let what = format!("snapshots {spoilt:02b} spoilt, the log's first segment gone: {log_begins_later}");
            let opened = history
                .open_with(&what, |dir| {
                    fs::remove_dir_all(dir.join("sled")).expect("remove");
                    snapshots
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| spoilt >> at & 1 == 1)
                        .for_each(|(_, file)| spoil(dir, file));
                    if log_begins_later {
                        fs::remove_file(dir.join("log/00000000000000000001.log")).expect("remove");
                    }
                })
                .await;
            match spoilt == 3 && log_begins_later {
                true => assert!(opened.expect_err(&what).contains("no snapshot"), "{what}"),
                false => assert_eq!(opened, Ok(()), "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_usable_is_kept_aside_but_not_for_ever() {
    let history = history().await;
    let dir = history.dir.path();
    for round in 1..=4 {
        fs::write(dir.join("sled/db"), format!("damage {round}")).expect("write");
        let store = open(dir).await;
        assert_eq!(shown(&store).await, history.shown);
        store.close().await.expect("close");
        let mut aside: Vec<_> = fs::read_dir(dir)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .filter(|name| name.starts_with("sled."))
            .collect();
        aside.sort();
        let expected: Vec<_> = (round.max(2) - 1..=round).map(|number| format!("sled.damaged-{number}")).collect();
        assert_eq!(aside, if round == 1 { expected[..1].to_vec() } else { expected });
        let newest = fs::read_to_string(dir.join(format!("sled.damaged-{round}/db"))).expect("read");
        assert_eq!(newest, format!("damage {round}"));
    }
}
