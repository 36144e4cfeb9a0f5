//! Keys: the wrong one, and rotations that one server begins while others write.

use std::{
    fs,
    sync::{Arc, atomic::AtomicBool},
};

use coffer_proto::v1::{self, RotatedKeys};

use super::{SCOPE, WORKLOAD};
use crate::harness::{Etcd, Ledger, Server, again, environment, secret};

/// Writers, as many of them through each of three servers.
const WRITERS: usize = 6;
/// Scopes that nobody writes to, so that a rotation takes a while.
const RESTING: usize = 60;
/// How often a rotation may be done before its server is killed.
const CUT_OFF_TRIES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_key_is_refused_and_disturbs_nobody() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let mut second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let create = secret(SCOPE, "KEY", "value");
    again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    let before = etcd.ask().revision(0).await.expect("told");

    // A key of another store.
    let stranger = Server::start();
    second.kill();
    fs::copy(stranger.key_file(), second.key_file()).expect("copied");
    let refused = second.try_run_by(second.run_command()).expect_err("it does not open the store");
    assert_eq!(refused.code(), Some(1));
    let said = second.log();
    let expected = format!("error: key file {}: wrong key", second.key_file().display());
    assert!(said.lines().any(|line| line.starts_with(&expected)), "{said}");

    assert_eq!(etcd.ask().revision(0).await, Some(before), "it has written nothing");
    assert_eq!(first.environment(WORKLOAD).await, [("KEY".to_owned(), "value".to_owned())]);
    fs::copy(first.key_file(), second.key_file()).expect("copied");
    second.run();
    assert_eq!(second.environment(WORKLOAD).await, [("KEY".to_owned(), "value".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_whose_server_is_killed_is_gone_on_with_by_another_and_loses_nothing() {
    let etcd = Etcd::start(1);
    let mut first = Server::builder().on(etcd.config("")).start();
    let [second, third] = [(); 2].map(|()| Server::builder().beside(&first));
    first.grant("users/writer", "secrets:manage", "projects/-").await;
    first.grant("services/injector", "secrets:inject", "projects/-").await;
    let writer = first.token("users/writer").await;
    let injector = first.token("services/injector").await;
    let mut resting = Ledger::several(WRITERS + RESTING);
    let ledgers: Vec<_> = resting.drain(..WRITERS).collect();
    for ledger in &mut resting {
        while ledger.step(&second.client(&writer)).await.is_err() {}
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = ledgers
        .into_iter()
        .enumerate()
        .map(|(at, ledger)| {
            // That which is killed, that which goes on, and one that knows of neither.
            let server = [&first, &second, &third][at % 3];
            tokio::spawn(ledger.write_on(server.socket_client(&writer), is_over.clone()))
        })
        .collect();

    for keys in [RotatedKeys::Data, RotatedKeys::Root] {
        let root = second.key_status().await.root_key_id;
        let mut left = None;
        for _ in 0..CUT_OFF_TRIES {
            let request = v1::RotateKeysRequest { keys: keys.into() };
            let operator = first.operator();
            let begun = again(async || operator.operations().rotate_keys(request).await).await.expect("begun");
            first.kill();
            drop(begun);
            left = second.key_status().await.rotation.filter(|left| left.end_time.is_none());
            if left.is_some() {
                break;
            }
            first.run();
        }
        let left = left.expect("it was cut off at least once");
        assert_eq!(left.keys(), keys);
        // Asked again, elsewhere, it is the same rotation.
        let operator = second.operator();
        let request = v1::RotateKeysRequest { keys: keys.into() };
        let joined = again(async || operator.operations().rotate_keys(request).await).await.expect("joined");
        let mut told = joined.into_inner();
        let mut last = None;
        while let Some(message) = told.message().await.expect("told") {
            last = message.rotation;
        }
        let last = last.expect("told");
        assert!(last.end_time.is_some() && last.start_time == left.start_time, "{last:?}");
        let now = second.key_status().await.root_key_id;
        assert_eq!(now != root, keys == RotatedKeys::Root, "{now}");
        first.run();
    }

    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writing {
        resting.push(writer.await.expect("the writer ends well"));
    }
    let fresh = Server::builder().beside(&first);
    for ledger in &mut resting {
        let found = ledger.settle(&fresh.client(&injector)).await;
        for other in [&first, &second, &third] {
            assert_eq!(environment(&other.client(&injector), &ledger.scope).await, found, "all servers agree");
        }
    }
}
