//! Two servers and more: what one acknowledged, all show.

use std::time::Duration;

use coffer_proto::{token::Token, v1};
use tonic::Code;

use super::{SCOPE, WORKLOAD, fetch, list, start_token};
use crate::harness::{Etcd, Server, refused, secret};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_acknowledged_every_other_shows_and_what_it_took_away_is_gone() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let token = first.token("users/manager").await;
    let there = second.client(&token);
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
