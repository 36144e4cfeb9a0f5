//! One server that is cut off from etcd while another is well: who knows both is served by the one that is well, whichever
//! comes first in the list.

use std::{net::TcpListener, time::Duration};

use coffer_client::{Client, Config, Credential, follow::Follow, retry::Policy};
use coffer_proto::{token::Token, v1};
use rustix::process::Signal;
use tokio::time::timeout;
use tonic::Code;

use super::{SCOPE, WORKLOAD, fetch};
use crate::harness::{Etcd, Server, again, refused, secret, until_async};

/// Far more than it takes.
const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_knew_that_is_cut_off_is_taken_only_where_no_other_is_well() {
    let etcd = Etcd::start(3);
    let mut well = Server::builder().on(etcd.config("")).start();
    let member = (etcd.ask().leader().await + 1) % 3;
    let apart = Server::builder().on(etcd.config_at(member, "")).beside(&well);
    let manager = well.manager(&[SCOPE]).await;
    let create = secret(SCOPE, "KEY", "old");
    again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    let issuer = well.with("services/issuer", &[("workloads:issue", WORKLOAD)]).await;
    let (token, ended) = (well.issue(&issuer, WORKLOAD, None).await, well.issue(&issuer, WORKLOAD, None).await);
    let user = well.token("users/manager").await;
    let known = async |token: &str| {
        let client = apart.client(token);
        again(async || client.workloads().fetch_environment(fetch()).await).await.expect("known").into_inner()
    };
    let start = known(&token).await.environment_revision;
    known(&ended).await;

    etcd.signal_one(member, Signal::STOP);
    until_async("a server to be cut off", async || known(&token).await.stale_since).await;
    let set = v1::UpdateSecretRequest {
        name: format!("{SCOPE}/secrets/KEY"),
        value: Some("new".into()),
        ..Default::default()
    };
    again(async || manager.secrets().update_secret(set.clone()).await).await.expect("updated");
    let revoke = v1::RevokeTokenRequest { name: format!("tokens/{}", Token::parse(&ended).expect("a token").id()) };
    again(async || issuer.tokens().revoke_token(revoke.clone()).await).await.expect("revoked");
    assert!(known(&ended).await.stale_since.is_some(), "by itself it knows nothing of that");

    let both = format!("{},{}", apart.address(), well.address());
    // The one that is well may be too busy for a moment to see its store.
    until_async("a start with what is new", async || {
        let tool = apart.inject(&token).env("COFFER_ADDRESS", both.clone());
        let started = tool.args(["--", "sh", "-c", "echo $KEY"]).run();
        (started.stderr.is_empty() && started.text() == "new\n").then_some(())
    })
    .await;
    let client = client_of(&both, &ended);
    let refusal = until_async("a refusal", async || {
        let fetched = client.workloads().fetch_environment(fetch()).await;
        fetched.map(drop).err().filter(|status| status.code() == Code::Unauthenticated)
    })
    .await;
    assert_eq!(refused::<()>(Err(refusal)).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    let mut follow = Follow::new(client_of(&both, &token), WORKLOAD, &start, Policy::default());
    let told = timeout(LONG, follow.next()).await.expect("in time").expect("it is followed");
    assert_ne!(told.revision, start);

    // Without the one that is well what was known is better than nothing, and what a server says better than that
    // another is not there.
    well.kill();
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let both = format!("http://{free},{},http://{free}", apart.address());
    let started = apart.inject(&token).env("COFFER_ADDRESS", both.clone());
    let started = started.args(["--", "sh", "-c", "echo $KEY"]).run();
    assert!(started.stderr.contains("has not reached its store since"), "{}", started.stderr);
    assert_eq!(started.ok(), "old\n");
    let listed = apart.cli(&user).env("COFFER_ADDRESS", both).args(["secret", "list", SCOPE]).run();
    assert_eq!(listed.code, Some(69));
    assert!(listed.stderr.contains("try again in a moment") && !listed.stderr.contains("refused"), "{}", listed.stderr);
}

fn client_of(addresses: &str, token: &str) -> Client {
    let credential = Some(Credential::Token(Token::parse(token).expect("a token")));
    Client::lazy(Config { credential, ..Config::new(addresses.parse().expect("addresses")) }).expect("a client")
}
