//! Three members, of which some are lost.

use std::{process::Child, time::Duration};

use coffer_proto::etcd::{StatusRequest, maintenance_client::MaintenanceClient};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::{
    commit_of, keys_of,
    server::{free_port, launch},
    soon,
};
use crate::store::{
    Error, Follow, Position, Store as _,
    conformance::{put, records, transaction},
    etcd::{Etcd, EtcdOptions},
};

struct Member {
    port: u16,
    child: Child,
}

/// A cluster of three. Dropping it ends all.
struct Members {
    all: Vec<Member>,
    _dirs: Vec<TempDir>,
}

impl Members {
    fn start() -> Self {
        let ports: Vec<_> = (0..3).map(|_| (free_port(), free_port())).collect();
        let names = ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}"));
        let cluster = names.collect::<Vec<_>>().join(",");
        let mut dirs = Vec::new();
        let mut launched = Vec::new();
        for (at, (client, peer)) in ports.iter().enumerate() {
            let dir = tempfile::tempdir().expect("a directory");
            launched.push(launch(&[
                format!("--name=m{at}"),
                format!("--data-dir={}", dir.path().display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={cluster}"),
            ]));
            dirs.push(dir);
        }
        let member = |((port, _), launched): (&(u16, u16), super::server::Launched)| Member {
            port: *port,
            child: launched.ready().expect("its ports are free"),
        };
        Self { all: ports.iter().zip(launched).map(member).collect(), _dirs: dirs }
    }

    fn options(&self) -> EtcdOptions {
        let endpoints = self.all.iter().map(|member| format!("http://127.0.0.1:{}", member.port)).collect();
        EtcdOptions { endpoints, prefix: "coffer/".into(), tls: None, user: None }
    }

    /// Which of them leads.
    async fn leader(&self) -> usize {
        for (at, member) in self.all.iter().enumerate() {
            let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", member.port)).expect("an address");
            let mut client = MaintenanceClient::new(endpoint.connect_lazy());
            let status = client.status(StatusRequest {}).await.expect("status").into_inner();
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                return at;
            }
        }
        panic!("nobody leads");
    }

    fn signal(&self, member: usize, signal: Signal) {
        let pid = Pid::from_child(&self.all[member].child);
        kill_process(pid, signal).expect("a signal");
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.all {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

/// Commits until a time, one after the other; those that were acknowledged, and those that nobody knows of.
async fn write_until(store: Etcd, end: Instant) -> (Vec<(String, Position)>, Vec<String>) {
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    let mut at = 0;
    while Instant::now() < end {
        let key = format!("{at:05}");
        at += 1;
        match soon(store.commit(transaction([put(&key, "")]))).await {
            Ok(outcome) => acknowledged.push((key, outcome.expect("no conflict"))),
            Err(Error::Unknown(_)) => unknown.push(key),
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    (acknowledged, unknown)
}

/// What was acknowledged is there, at its position, and told once and in order; what was refused is not.
async fn check(store: &Etcd, mut follower: Box<dyn Follow>, acknowledged: &[(String, Position)], unknown: &[String]) {
    let (_, records) = records(store).await;
    for (key, position) in acknowledged {
        let record = records.iter().find(|record| record.key.as_str() == key);
        assert_eq!(record.map(|record| record.revision), Some(position.revision), "{key}");
    }
    for record in records {
        let commit = commit_of(&mut follower).await;
        assert_eq!((keys_of(&commit), commit.position.revision), (vec![record.key.to_string()], record.revision));
        let key = record.key.as_str();
        assert!(
            acknowledged.iter().any(|(known, _)| known == key) || unknown.iter().any(|known| known == key),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_or_paused_loses_nothing_acknowledged() {
    for signal in [Signal::KILL, Signal::STOP] {
        let members = Members::start();
        Etcd::create(members.options()).await.expect("create");
        let store = Etcd::open(members.options()).await.expect("open");
        let after = store.latest().await.expect("latest");
        let follower = store.changes(after).await.expect("a follower");
        let leader = members.leader().await;
        let end = Instant::now() + Duration::from_secs(8);
        let writer = tokio::spawn(write_until(store.clone(), end));
        // In the middle of it.
        while store.latest().await.expect("latest").revision.0 < after.revision.0 + 50 {}
        members.signal(leader, signal);
        let (acknowledged, unknown) = writer.await.expect("the writer ends well");
        if signal == Signal::STOP {
            members.signal(leader, Signal::CONT);
        }
        let (_, newest) = acknowledged.last().expect("some were");
        assert!(newest.revision.0 > after.revision.0 + 60, "nothing was written after the leader was lost");
        assert!(store.latest().await.is_ok_and(|latest| latest >= *newest));
        check(&store, follower, &acknowledged, &unknown).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_are_refused_within_two_seconds_until_it_is_back() {
    let members = Members::start();
    Etcd::create(members.options()).await.expect("create");
    let store = Etcd::open(members.options()).await.expect("open");
    soon(store.commit(transaction([put("first", "")]))).await.expect("commit").expect("no conflict");
    let leader = members.leader().await;
    let lost = [(leader + 1) % 3, leader];
    for member in lost {
        members.signal(member, Signal::STOP);
    }
    // What was on its way when the majority went may have landed.
    let first = soon(store.commit(transaction([put("first", "")]))).await;
    assert!(matches!(first, Err(Error::Unavailable(_) | Error::Unknown(_))), "{first:?}");
    for _ in 0..3 {
        let begun = Instant::now();
        let refused = soon(store.commit(transaction([put("refused", "")]))).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        assert!(begun.elapsed() < Duration::from_millis(2_300), "{:?}", begun.elapsed());
    }
    for member in lost {
        members.signal(member, Signal::CONT);
    }
    let begun = Instant::now();
    while let Err(error) = soon(store.commit(transaction([put("back", "")]))).await {
        assert!(begun.elapsed() < super::HANGS_AFTER, "{error}");
    }
    let keys: Vec<_> = records(&store).await.1.into_iter().map(|record| record.key.to_string()).collect();
    assert_eq!(keys, ["back", "first"]);
}
