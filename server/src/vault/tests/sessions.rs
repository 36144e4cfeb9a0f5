//! Start tokens: exchanged once, over all replicas; a lost answer can be asked for again; a copy raises an alarm.

use std::{collections::HashSet, time::Duration};

use coffer_proto::{
    name::Permission,
    token::{Token, TokenKind},
};

use super::world::{World, fetch, new, principal, scope, workload};
use crate::{
    audit::Phase,
    identity,
    vault::{Call, Error, NewToken, Vault},
};

const SERVER: &str = "projects/p/servers/s";
const EXCHANGE: &str = "coffer.v1.Tokens/ExchangeStartToken";

async fn world() -> (World, Vault) {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, "services/s", Permission::WorkloadsIssue, "projects/p").await;
    world.grant(&vault, "users/a", Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, "users/a").await;
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "value"))).await.expect("created");
    (world, vault)
}

async fn start_token(world: &World, vault: &Vault, session: Duration) -> Token {
    let call = world.call(vault, "services/s").await;
    let new = NewToken { ttl: None, description: String::new(), start: Some(session) };
    let issued = vault.issue_token(&call, principal(SERVER), Ok(new)).await.expect("issued");
    assert_eq!(issued.token.kind(), TokenKind::Start);
    issued.token
}

fn call(method: &'static str, token: &Token) -> Call {
    Call::new(method, None, Some(format!("Bearer {}", token.expose()).as_bytes())).expect("randomness")
}

async fn exchange(vault: &Vault, token: &Token, nonce: u8) -> Result<Token, Error> {
    vault.exchange_start_token(&call(EXCHANGE, token), vec![nonce; 16]).await.map(|issued| issued.token)
}

#[tokio::test]
async fn a_session_is_a_workloads_own() {
    let (world, vault) = world().await;
    let start = start_token(&world, &vault, Duration::from_secs(60)).await;
    let session = exchange(&vault, &start, 1).await.expect("exchanged");
    assert_eq!(session.kind(), TokenKind::Workload);
    let received = fetch(&vault, &call("test", &session), SERVER).await.expect("fetched");
    assert_eq!(received, [("A".to_owned(), "value".to_owned())]);
    *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(61);
    let ended = fetch(&vault, &call("test", &session), SERVER).await.expect_err("ended");
    assert_eq!(ended, Error::Unauthenticated(identity::Error::Expired));
}

#[tokio::test]
async fn a_start_token_permits_nothing_else() {
    let (world, vault) = world().await;
    let start = start_token(&world, &vault, Duration::from_secs(60)).await;
    assert_eq!(fetch(&vault, &call("test", &start), SERVER).await, Err(Error::Denied));
    assert_eq!(vault.authenticate(&call("test", &start)).await, Err(Error::Denied));
    exchange(&vault, &start, 1).await.expect("exchanged");
    assert_eq!(fetch(&vault, &call("test", &start), SERVER).await, Err(Error::Denied));
}

#[tokio::test]
async fn a_lost_answer_is_given_again_by_any_replica_and_after_a_restart() {
    let (world, vault) = world().await;
    let start = start_token(&world, &vault, Duration::from_secs(60)).await;
    let session = exchange(&vault, &start, 1).await.expect("exchanged");
    let other = world.vault().await;
    for vault in [&vault, &other] {
        assert_eq!(exchange(vault, &start, 1).await.expect("the same").expose(), session.expose());
    }
    // Not once it is revoked: a retry must not bring it back.
    let own = call("test", &session);
    vault.revoke_token(&own, session.id().clone()).await.expect("one's own");
    assert_eq!(exchange(&other, &start, 1).await.map(drop), Err(Error::StartTokenUsed));
}

#[tokio::test]
async fn with_a_start_token_its_session_is_revoked() {
    let (world, vault) = world().await;
    let revoker = world.call(&vault, "services/s").await;
    let start = start_token(&world, &vault, Duration::from_secs(60)).await;
    let session = exchange(&vault, &start, 1).await.expect("exchanged");
    let other = start_token(&world, &vault, Duration::from_secs(60)).await;
    let of_other = exchange(&vault, &other, 1).await.expect("exchanged");
    // By any replica, and after a restart.
    let replica = world.vault().await;
    {
        let state = replica.view().read();
        let known = |token: &Token| state.token(token.id()).expect("there").clone();
        assert_eq!(known(&session).start_id.as_ref(), Some(start.id()));
        assert_eq!(known(&start).start.as_ref().and_then(|start| start.session_id.as_ref()), Some(session.id()));
    }
    replica.revoke_token(&revoker, start.id().clone()).await.expect("revoked");
    for vault in [&vault, &replica] {
        let refused = fetch(vault, &call("test", &session), SERVER).await;
        assert_eq!(refused, Err(Error::Unauthenticated(identity::Error::Invalid)));
        assert!(fetch(vault, &call("test", &of_other), SERVER).await.is_ok(), "another start's stays");
    }
    // The other way round the start token stays, for whoever presents a copy of it.
    vault.revoke_token(&revoker, of_other.id().clone()).await.expect("revoked");
    assert_eq!(exchange(&vault, &other, 1).await.map(drop), Err(Error::StartTokenUsed));
    vault.revoke_token(&revoker, other.id().clone()).await.expect("its session is gone already");
}

#[tokio::test]
async fn a_copy_is_refused_and_raises_an_alarm() {
    let (world, vault) = world().await;
    let start = start_token(&world, &vault, Duration::from_secs(60)).await;
    exchange(&vault, &start, 1).await.expect("exchanged");
    assert_eq!(exchange(&vault, &start, 2).await.map(drop), Err(Error::StartTokenUsed));
    {
        let lines = world.audit.lines.lock().expect("no panic before");
        let line = lines.iter().rfind(|line| line.method == EXCHANGE).expect("a line");
        assert_eq!((line.phase, line.reason), (Phase::Refused, Some("START_TOKEN_USED")));
        assert!(line.details.iter().any(|(name, _)| *name == "alarm"), "{:?}", line.details);
    }
    let starts = vault.starts(&vault.view().read(), &workload(SERVER)).expect("flagged");
    assert!(starts.token_replay_time.is_some());
}

#[tokio::test]
async fn bad_nonces_and_other_tokens_are_refused_and_use_nothing_up() {
    let (world, vault) = world().await;
    let start = start_token(&world, &vault, Duration::from_secs(60)).await;
    for nonce in [vec![], vec![1; 15], vec![1; 65]] {
        let refused = vault.exchange_start_token(&call(EXCHANGE, &start), nonce).await;
        assert!(matches!(refused.map(drop), Err(Error::Invalid { .. })));
    }
    let session = exchange(&vault, &start, 1).await.expect("still good");
    assert!(matches!(exchange(&vault, &session, 1).await.map(drop), Err(Error::Invalid { .. })), "no start token");
    let unknown = Token::generate(TokenKind::Start);
    let invalid = Error::Unauthenticated(identity::Error::Invalid);
    assert_eq!(exchange(&vault, &unknown, 1).await.map(drop), Err(invalid));
}

#[tokio::test]
async fn only_workloads_have_start_tokens_within_their_limits() {
    let (world, vault) = world().await;
    let call = world.call(&vault, super::world::OPERATOR).await;
    let new = |start, ttl| NewToken { ttl, description: String::new(), start };
    let hour = Some(Duration::from_secs(3_600));
    let refused = vault.issue_token(&call, principal("users/a"), Ok(new(hour, None))).await;
    assert!(matches!(refused.map(drop), Err(Error::Invalid { .. })));
    let call = world.call(&vault, "services/s").await;
    let day = Duration::from_secs(24 * 3_600);
    for (start, ttl) in [(Some(31 * day), None), (Some(Duration::ZERO), None), (hour, Some(2 * day))] {
        let refused = vault.issue_token(&call, principal(SERVER), Ok(new(start, ttl))).await;
        assert!(matches!(refused.map(drop), Err(Error::Invalid { .. })), "{start:?} {ttl:?}");
    }
}

/// Promise: once, whoever is how quick wherever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_racing_exchanges_on_three_replicas_one_wins() {
    let (world, vault) = world().await;
    let replicas = [vault, world.vault().await, world.vault().await];
    for round in 0..5 {
        let start = start_token(&world, &replicas[0], Duration::from_secs(60)).await;
        let tasks: Vec<_> = (0..100_u8)
            .map(|nonce| {
                let (vault, start) = (replicas[usize::from(nonce) % 3].clone(), start.clone());
                tokio::spawn(async move { exchange(&vault, &start, nonce).await })
            })
            .collect();
        let mut sessions = HashSet::new();
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(session) => assert!(sessions.insert(session.expose().to_owned())),
                Err(Error::StartTokenUsed | Error::Contention) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(sessions.len(), 1, "round {round}");
    }
}
