//! Writers who know what was acknowledged write through all servers, while etcd's members and servers are killed, stopped
//! and lost, and etcd forgets its history again and again.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use coffer_client::{Client, Config, Credential};
use coffer_proto::token::Token;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::{SCOPE, list};
use crate::harness::{Asked, Etcd, Ledger, Server, environment, secret, until_async};

/// Writers of each server.
const WRITERS: usize = 2;
/// Steps that every writer makes before something is said to go on.
const STEPS: u64 = 3;
/// Far more often than anybody does.
const TIDY_EVERY: Duration = Duration::from_millis(300);
/// Of so many rounds history is kept, so that a server comes to the end of loading what is there, on a slow machine too.
const ROUNDS_KEPT: usize = 10;
/// Longer than any server or member is stopped, so that no call is given up that happens later.
const CALL_MAX: Duration = Duration::from_secs(60);

struct Load {
    is_over: Arc<AtomicBool>,
    /// The writers of each server.
    steps: Vec<Vec<Arc<AtomicU64>>>,
    writers: Vec<JoinHandle<Ledger>>,
}

impl Load {
    /// Begins to write through these servers.
    async fn start(servers: &[&Server]) -> Self {
        servers[0].grant("users/writer", "secrets:manage", "projects/-").await;
        let token = servers[0].token("users/writer").await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut ledgers = Ledger::several(WRITERS * servers.len());
        let (mut steps, mut writers) = (Vec::new(), Vec::new());
        for server in servers {
            let of_server = ledgers.drain(..WRITERS);
            let mut counted = Vec::new();
            for ledger in of_server {
                counted.push(ledger.steps.clone());
                writers.push(tokio::spawn(ledger.write_on(patient(server, &token), is_over.clone())));
            }
            steps.push(counted);
        }
        Self { is_over, steps, writers }
    }

    /// Waits until every writer of these servers was acknowledged some more.
    async fn goes_on(&self, what: &str, servers: &[usize]) {
        let counted: Vec<_> = servers.iter().flat_map(|at| &self.steps[*at]).collect();
        let goals: Vec<_> = counted.iter().map(|steps| steps.load(Ordering::Relaxed) + STEPS).collect();
        until_async(what, async || {
            let reached = counted.iter().zip(&goals).all(|(steps, goal)| steps.load(Ordering::Relaxed) >= *goal);
            let failed = self.writers.iter().any(JoinHandle::is_finished);
            (reached || failed).then_some(())
        })
        .await;
    }

    async fn end(self) -> Vec<Ledger> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut ledgers = Vec::new();
        for writer in self.writers {
            ledgers.push(writer.await.expect("the writer ends well"));
        }
        ledgers
    }
}

/// A client that outlasts restarts of its server.
fn patient(server: &Server, token: &str) -> Client {
    let credential = Some(Credential::Token(Token::parse(token).expect("a token")));
    let addresses = server.socket().parse().expect("an address");
    Client::lazy(Config { credential, call_timeout: CALL_MAX, ..Config::new(addresses) }).expect("a client")
}

/// Forgets history and tidies up, one member after the other, without an end.
async fn tidy_up(etcd: Asked) {
    let mut history = VecDeque::new();
    for at in 0.. {
        history.extend(etcd.revision(at).await);
        if history.len() > ROUNDS_KEPT
            && let Some(oldest) = history.pop_front()
        {
            etcd.compact_to(at, oldest).await;
        }
        etcd.defragment(at).await;
        tokio::time::sleep(TIDY_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whatever_is_killed_stopped_and_forgotten() {
    const ALL: [usize; 3] = [0, 1, 2];
    let mut etcd = Etcd::start(3);
    let first = Server::builder().on(etcd.config("")).start();
    let mut second = Server::builder().beside(&first);
    let third = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let manager_there = patient(&third, &first.token("users/manager").await);
    let injector = {
        first.grant("services/injector", "secrets:inject", "projects/-").await;
        first.token("services/injector").await
    };
    let load = Load::start(&[&first, &second, &third]).await;
    let tidying = tokio::spawn(tidy_up(etcd.ask()));
    load.goes_on("writers to begin", &ALL).await;

    let leader = etcd.ask().leader().await;
    etcd.kill(leader);
    load.goes_on("writes without the leader", &ALL).await;
    etcd.restart();
    load.goes_on("writes with the member that was killed", &ALL).await;

    // One of them leads, and each is the one that some server follows at some time.
    for at in ALL {
        etcd.signal_one(at, Signal::STOP);
        load.goes_on("writes without a stopped member", &ALL).await;
        etcd.signal_one(at, Signal::CONT);
        load.goes_on("writes with the member that was stopped", &ALL).await;
    }

    second.kill();
    load.goes_on("writes of the other servers", &[0, 2]).await;
    second.run();
    load.goes_on("writes of the server that was killed", &ALL).await;

    // Its watch breaks while it is stopped, and what it missed is forgotten before it goes on.
    third.signal(Signal::STOP);
    load.goes_on("writes of the servers that run", &[0, 1]).await;
    manager.secrets().create_secret(secret(SCOPE, "MEANWHILE", "v")).await.expect("created");
    for at in ALL {
        etcd.kill(at);
        etcd.restart();
        load.goes_on("writes through the restart of a member", &[0, 1]).await;
    }
    etcd.ask().compact(0).await;
    third.signal(Signal::CONT);
    let seen = until_async("an answer", async || manager_there.secrets().list_secrets(list()).await.ok()).await;
    assert_eq!(seen.into_inner().secrets.len(), 1, "its first answer is of now");
    load.goes_on("writes of the server that was stopped", &ALL).await;
    assert!(third.log().contains("is loaded again"), "what it missed was forgotten");

    let leader = etcd.ask().leader().await;
    etcd.kill(leader);
    load.goes_on("writes on two members", &ALL).await;
    tidying.abort();

    let mut ledgers = load.end().await;
    let fourth = Server::builder().beside(&first);
    for ledger in &mut ledgers {
        let found = ledger.settle(&first.client(&injector)).await;
        for other in [&second, &third, &fourth] {
            assert_eq!(environment(&other.client(&injector), &ledger.scope).await, found, "all servers agree");
        }
    }
}
