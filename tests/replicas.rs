//! Several servers on one etcd are one: what one acknowledged all see, what one took away is gone everywhere, and without
//! etcd running workloads can be started again for a while, and nothing else.

use std::time::{Duration, Instant};

use coffer_client::{Client, Config, Credential};
use coffer_proto::{token::Token, v1};
use rustix::process::Signal;
use tonic::Code;

use crate::harness::{Etcd, Server, refused, secret, until_async};

const SCOPE: &str = "projects/p";
const WORKLOAD: &str = "projects/p/servers/s";

fn fetch() -> v1::FetchEnvironmentRequest {
    v1::FetchEnvironmentRequest::default()
}

async fn start_token(server: &Server) -> String {
    let issuer = server.with("services/starter", &[("workloads:issue", SCOPE)]).await;
    let request = v1::IssueTokenRequest { principal: WORKLOAD.into(), single_use: true, ..Default::default() };
    issuer.tokens().issue_token(request).await.expect("issued").into_inner().token
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_acknowledged_every_other_shows_and_what_it_took_away_is_gone() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let token = first.token("users/manager").await;
    let there = second.client(&token);
    let list = || v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() };
    for n in 0..50 {
        manager.secrets().create_secret(secret(SCOPE, &format!("S{n}"), "v")).await.expect("created");
        let seen = there.secrets().list_secrets(list()).await.expect("listed").into_inner();
        assert_eq!(seen.secrets.len(), n + 1, "at once");
    }
    let workload = first.workload_token(WORKLOAD).await;
    let fetched = second.client(&workload).workloads().fetch_environment(fetch()).await.expect("fetched").into_inner();
    assert_eq!((fetched.variables.len(), fetched.stale_since), (50, None));

    // A watch on one hears of a change through the other.
    let mut watch = second
        .client(&workload)
        .workloads()
        .watch_environment(v1::WatchEnvironmentRequest {
            environment_revision: fetched.environment_revision,
            ..Default::default()
        })
        .await
        .expect("a watch")
        .into_inner();
    let delete = v1::DeleteSecretRequest { name: format!("{SCOPE}/secrets/S7"), ..Default::default() };
    manager.secrets().delete_secret(delete).await.expect("deleted");
    let change = tokio::time::timeout(Duration::from_secs(30), watch.message()).await.expect("in time");
    assert_eq!(change.expect("no error").expect("a change").changed_names, ["S7"]);

    let name = format!("tokens/{}", Token::parse(&token).expect("a token").id());
    first.operator().tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    let over = there.secrets().list_secrets(list()).await;
    assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_token_works_once_whichever_server_is_asked() {
    const RACERS: u8 = 100;
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let second = Server::builder().beside(&first);
    let third = Server::builder().beside(&first);
    let start = start_token(&first).await;
    let clients = [first.client(&start), second.client(&start), third.client(&start)];
    let racing: Vec<_> = (0..RACERS)
        .map(|nonce| {
            let client = clients[usize::from(nonce) % clients.len()].clone();
            tokio::spawn(async move {
                let request = v1::ExchangeStartTokenRequest { nonce: vec![nonce; 32] };
                client.tokens().exchange_start_token(request).await
            })
        })
        .collect();
    let mut won = 0;
    for racer in racing {
        match racer.await.expect("no panic") {
            Ok(_) => won += 1,
            Err(status) => assert_eq!(refused::<()>(Err(status)).why(), (Code::Unauthenticated, "START_TOKEN_USED")),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_workloads_are_started_with_what_was_known_and_nothing_else_is_answered() {
    let etcd = Etcd::start(3);
    let mut first = Server::builder().on(etcd.config("max_stale = \"1h\"")).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "KEY", "value")).await.expect("created");
    let token = first.workload_token(WORKLOAD).await;
    let workload = first.client(&token);
    workload.workloads().fetch_environment(fetch()).await.expect("fetched");

    etcd.signal(Signal::STOP);
    let began = Instant::now();
    let fetched = workload.workloads().fetch_environment(fetch()).await.expect("from what is known").into_inner();
    assert!(fetched.stale_since.is_some() && fetched.variables.len() == 1, "it says so");
    let write = manager.secrets().create_secret(secret(SCOPE, "OTHER", "value")).await;
    assert_eq!(refused(write).why(), (Code::Unavailable, "STORE_UNAVAILABLE"));
    let list = v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() };
    let read = manager.secrets().list_secrets(list).await;
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
    let fetched = workload.workloads().fetch_environment(fetch()).await.expect("fetched").into_inner();
    assert_eq!((fetched.variables.len(), fetched.stale_since), (2, None));

    // A client that knows both servers goes on at the other.
    let addresses = format!("{},{}", first.address(), second.address()).parse().expect("addresses");
    let credential = Some(Credential::Token(Token::parse(&token).expect("a token")));
    let both = Client::lazy(Config { credential, ..Config::new(addresses) }).expect("a client");
    both.workloads().fetch_environment(fetch()).await.expect("of the first");
    first.kill();
    both.workloads().fetch_environment(fetch()).await.expect("of the second");
}
