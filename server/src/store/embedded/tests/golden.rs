//! The store that is kept in `tests/golden`: what it holds is read as ever, and what is written is still the same.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use super::{
    super::{Target, disk::RealDisk, layout::Layout, restore, verify},
    opening::bytes,
    *,
};
use crate::{
    clock::{Clock, SystemClock},
    store::{
        Epoch, Revision, TransactionId,
        conformance::{delete, delete_prefix},
    },
};

/// Where a store is left that this version wrote, if this is set.
const LEAVE_AT: &str = "COFFER_GOLDEN";

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/store-2")
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

/// Makes the store with nothing left to chance: several segments, one snapshot, something after it.
async fn make(dir: &Path) {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let clock = Arc::new(Stopped(Mutex::new(begin)));
    Layout::new(dir.into()).create([0xc0; 16], &RealDisk).expect("create");
    let ground = Ground { clock: Arc::<Stopped>::clone(&clock), ..Ground::default() };
    let options = Options { log_segment_bytes: 300, ..Options::default() };
    let store = Embedded::open_on(dir, options, ground).await.expect("open");
    let transactions = [
        vec![put("secret/a", "sealed bytes"), put("secret/b", ""), put("grant/x", "\u{0}\u{1}\u{2}")],
        vec![put("secret/a", "sealed bytes, later")],
        vec![delete("secret/b"), put("secret/c/d", "x")],
        vec![put("umlaut/ä", "ö"), put("key", &"long ".repeat(60))],
        vec![delete_prefix("grant/"), put("grant/y", "new")],
        vec![put("secret/b", "again")],
        vec![delete_prefix("secret/c"), delete("nothing")],
        vec![put("last", "one")],
    ];
    for (number, changes) in (1_u8..).zip(transactions) {
        *clock.0.lock().expect("lock") = begin + Duration::from_secs(60 * u64::from(number));
        let id = TransactionId([number; 16]);
        commit(&store, Transaction { id, ..transaction(changes) }).await;
        if number == 5 {
            store.snapshot().await.expect("snapshot");
        }
    }
    store.close().await.expect("close");
    // These are no part of what is kept: sled is made anew.
    fs::remove_dir_all(dir.join("sled")).expect("remove");
    fs::remove_file(dir.join("lock")).expect("remove");
}

fn text((position, records): &Shown) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |record: &crate::store::Record| format!("{} {} {}\n", record.key, record.revision.0, hex(&record.value));
    format!("{position}\n") + &records.iter().map(line).collect::<String>()
}

#[tokio::test]
async fn the_kept_store_is_read() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("copy");
    copy(&kept(), &dir);
    let verified = verify(&dir, &mut |_, _| {}, &mut |_| {}).expect("whole");
    assert_eq!((verified.snapshots, verified.segments, verified.unfinished_bytes), (1, 4, 0));
    let earlier = parent.path().join("earlier");
    let third = Position { epoch: Epoch(1), revision: Revision(3) };
    restore(&dir, &earlier, Target::Position(third), None, &mut |_, _| {}).expect("restore");
    for (dir, expected) in [(&dir, "store-2.records"), (&earlier, "store-2-at-3.records")] {
        let store = open(dir).await;
        let expected = fs::read_to_string(kept().with_file_name(expected)).expect("read");
        assert_eq!(text(&shown(&store).await), expected);
        commit(&store, transaction([put("new", "x")])).await;
        store.close().await.expect("close");
    }
}

#[tokio::test]
async fn what_is_written_is_what_was_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    make(dir.path()).await;
    if let Some(to) = std::env::var_os(LEAVE_AT) {
        copy(dir.path(), Path::new(&to));
    }
    let below = |root: &Path| -> Vec<_> {
        let inner = |path: PathBuf| path.strip_prefix(root).expect("below").to_owned();
        bytes(root).into_iter().map(|(path, content)| (inner(path), content)).collect()
    };
    let (written, kept) = (below(dir.path()), below(&kept()));
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&kept));
    for ((file, written), (_, kept)) in written.iter().zip(&kept) {
        assert!(written == kept, "{} is written otherwise: see tests/golden/README.md", file.display());
    }
}
