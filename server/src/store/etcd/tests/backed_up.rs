//! Loads and backups of many records.

use std::fs;

use super::{server::Server, soon};
use crate::store::{
    CHUNK_BYTES, Change, Key, Position, RECORD_BYTES, Store as _,
    conformance::{put, records, transaction},
    etcd::Etcd,
    snapshot::Reader,
};

/// Small records and large ones, in runs of either.
async fn fill(store: &Etcd) -> Position {
    let mut latest = Position::default();
    for run in 0..6 {
        let small = |at: usize| put(&format!("{run}/{at:04}"), "small");
        let large = |at: usize| Change::Put(Key::new(format!("{run}/{at:04}/large")), vec![7; RECORD_BYTES].into());
        for changes in [(0..1_000).map(small).collect::<Vec<_>>(), (0..13).map(large).collect()] {
            latest = store.commit(transaction(changes)).await.expect("commit").expect("no conflict");
        }
    }
    latest
}

#[tokio::test]
async fn a_load_of_many_pages_has_every_record_once() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    let latest = fill(&store).await;
    let (position, records) = soon(records(&store)).await;
    assert_eq!((position, records.len()), (latest, 6 * 1_013));
}

#[tokio::test]
async fn a_backup_is_a_snapshot_as_large_as_it_said() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    let latest = fill(&store).await;
    let mut backup = soon(store.backup()).await.expect("a backup");
    // What comes later is no part of it.
    store.commit(transaction([put("later", "")])).await.expect("commit").expect("no conflict");
    let mut bytes = Vec::new();
    while let Some(chunk) = soon(backup.chunks.chunk()).await.expect("a chunk") {
        assert!((1..=CHUNK_BYTES).contains(&chunk.len()));
        bytes.extend(chunk);
    }
    assert_eq!((backup.snapshot.position, backup.snapshot.bytes), (latest, bytes.len() as u64));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("backup");
    fs::write(&path, bytes).expect("write");
    let mut reader = Reader::open(&path).expect("a snapshot");
    let mut count = 0;
    while let Some(frame) = reader.frame().expect("a frame") {
        count += frame.len();
    }
    assert_eq!((count, backup.snapshot.records), (6 * 1_013, 6 * 1_013));
}
