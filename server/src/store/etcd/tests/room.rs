//! When etcd has no room.

use super::{commit_of, keys_of, server::Server};
use crate::store::{
    Change, Error, Key, RECORD_BYTES, Store as _, Writes,
    conformance::{delete, delete_prefix, put, records, transaction},
};

#[tokio::test]
async fn without_room_only_deletes_pass_and_are_seen() {
    let server = Server::start_with(&["--quota-backend-bytes=8000000"]);
    let store = server.create("coffer/").await;
    assert_eq!(store.condition().await.writes, Writes::All);
    store.commit(transaction([put("revoked", "")])).await.expect("commit").expect("no conflict");
    let large = |at: usize| Change::Put(Key::new(format!("large/{at:03}")), vec![7; RECORD_BYTES].into());
    let mut refused = None;
    // etcd looks at the size of its file, which is written some time after a transaction.
    for at in (0..2_000).step_by(10) {
        let many: Vec<_> = (at..at + 10).map(large).collect();
        if let Err(error) = store.commit(transaction(many)).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(Error::Full(_))), "{refused:?}");
    let small = store.commit(transaction([put("small", "")])).await;
    assert!(matches!(small, Err(Error::Full(_))), "{small:?}");
    assert!(matches!(store.condition().await.writes, Writes::Deletes(_)));

    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    // Of this handle, which has records of attempts, and of one that has none yet.
    let deletes = [(store.clone(), delete("revoked"), 1), (server.open("coffer/").await, delete_prefix("large/"), 10)];
    for (store, change, count_min) in deletes {
        let position = store.commit(transaction([change])).await.expect("deletes pass").expect("no conflict");
        assert_eq!(store.latest().await, Ok(position));
        let commit = commit_of(&mut follower).await;
        assert!(commit.position == position && keys_of(&commit).len() >= count_min);
    }
    assert_eq!(records(&store).await.1, Vec::new());
}
