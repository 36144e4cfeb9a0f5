//! Tokens that are revoked and grants that are removed on one server, while others are busy.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use coffer_client::Client;
use coffer_proto::{
    token::Token,
    v1::{self, WatchEnvironmentRequest, WatchEnvironmentResponse},
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use super::{SCOPE, WORKLOAD, fetch, list};
use crate::harness::{Etcd, Ledger, Server, again, secret};

/// From the answer on, within this nobody is let in any more.
const IN_FORCE_MAX: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
const WRITERS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_and_removed_grants_are_in_force_everywhere_within_a_second() {
    let etcd = Etcd::start(1);
    let first = Server::builder().on(etcd.config("")).start();
    let others = [Server::builder().beside(&first), Server::builder().beside(&first)];
    let manager = first.manager(&[SCOPE]).await;
    let create = secret(SCOPE, "KEY", "v");
    again(async || manager.secrets().create_secret(create.clone()).await).await.expect("created");
    first.grant("users/writer", "secrets:manage", "projects/-").await;
    let writer = first.token("users/writer").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = Ledger::several(WRITERS)
        .into_iter()
        .enumerate()
        .map(|(at, ledger)| tokio::spawn(ledger.write_on(others[at % 2].client(&writer), is_over.clone())))
        .collect();

    let (operator, issuer) = (first.operator(), first.with("services/issuer", &[("workloads:issue", WORKLOAD)]).await);
    for _ in 0..ROUNDS {
        let user = first.token("users/manager").await;
        let workload = first.issue(&issuer, WORKLOAD, None).await;
        let mut watches = Vec::new();
        for other in &others {
            let client = other.client(&user);
            again(async || listed(&client).await).await.map(drop).expect("let in");
            watches.push(watch(&other.client(&workload)).await);
        }
        for (token, revoker, is_workload) in [(&user, &operator, false), (&workload, &issuer, true)] {
            let name = format!("tokens/{}", Token::parse(token).expect("a token").id());
            let revoke = v1::RevokeTokenRequest { name };
            again(async || revoker.tokens().revoke_token(revoke.clone()).await).await.expect("revoked");
            let since = Instant::now();
            for other in &others {
                let client = other.client(token);
                if is_workload {
                    is_in_force(since, Code::Unauthenticated, async || fetched(&client).await).await;
                } else {
                    is_in_force(since, Code::Unauthenticated, async || listed(&client).await).await;
                }
            }
            for watch in watches.iter_mut().filter(|_| is_workload) {
                let end = timeout(IN_FORCE_MAX.saturating_sub(since.elapsed()), watch.message()).await;
                let end = end.expect("it ends within the time").expect_err("no message");
                assert_eq!(end.code(), Code::Unauthenticated, "{end:?}");
            }
        }

        let granted = v1::CreateGrantRequest {
            principal: "users/guest".into(),
            permission: "secrets:read".into(),
            pattern: SCOPE.into(),
        };
        let grant = again(async || operator.access().create_grant(granted.clone()).await).await.expect("granted");
        let remove = v1::DeleteGrantRequest { name: grant.into_inner().name };
        let guests =
            [others[0].client(&first.token("users/guest").await), others[1].client(&first.token("users/guest").await)];
        for guest in &guests {
            again(async || listed(guest).await).await.map(drop).expect("let in");
        }
        again(async || operator.access().delete_grant(remove.clone()).await).await.expect("removed");
        let since = Instant::now();
        for guest in &guests {
            is_in_force(since, Code::PermissionDenied, async || listed(guest).await).await;
        }
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut acknowledged = 0;
    for writer in writing {
        acknowledged += writer.await.expect("the writer ends well").acknowledged;
    }
    assert!(acknowledged > 0, "nobody was busy");
}

/// How a call was answered that was let in.
#[derive(PartialEq)]
enum Seen {
    Now,
    Before,
}

async fn listed(client: &Client) -> Result<Seen, Status> {
    client.secrets().list_secrets(list()).await.map(|_| Seen::Now)
}

async fn fetched(client: &Client) -> Result<Seen, Status> {
    let answer = client.workloads().fetch_environment(fetch()).await?.into_inner();
    Ok(if answer.stale_since.is_none() { Seen::Now } else { Seen::Before })
}

/// Whoever calls after the answer is refused. Only a server that is too busy to see its store for a moment, and says so,
/// may go on with what it knew, and not for long.
async fn is_in_force(since: Instant, code: Code, mut call: impl AsyncFnMut() -> Result<Seen, Status>) {
    while let Ok(seen) = call().await {
        assert!(seen == Seen::Before, "let in after {:?}", since.elapsed());
    }
    assert!(since.elapsed() < IN_FORCE_MAX, "in force after {:?}", since.elapsed());
    let status = again(call).await.map(drop).expect_err("it is over");
    assert_eq!(status.code(), code, "{status:?}");
}

/// A watch that has nothing to tell.
async fn watch(client: &Client) -> Streaming<WatchEnvironmentResponse> {
    let now = again(async || client.workloads().fetch_environment(fetch()).await).await.expect("fetched").into_inner();
    let request = WatchEnvironmentRequest { environment_revision: now.environment_revision, ..Default::default() };
    let watch = again(async || client.workloads().watch_environment(request.clone()).await).await;
    watch.expect("a watch").into_inner()
}
