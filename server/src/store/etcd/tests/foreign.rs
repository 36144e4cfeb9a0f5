//! What others do in the same cluster.

use coffer_proto::etcd::{RangeRequest, TxnRequest, TxnResponse};

use super::{commit_of, keys_of, server::Server, soon};
use crate::store::{
    Error, Moment as _, Next, Store as _,
    conformance::{delete, put, records, transaction},
    etcd::{Etcd, OpenError, transaction as encoding},
    snapshot::Reader,
};

async fn write(server: &Server, key: &[u8], value: &str) -> TxnResponse {
    put_value(server, key, value.into()).await
}

async fn put_value(server: &Server, key: &[u8], value: Vec<u8>) -> TxnResponse {
    let success = vec![encoding::put(key.to_vec(), value)];
    server.kv().txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("write").into_inner()
}

#[tokio::test]
async fn two_stores_in_one_cluster_see_nothing_of_each_other() {
    let server = Server::start();
    let (one, two) = (server.create("one/").await, server.create("on/").await);
    let mut follower = one.changes(one.latest().await.expect("latest")).await.expect("a follower");
    for (store, name) in [(&one, "first"), (&two, "second"), (&one, "third")] {
        store.commit(transaction([put("key", name)])).await.expect("commit").expect("no conflict");
    }
    write(&server, b"elsewhere", "x").await;
    write(&server, b"one", "x").await;
    let commits = [commit_of(&mut follower).await, commit_of(&mut follower).await];
    assert_eq!(one.latest().await, Ok(commits[1].position));
    let text = |records: Vec<crate::store::Record>| String::from_utf8_lossy(&records[0].value).into_owned();
    assert_eq!(text(records(&one).await.1), "third");
    assert_eq!(text(records(&two).await.1), "second");
}

#[tokio::test]
async fn a_store_is_created_once_and_where_nothing_is() {
    let server = Server::start();
    server.create("coffer/").await;
    write(&server, b"other/key", "x").await;
    for prefix in ["coffer/", "coffer/r/", "coffer/x/y/", "other/"] {
        let created = Etcd::create(server.options(prefix)).await;
        assert_eq!(created, Err(OpenError::Exists(prefix.to_owned())));
    }
    let opened = Etcd::open(server.options("other/")).await.err();
    assert_eq!(opened, Some(OpenError::Missing("other/".to_owned())));
}

#[tokio::test]
async fn what_others_write_among_its_keys_is_no_part_of_its_history() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    let start = store.latest().await.expect("latest");
    let mut follower = store.changes(start).await.expect("a follower");
    let ours = store.commit(transaction([put("ours", "1")])).await.expect("commit").expect("no conflict");
    for key in [&b"coffer/r/theirs"[..], b"coffer/r/\xff\xff", b"coffer/r/", b"coffer/x", b"coffer/p"] {
        write(&server, key, "x").await;
    }
    assert_eq!(store.latest().await, Ok(ours));
    let more = store.commit(transaction([put("more", "1")])).await.expect("commit").expect("no conflict");
    for (position, key) in [(ours, "ours"), (more, "more")] {
        let commit = commit_of(&mut follower).await;
        assert_eq!((commit.position, keys_of(&commit)), (position, vec![key.to_owned()]));
    }
    // What could be a record is loaded, for whoever opens it to refuse; what could not is left out.
    let (position, records) = records(&store).await;
    let keys: Vec<_> = records.iter().map(|record| record.key.as_str()).collect();
    assert_eq!((position, &keys[..]), (more, &["more", "ours", "theirs"][..]));
    // A backup can be read whatever they did after it.
    write(&server, b"coffer/r/ours/later", "x").await;
    let mut backup = store.backup().await.expect("a backup");
    let mut bytes = Vec::new();
    while let Some(chunk) = backup.chunks.chunk().await.expect("a chunk") {
        bytes.extend(chunk);
    }
    let mut reader = Reader::new(&bytes[..]).expect("a snapshot");
    let page = reader.frame().expect("whole").expect("records");
    assert_eq!((page.len(), reader.frame().map(|end| end.is_none())), (3, Ok(true)));
}

#[tokio::test]
async fn who_verifies_a_store_is_told_of_what_others_wrote_among_its_records() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    store.commit(transaction([put("ours", "1")])).await.expect("commit").expect("no conflict");
    let seen = async || {
        let moment = Etcd::moment(server.options("coffer/")).await.expect("there is a store");
        let mut load = moment.load();
        let page = load.page().await?.expect("a record");
        assert_eq!((page.len() as u64, load.page().await?), (moment.about(), None));
        Ok::<_, Error>(moment.position())
    };
    assert_eq!(seen().await, store.latest().await);
    write(&server, b"elsewhere", "x").await;
    assert_eq!(seen().await, store.latest().await, "others' keys are none of its business");
    for (key, value) in [("coffer/r/ours", "1"), ("coffer/r/theirs", "1"), ("coffer/r/", "1")] {
        write(&server, key.as_bytes(), value).await;
        let told = seen().await;
        assert!(matches!(&told, Err(Error::Failed(what)) if what.contains(key)), "{key}: {told:?}");
        store.commit(transaction([put("ours", "1"), delete("theirs")])).await.expect("commit").expect("no conflict");
    }
}

#[tokio::test]
async fn a_head_that_another_wrote_is_refused_until_it_is_put_right() {
    let server = Server::start();
    let store = server.create("coffer/").await;
    let start = store.latest().await.expect("latest");
    let mut follower = store.changes(start).await.expect("a follower");
    let mut kv = server.kv();
    let read = RangeRequest { key: b"coffer/head".to_vec(), ..RangeRequest::default() };
    let right = kv.range(read).await.expect("read").into_inner().kvs.remove(0).value;
    let raised = |epoch: u64| [&right[..17], &epoch.to_le_bytes(), &right[25..]].concat();
    for wrong in [b"x".to_vec(), raised(u64::MAX)] {
        put_value(&server, b"coffer/head", wrong).await;
        assert!(matches!(store.latest().await, Err(Error::Unavailable(_))));
        assert!(matches!(store.load().await.err(), Some(Error::Unavailable(_))));
        assert!(matches!(Etcd::open(server.options("coffer/")).await.err(), Some(OpenError::Store(Error::Failed(_)))));
        put_value(&server, b"coffer/head", right.clone()).await;
        let latest = store.latest().await.expect("latest");
        let told = commit_of(&mut follower).await;
        assert_eq!((told.position, told.changes.len()), (latest, 0));
        assert_eq!(latest.epoch, start.epoch);
    }
    // An epoch that could be, had all that belongs to it been there.
    put_value(&server, b"coffer/head", raised(start.epoch.0 + 1)).await;
    assert_eq!(soon(follower.next()).await, Ok(Next::Gap));
    assert!(matches!(store.latest().await, Err(Error::Unavailable(_))));
    assert!(matches!(store.load().await.err(), Some(Error::Unavailable(_))));
    put_value(&server, b"coffer/head", right.clone()).await;
    assert_eq!(store.load().await.map(|load| load.position()), store.latest().await);
    assert_eq!(store.latest().await.expect("latest").epoch, start.epoch);
}
