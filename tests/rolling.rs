//! An upgrade without downtime: servers of one store end and start one after the other, and no call of a client that knows
//! them all fails.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use coffer_client::{Client, Config, Credential};
use coffer_proto::{token::Token, v1};
use tonic::Status;

use crate::harness::{Etcd, Ledger, Server, until_async};

const WORKLOAD: &str = "projects/ledger-0/servers/s";
/// Calls of each kind that are answered between two restarts, so that each of them is felt.
const CALLS_BETWEEN: u64 = 30;

/// A client that knows all of them, by addresses that outlive a restart.
fn client_of(servers: &[Server], token: &str) -> Client {
    let addresses: Vec<_> = servers.iter().map(Server::socket).collect();
    let addresses = addresses.join(",").parse().expect("addresses");
    let credential = Some(Credential::Token(Token::parse(token).expect("a token")));
    Client::lazy(Config { credential, ..Config::new(addresses) }).expect("a client")
}

/// Goes on until it is over; each call must be answered.
async fn again_and_again<F: Future<Output = Result<(), Status>>>(
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    mut call: impl FnMut() -> F,
) {
    while !over.load(Ordering::Relaxed) {
        call().await.expect("answered by one of the servers");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_restart_one_after_the_other_and_no_call_fails() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let more = [Server::builder().beside(&first), Server::builder().beside(&first)];
    let mut servers: Vec<_> = [first].into_iter().chain(more).collect();
    for (principal, permission) in [("users/manager", "secrets:manage"), ("services/platform", "secrets:inject")] {
        servers[0].grant(principal, permission, "projects/-").await;
    }
    let manager = servers[0].token("users/manager").await;
    let platform = servers[0].token("services/platform").await;
    let over = Arc::new(AtomicBool::new(false));
    let [written, read] = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];

    let writers: Vec<_> = Ledger::several(3)
        .into_iter()
        .map(|mut ledger| {
            let (client, over, written) = (client_of(&servers, &manager), Arc::clone(&over), Arc::clone(&written));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    ledger.step(&client).await.expect("answered by one of the servers");
                    written.fetch_add(1, Ordering::Relaxed);
                }
                ledger
            })
        })
        .collect();
    let reader = client_of(&servers, &platform);
    let fetch = move || {
        let client = reader.clone();
        async move {
            let request = v1::FetchEnvironmentRequest { workload: WORKLOAD.into(), ..Default::default() };
            client.workloads().fetch_environment(request).await.map(drop)
        }
    };
    let reader = tokio::spawn(again_and_again(Arc::clone(&over), Arc::clone(&read), fetch));

    for server in &mut servers {
        let so_far = [&written, &read].map(|count| count.load(Ordering::Relaxed));
        until_async("calls to be answered", async || {
            let now = [&written, &read].map(|count| count.load(Ordering::Relaxed));
            now.iter().zip(so_far).all(|(now, before)| *now > before + CALLS_BETWEEN).then_some(())
        })
        .await;
        assert_eq!(server.stop().await.code(), Some(0));
        server.run();
    }
    over.store(true, Ordering::Relaxed);
    reader.await.expect("no call failed");
    let injector = client_of(&servers, &platform);
    for writer in writers {
        writer.await.expect("no call failed").settle(&injector).await;
    }
}
