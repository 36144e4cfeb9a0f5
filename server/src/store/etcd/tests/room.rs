//! When etcd has no room, or takes no writes at all.

use coffer_proto::etcd::{AlarmRequest, AlarmType, alarm_request::AlarmAction};
use tokio::task::JoinSet;

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
    store.may_write().await.expect("a server starts");

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

/// As etcd's own check of its members raises the alarm, which an operator ends once the bad one is replaced.
#[tokio::test]
async fn what_etcd_refuses_as_corrupt_goes_on_when_the_alarm_ends() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    let mut follower = store.changes(store.latest().await.expect("latest")).await.expect("a follower");
    store.commit(transaction([put("before", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["before"]);
    let set = async |action: AlarmAction| {
        let alarm = AlarmRequest { action: action.into(), alarm: AlarmType::Corrupt.into(), ..AlarmRequest::default() };
        server.maintenance().alarm(alarm).await.expect("answered");
    };
    set(AlarmAction::Activate).await;
    let refused = store.commit(transaction([put("refused", "")])).await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("corrupt")), "{refused:?}");
    assert_eq!(records(&store).await.1.len(), 1, "reads pass");
    store.may_write().await.expect("a server starts");
    assert!(matches!(store.condition().await.writes, Writes::Nothing(why) if why.contains("CORRUPT")));
    set(AlarmAction::Deactivate).await;
    store.commit(transaction([put("after", "")])).await.expect("commit").expect("no conflict");
    assert_eq!(keys_of(&commit_of(&mut follower).await), ["after"]);
    assert_eq!(store.condition().await.writes, Writes::All);
}

/// etcd looks for room before a transaction and again once it has done it. Those that are under way when its file grows
/// over the quota are done, and answered as if they were not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_want_of_room_has_not_happened() {
    const WRITERS: usize = 64;
    let server = Server::start_with(&["--quota-backend-bytes=8000000"]);
    let store = server.create("coffer/").await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let key = format!("{writer:02}/{:04}", acknowledged.len());
                let large = Change::Put(Key::new(key.as_str()), vec![7; RECORD_BYTES / 4].into());
                match store.commit(transaction([large])).await {
                    Ok(outcome) => acknowledged.push((key, outcome.expect("no conflict").revision)),
                    Err(Error::Full(_)) => return acknowledged,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let mut acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();
    let found: Vec<_> =
        records(&store).await.1.into_iter().map(|record| (record.key.to_string(), record.revision)).collect();
    assert_eq!(found, acknowledged);
}
