//! What the system refuses before anything has happened, for want of descriptors, memory or a right: nothing is lost by it,
//! and work goes on without a restart.

use std::io::ErrorKind;

use rustix::io::Errno;
use tempfile::TempDir;

use super::{
    super::verify,
    disk::{Fault, On, TestDisk},
    *,
};
use crate::store::{CHUNK_BYTES, Error, Writes, conformance::delete};

/// What a refusal of the system that passes can be.
const PASSING: [Errno; 9] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::ACCESS,
    Errno::PERM,
    Errno::ROFS,
    Errno::AGAIN,
    Errno::NOSPC,
    Errno::DQUOT,
];

/// Small segments, so that nearly every commit begins one.
fn options() -> Options {
    Options { log_segment_bytes: 600, retention: Duration::ZERO, ..Options::default() }
}

async fn start(disk: &TestDisk) -> (TempDir, Embedded) {
    let dir = tempfile::tempdir().expect("a directory");
    Embedded::create(dir.path()).await.expect("create");
    let store = Embedded::open_on(dir.path(), options(), ground(disk)).await.expect("open");
    (dir, store)
}

fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::Exhausted(_) | Error::Full(_) | Error::NoRoom(_))
}

/// Everything that opens or creates files while a store runs. What is refused must be refused for now, and clearly.
async fn work(store: &Embedded, written: &mut usize) {
    for _ in 0..4 {
        match store.commit(transaction([put(&format!("key-{written}"), &"x".repeat(400))])).await {
            Ok(outcome) => *written += usize::from(outcome.is_ok()),
            Err(error) => assert!(is_passing(&error), "{error:?}"),
        }
    }
    if let Err(error) = store.snapshot().await {
        assert!(is_passing(&error), "{error:?}");
    }
    match store.backup().await {
        Ok(mut backup) => assert!(backup.chunks.chunk().await.expect("a chunk").expect("bytes").len() <= CHUNK_BYTES),
        Err(error) => assert!(is_passing(&error), "{error:?}"),
    }
}

#[tokio::test]
async fn each_opening_refused_once_with_each_error_loses_nothing() {
    let disk = TestDisk::default();
    let (dir, store) = start(&disk).await;
    let mut written = 0;
    for errno in PASSING {
        let mut refused = 0;
        loop {
            disk.refuse_opening(refused, errno.raw_os_error());
            work(&store, &mut written).await;
            if disk.is_to_refuse() {
                break;
            }
            refused += 1;
            // It has passed: nothing needs a restart.
            let before = written;
            work(&store, &mut written).await;
            assert_eq!(written, before + 4, "{errno}");
            store.snapshot().await.expect("a snapshot");
            assert_eq!(store.condition().await.writes, Writes::All);
        }
        assert!(refused >= 4, "segments, a snapshot and its directory were to be opened, not {refused}");
    }
    assert_eq!(shown(&store).await.1.len(), written);
    store.close().await.expect("close");
    verify(dir.path(), &mut |_, _| {}, &mut |_| {}).expect("whole");
    let store = open(dir.path()).await;
    assert_eq!(shown(&store).await.1.len(), written);
}

#[tokio::test]
async fn a_write_of_which_nothing_stands_is_refused_and_tried_again() {
    for keep in [0, 60] {
        for errno in PASSING {
            let disk = TestDisk::default();
            let (dir, store) = start(&disk).await;
            fill(&store, 0..2).await;
            disk.fail(On::Log, Fault::WriteErrno(keep, errno.raw_os_error()));
            // Where nothing was taken nothing is cut either: a file system that is read only does not let it.
            disk.fail(On::Log, Fault::Truncate);
            let outcome = store.commit(transaction([put("refused", "x")])).await;
            if keep > 0 {
                // What it took stands, and cannot be removed.
                assert!(matches!(outcome, Err(Error::Unknown(_))), "{errno}: {outcome:?}");
                continue;
            }
            assert!(is_passing(&outcome.expect_err("refused")), "{errno}");
            fill(&store, 2..4).await;
            drop(store);
            let store = open_when_free(dir.path()).await;
            assert_eq!(shown(&store).await.1.len(), 4, "{errno}");
        }
    }
}

#[tokio::test]
async fn a_log_that_cannot_begin_a_segment_grows_to_its_limit_and_comes_back_by_itself() {
    let disk = TestDisk::default();
    let (dir, store) = start(&disk).await;
    let mut written = 0;
    let refused = loop {
        disk.fail(On::Log, Fault::CreateErrno(Errno::MFILE.raw_os_error()));
        match store.commit(transaction([put(&format!("key-{written}"), &"x".repeat(400))])).await {
            Ok(outcome) => written += usize::from(outcome.is_ok()),
            Err(error) => break error,
        }
        assert!(written < 100, "it grows for ever");
    };
    assert!(matches!(&refused, Error::Unavailable(why) if why.contains("of at most 2400")), "{refused:?}");
    assert!((4..8).contains(&written), "{written} transactions of 500 bytes");
    // The condition says what a call would hear, and of itself tries again.
    let mut writes = store.condition().await.writes;
    assert!(matches!(&writes, Writes::Nothing(why) if why.contains("of at most 2400")), "{writes:?}");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while writes != Writes::All {
        assert!(std::time::Instant::now() < deadline, "{writes:?}");
        tokio::task::yield_now().await;
        writes = store.condition().await.writes;
    }
    fill(&store, 100..104).await;
    drop(store);
    let store = open_when_free(dir.path()).await;
    assert_eq!(shown(&store).await.1.len(), written + 4);
}

#[tokio::test]
async fn a_sync_that_failed_is_final_whatever_it_says() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem, ErrorKind::OutOfMemory] {
        let disk = TestDisk::default();
        let (_dir, store) = start(&disk).await;
        disk.fail(On::Log, Fault::Sync(kind));
        let outcome = store.commit(transaction([put("lost", "or not")])).await;
        assert!(matches!(outcome, Err(Error::Unknown(_))), "{kind}: {outcome:?}");
        let later = store.commit(transaction([delete("lost")])).await;
        assert!(matches!(later, Err(Error::Failed(_))), "{kind}: {later:?}");
    }
}
