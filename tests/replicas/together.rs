//! Two servers and more: what one acknowledged, all show.

use std::time::Duration;

use coffer_proto::{token::Token, v1};
use tonic::Code;

use super::{SCOPE, WORKLOAD, fetch, fetched_now, list, start_token};
use crate::harness::{Etcd, Server, again, refused, secret, until_async};

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
    let fetched = fetched_now(&second.client(&workload)).await;
    assert_eq!(fetched.variables.len(), 50);

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
async fn starts_and_uses_through_several_servers_are_put_together() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let create = secret(SCOPE, "KEY", "v");
    again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    let token = first.workload_token(WORKLOAD).await;
    // Several at one, then one at the other, before either has written them down, and after.
    for server in [&first, &first, &second, &first, &second] {
        let client = server.client(&token);
        again(async || client.workloads().fetch_environment(fetch()).await).await.expect("fetched");
    }
    let token = first.token("users/manager").await;
    for server in [&first, &second] {
        let client = server.client(&token);
        let known = until_async("all starts", async || {
            let request = v1::ListInstancesRequest { parent: SCOPE.into(), ..Default::default() };
            let known = client.instances().list_instances(request).await.ok()?.into_inner();
            known.workloads.into_iter().next().filter(|known| known.instances.len() == 5)
        })
        .await;
        let times: Vec<_> = known.instances.iter().map(|start| start.start_time.expect("a time")).collect();
        assert!(times.is_sorted_by_key(|time| std::cmp::Reverse((time.seconds, time.nanos))), "{times:?}");
        assert!(!known.restart_required);
        let listed = again(async || client.secrets().list_secrets(list()).await).await.expect("listed").into_inner();
        let used = listed.secrets[0].last_injected_time.expect("it was used");
        assert!(used.seconds >= times[1].seconds, "{used:?} and {times:?}");
    }
}
