//! An etcd that was put back to an earlier state while servers run.

use std::time::Duration;

use coffer_proto::{
    token::Token,
    v1::{self, WatchEnvironmentRequest},
};
use tokio::time::timeout;
use tonic::Code;

use super::{SCOPE, WORKLOAD, fetch, list};
use crate::harness::{Etcd, Server, again, refused, secret, until_async};

/// Far more than it takes.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_put_back_is_noticed_and_nothing_ended_lives_again() {
    let mut etcd = Etcd::start(3);
    let config = etcd.config("");
    let first = Server::builder().on(config.clone()).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    let create = async |name| {
        let request = secret(SCOPE, name, "v");
        again(async || manager.secrets().create_secret(request.clone()).await).await.expect("created");
    };
    create("KEPT").await;
    let workload = first.workload_token(WORKLOAD).await;
    let revoked = first.token("users/manager").await;
    let copy = etcd.copy();

    create("LOST").await;
    let before = first.store_status().await.position;
    let name = format!("tokens/{}", Token::parse(&revoked).expect("a token").id());
    let revoke = v1::RevokeTokenRequest { name };
    again(async || first.operator().tokens().revoke_token(revoke.clone()).await).await.expect("revoked");
    let old = again(async || second.client(&workload).workloads().fetch_environment(fetch()).await).await;
    let environment_revision = old.expect("fetched").into_inner().environment_revision;
    let request = WatchEnvironmentRequest { environment_revision, ..Default::default() };
    let watch = again(async || second.client(&workload).workloads().watch_environment(request.clone()).await).await;
    let mut watch = watch.expect("a watch").into_inner();

    etcd.put_back(&copy);
    // Both were asked for nothing since; the watch ends by itself, and its reader has to begin anew.
    let ended = timeout(LONG, watch.message()).await.expect("it ends").map(drop);
    assert_eq!(refused(ended).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    for server in [&first, &second] {
        for token in [&workload, &revoked, &server.operator_token()] {
            let client = server.client(token);
            let over = again(async || client.secrets().list_secrets(list()).await).await;
            assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
        }
    }

    // Whoever has the key lets an operator in; nobody stops a server for it.
    let admitted = Server::command(&["operator", "--config"])
        .arg(&config)
        .arg("--key-file")
        .arg(first.key_file())
        .arg("--audit-file")
        .arg(first.home().join("operator-audit.log"))
        .output()
        .expect("it runs");
    assert!(admitted.status.success(), "{}", String::from_utf8_lossy(&admitted.stderr));
    let operator = String::from_utf8(admitted.stdout).expect("text").trim().to_owned();
    for server in [&first, &second] {
        std::fs::write(server.operator_token_file(), &operator).expect("written");
    }
    let (old, new) = (epoch(&before), epoch(&second.store_status().await.position));
    assert_eq!(new, old + 1, "the epoch rose once");
    let manager = first.manager(&[SCOPE]).await;
    let there = second.client(&first.token("users/manager").await);
    until_async("writes to go on", async || manager.secrets().create_secret(secret(SCOPE, "NEW", "v")).await.ok())
        .await;
    for client in [&manager, &there] {
        let listed = again(async || client.secrets().list_secrets(list()).await).await.expect("listed").into_inner();
        let names: Vec<_> = listed.secrets.into_iter().map(|secret| secret.name).collect();
        assert_eq!(names, ["KEPT", "NEW"].map(|name| format!("{SCOPE}/secrets/{name}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_put_back_while_no_server_ran_needs_a_word_from_the_operator() {
    let mut etcd = Etcd::start(1);
    let config = etcd.config("");
    let mut server = Server::builder().on(config.clone()).start();
    server.grant("users/manager", "secrets:manage", SCOPE).await;
    let token = server.token("users/manager").await;
    let copy = etcd.copy();
    let name = format!("tokens/{}", Token::parse(&token).expect("a token").id());
    let revoke = v1::RevokeTokenRequest { name };
    again(async || server.operator().tokens().revoke_token(revoke.clone()).await).await.expect("revoked");
    server.kill();
    etcd.put_back(&copy);

    let raised = Server::command(&["raise-epoch", "--config"])
        .arg(&config)
        .arg("--key-file")
        .arg(server.key_file())
        .arg("--audit-file")
        .arg(server.home().join("audit.log"))
        .output()
        .expect("it runs");
    assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
    server.run();
    let client = server.client(&token);
    let over = again(async || client.secrets().list_secrets(list()).await).await;
    assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"), "it was revoked");
}

fn epoch(position: &str) -> u64 {
    position.split('.').next().and_then(|epoch| epoch.parse().ok()).expect("an epoch")
}
