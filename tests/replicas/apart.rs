//! Without a majority of etcd's members.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use coffer_client::{Client, Config, Credential};
use coffer_proto::{token::Token, v1};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{SCOPE, WORKLOAD, exchange, fetch, fetched_now, list, start_token};
use crate::harness::{Etcd, Server, again, refused, secret, until_async};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_workloads_are_started_with_what_was_known_and_nothing_else_is_answered() {
    let etcd = Etcd::start(3);
    let mut first = Server::builder().on(etcd.config("max_stale = \"1h\"")).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE, BUSY]).await;
    let create = secret(SCOPE, "KEY", "value");
    again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    let token = first.workload_token(WORKLOAD).await;
    let workload = first.client(&token);
    again(async || workload.workloads().fetch_environment(fetch()).await).await.expect("fetched");

    let is_lost = Arc::new(AtomicBool::new(false));
    let mut writers = write_until_refused(&manager, &is_lost);
    let busy = || v1::ListSecretsRequest { parent: BUSY.into(), ..Default::default() };
    until_async("many to write", async || {
        let written = manager.secrets().list_secrets(busy()).await.ok()?.into_inner().secrets;
        (written.len() > 2 * WRITERS).then_some(())
    })
    .await;
    is_lost.store(true, Ordering::Relaxed);
    etcd.signal(Signal::STOP);
    let began = Instant::now();
    // The write of one may be under way, and of that nobody knows; all others wait for it.
    for _ in 1..WRITERS {
        let status = writers.join_next().await.expect("one more").expect("no panic");
        assert_eq!(refused::<()>(Err(status)).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
        assert!(began.elapsed() < REFUSED_MAX + SLACK, "refused after {:?}", began.elapsed());
    }
    let began = Instant::now();
    let fetched = workload.workloads().fetch_environment(fetch()).await.expect("from what is known").into_inner();
    assert!(fetched.stale_since.is_some() && fetched.variables.len() == 1, "it says so");
    let write = manager.secrets().create_secret(secret(SCOPE, "OTHER", "value")).await;
    assert_eq!(refused(write).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
    let read = manager.secrets().list_secrets(list()).await;
    assert_eq!(refused(read).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "nobody waits for long: {took:?}");
    let started = first.inject(&token).args(["--", "sh", "-c", "echo $KEY"]).run();
    assert!(started.stderr.contains("has not reached its store since"), "{}", started.stderr);
    assert_eq!(started.ok(), "value\n");

    etcd.signal(Signal::CONT);
    until_async("etcd to be back", async || {
        manager.secrets().create_secret(secret(SCOPE, "OTHER", "value")).await.ok()
    })
    .await;
    assert_eq!(fetched_now(&workload).await.variables.len(), 2);

    // A client that knows both servers goes on at the other.
    let addresses = format!("{},{}", first.address(), second.address()).parse().expect("addresses");
    let credential = Some(Credential::Token(Token::parse(&token).expect("a token")));
    let both = Client::lazy(Config { credential, ..Config::new(addresses) }).expect("a client");
    both.workloads().fetch_environment(fetch()).await.expect("of the first");
    first.kill();
    // The first call may fail on the connection that breaks under it: nobody knows what came of it.
    fetched_now(&both).await;
}

/// Where many write at once.
const BUSY: &str = "projects/busy";
const WRITERS: usize = 10;

/// Writers of one scope, each until it is refused once the store is lost.
fn write_until_refused(manager: &Client, is_lost: &Arc<AtomicBool>) -> JoinSet<Status> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (manager, is_lost) = (manager.clone(), is_lost.clone());
        writers.spawn(async move {
            let mut at = 0;
            loop {
                at += 1;
                let written = manager.secrets().create_secret(secret(BUSY, &format!("W{writer}_{at}"), "v")).await;
                match written {
                    Err(status) if is_lost.load(Ordering::Relaxed) => return status,
                    _ => {}
                }
            }
        });
    }
    writers
}

/// Longest a write may take that is refused.
const REFUSED_MAX: Duration = Duration::from_secs(2);
/// What an answer takes on a busy machine, beside the time that is measured.
const SLACK: Duration = Duration::from_millis(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_are_refused_at_once_and_workloads_answered_for_as_long_as_was_said() {
    const MAX_STALE: Duration = Duration::from_secs(3);
    let etcd = Etcd::start(3);
    let first = Server::builder().on(etcd.config("max_stale = \"3s\"")).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let create = secret(SCOPE, "KEY", "value");
    again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    let token = first.workload_token(WORKLOAD).await;
    let start = start_token(&first).await;
    let manager_there = second.client(&first.token("users/manager").await);
    for server in [&first, &second] {
        // From the moment of the loss on a server knows what it knew, so it has to know whoever calls.
        let workload = server.client(&token);
        again(async || workload.workloads().fetch_environment(fetch()).await).await.expect("known");
    }
    let leader = etcd.ask().leader().await;
    let lost = [leader, (leader + 1) % 3];
    lost.iter().for_each(|at| etcd.signal_one(*at, Signal::STOP));

    let names = [("FIRST", &first, &manager), ("SECOND", &second, &manager_there)];
    let watched = names.map(|(name, server, manager)| {
        let (workload, starting, manager) = (server.client(&token), server.client(&start), manager.clone());
        async move {
            let (mut stale, mut last_good) = (0_u32, SystemTime::UNIX_EPOCH);
            let mut is_told = false;
            loop {
                let began = Instant::now();
                let write = manager.secrets().create_secret(secret(SCOPE, name, "value")).await;
                assert_eq!(refused(write).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
                assert!(began.elapsed() < REFUSED_MAX, "refused after {:?}", began.elapsed());
                assert_eq!(refused(exchange(&starting, 1).await).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
                match workload.workloads().fetch_environment(fetch()).await {
                    Ok(answer) => {
                        let since = answer.into_inner().stale_since.expect("it says so");
                        last_good = since.try_into().expect("a time");
                        let age = age(last_good);
                        assert!(age < MAX_STALE + SLACK, "answered after {age:?}");
                        stale += 1;
                        is_told |= serves(server, "").await && !serves(server, "coffer.v1.Secrets").await;
                    }
                    Err(status) => {
                        let why = refused::<()>(Err(status));
                        assert_eq!(why.why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
                        break;
                    }
                }
                // As those who try again do.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let age = age(last_good);
            assert!(stale > 0 && age >= MAX_STALE, "refused after {age:?} and {stale} answers");
            assert!(is_told, "health says what is served meanwhile, and what is not");
        }
    });
    let [one, other] = watched;
    tokio::join!(one, other);
    for server in [&first, &second] {
        until_async("health to say so", async || (!serves(server, "").await).then_some(())).await;
        let fetched = server.client(&token).workloads().fetch_environment(fetch()).await;
        assert_eq!(refused(fetched).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
    }

    lost.iter().for_each(|at| etcd.signal_one(*at, Signal::CONT));
    for server in [&first, &second] {
        until_async("health to say so", async || serves(server, "coffer.v1.Secrets").await.then_some(())).await;
    }
    for (name, server, manager) in names {
        until_async("writes to go on", async || {
            manager
                .secrets()
                .create_secret(secret(SCOPE, name, "value"))
                .await
                .map_err(|status| refused::<()>(Err(status)))
                .ok()
        })
        .await;
        fetched_now(&server.client(&token)).await;
    }
    let names: Vec<_> = second.environment(WORKLOAD).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["FIRST", "KEY", "SECOND"], "nothing that was refused has happened");
    exchange(&second.client(&start), 2).await.expect("nobody has used it up");
}

/// What grpc.health.v1 says of a service; of the server as a whole without a name.
async fn serves(server: &Server, service: &str) -> bool {
    let request = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
    let token = server.operator_token();
    let answer = server.client(&token).health().check(request).await.expect("told").into_inner();
    answer.status() == tonic_health::pb::health_check_response::ServingStatus::Serving
}

/// How long ago a server says that something was.
#[allow(clippy::disallowed_methods, reason = "the time that a server told is compared with this machine's")]
fn age(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).expect("past")
}
