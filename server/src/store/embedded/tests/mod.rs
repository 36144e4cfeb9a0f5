//! Tests of the embedded store as a whole.

mod conform;
mod damage;
mod disk;
mod faults;
mod files;
mod golden;
mod keeping;
mod opening;
mod passing;
mod random;
mod restored;
mod restoring;
mod runs;
mod verifying;

use std::{fs, path::Path, time::Duration};

use super::{Embedded, Ground, OpenError, Options};
use crate::store::{
    Position, Store, Transaction,
    conformance::{put, transaction},
};

/// What a store shows: where it stands, and its records.
type Shown = (Position, Vec<crate::store::Record>);

async fn create(dir: &Path) -> Embedded {
    Embedded::create(dir).await.expect("create");
    open(dir).await
}

async fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, Options::default()).await.expect("open")
}

async fn commit(store: &Embedded, transaction: Transaction) -> Position {
    store.commit(transaction).await.expect("commit").expect("no conflict")
}

/// Commits one record for each number.
async fn fill(store: &Embedded, numbers: std::ops::Range<usize>) {
    for number in numbers {
        commit(store, transaction([put(&format!("key-{number}"), &format!("value-{number}"))])).await;
    }
}

/// Opens a store whose last handle was dropped: its threads may still be ending.
async fn open_when_free(dir: &Path) -> Embedded {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match Embedded::open(dir, Options::default()).await {
            Err(OpenError::InUse(_)) if tokio::time::Instant::now() < until => tokio::task::yield_now().await,
            outcome => return outcome.expect("open"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a directory");
    for entry in fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copy")),
        }
    }
}

fn replace(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    copy(from, to);
}

/// The store's only segment.
fn log_file(dir: &Path) -> std::path::PathBuf {
    dir.join("log/00000000000000000001.log")
}

async fn shown(store: &Embedded) -> Shown {
    crate::store::conformance::records(store).await
}

fn ground(disk: &disk::TestDisk) -> Ground {
    Ground { disk: std::sync::Arc::new(disk.clone()), ..Ground::default() }
}
