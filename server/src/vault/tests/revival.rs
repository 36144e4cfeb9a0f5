//! A deleted scope takes everything with it; one made later under its name revives nothing.

use std::time::Duration;

use coffer_proto::{name::Permission, reason::Reason};

use super::world::{OPERATOR, World, fetch, list, new, scope, shared};
use crate::{
    record::{SharedWith, key},
    store::{Change, Transaction, TransactionId},
    vault::Error,
};

const USER: &str = "users/alice";
const PLATFORM: &str = "services/platform";

#[tokio::test]
async fn grants_tokens_and_secrets_die_with_their_scope() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, PLATFORM, Permission::AccessManage, "projects/-").await;
    world.grant(&vault, PLATFORM, Permission::WorkloadsIssue, "projects/-").await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    world.grant(&vault, PLATFORM, Permission::SecretsInject, "projects/p/servers/-").await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p/environments/e").await;
    let user = world.call(&vault, USER).await;
    let platform = world.call(&vault, PLATFORM).await;
    vault.create_secret(&user, scope("projects/p"), Ok(new("A", "v"))).await.expect("created");
    vault.create_secret(&user, scope("projects/p/environments/e"), Ok(new("B", "v"))).await.expect("created");
    let server = "projects/p/servers/s";
    let token = world.issue(&vault, PLATFORM, server).await.expect("issued");
    world.tokens.lock().expect("no panic before").insert(server.to_owned(), token);
    assert_eq!(fetch(&vault, &world.held(server), server).await.expect("fetched").len(), 1);

    assert_eq!(vault.delete_scope(&platform, scope("projects/p"), String::new()).await, Ok(1));
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::Denied));
    let below = list(&vault, &user, "projects/p/environments/e").await.expect("a scope of its own");
    assert_eq!(below.len(), 1, "scopes below stay");

    // Made again: by a grant to somebody else.
    world.grant(&vault, "users/bob", Permission::SecretsManage, "projects/p").await;
    let bob = world.call(&vault, "users/bob").await;
    vault.create_secret(&bob, scope("projects/p"), Ok(new("A", "other"))).await.expect("created");
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::Denied), "the old grant");
    let old = fetch(&vault, &world.held(server), server).await.map(drop).expect_err("the old token");
    assert_eq!(old.reason(), Reason::CredentialInvalid);
    assert_eq!(fetch(&vault, &platform, server).await.map(drop), Err(Error::Denied), "the old grant on workloads");
}

/// Grants and tokens are deleted with their scope; should a record of one outlive it, it is bound to what is gone.
#[tokio::test]
async fn a_grant_or_token_that_outlives_its_scope_is_of_no_use() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, PLATFORM, Permission::WorkloadsIssue, "projects/-").await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let user = world.call(&vault, USER).await;
    let server = "projects/p/servers/s";
    let token = world.issue(&vault, PLATFORM, server).await.expect("issued");
    world.tokens.lock().expect("no panic before").insert(server.to_owned(), token);
    assert!(list(&vault, &user, "projects/p").await.is_ok());
    assert!(fetch(&vault, &world.held(server), server).await.is_ok());

    let id = TransactionId::random().expect("randomness");
    let changes =
        vec![Change::Delete(key::scope(&scope("projects/p"))), Change::Delete(key::scope_key(&scope("projects/p")))];
    world.store.commit(Transaction { id, expectations: Vec::new(), changes }).await.expect("stored").expect("done");
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::Denied), "while it is gone");
    world.grant(&vault, "users/bob", Permission::SecretsManage, "projects/p").await;
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::Denied), "once it is made again");
    let refused = fetch(&vault, &world.held(server), server).await.map(drop).expect_err("the old token");
    assert_eq!(refused.reason(), Reason::CredentialInvalid);
}

#[tokio::test]
async fn a_deleted_workspace_leaves_every_sharing_list() {
    let world = World::new().await;
    let vault = world.vault().await;
    let (organization, workspace) = (scope("organizations/o"), scope("organizations/o/workspaces/w"));
    world.grant(&vault, USER, Permission::SecretsManage, "organizations/o").await;
    world.grant(&vault, USER, Permission::SecretsManage, "organizations/o/workspaces/w").await;
    world.grant(&vault, PLATFORM, Permission::AccessManage, "organizations/o/workspaces/-").await;
    world.grant(&vault, PLATFORM, Permission::SecretsInject, "organizations/o/workspaces/-").await;
    let (user, platform) = (world.call(&vault, USER).await, world.call(&vault, PLATFORM).await);
    let only = SharedWith::Only(vec!["v".into(), "w".into()]);
    vault.create_secret(&user, organization, Ok(shared("SOME", "1", only))).await.expect("created");
    let all = shared("EVERYBODY", "2", SharedWith::All);
    vault.create_secret(&user, scope("organizations/o"), Ok(all)).await.expect("created");
    vault.create_secret(&user, workspace.clone(), Ok(new("OWN", "3"))).await.expect("created");
    let server = "organizations/o/workspaces/w/servers/s";
    assert_eq!(fetch(&vault, &platform, server).await.expect("fetched").len(), 3);

    vault.delete_scope(&platform, workspace.clone(), String::new()).await.expect("deleted");
    let left = fetch(&vault, &platform, server).await.expect("an empty workspace");
    assert_eq!(left, [("EVERYBODY".to_owned(), "2".to_owned())]);
    let shown = list(&vault, &user, "organizations/o").await.expect("listed");
    let some = shown.iter().find(|secret| secret.name.variable().as_str() == "SOME").expect("still there");
    assert_eq!(some.meta.sharing, Some(SharedWith::Only(vec!["v".into()])));
    assert_eq!(some.meta.version, 1, "its value did not change");
}

#[tokio::test]
async fn an_expired_token_lets_nobody_in() {
    let world = World::new().await;
    let vault = world.vault().await;
    let call = world.call(&vault, USER).await;
    assert_eq!(list(&vault, &call, "accounts/alice").await.map(|all| all.len()), Ok(0));
    *world.clock.0.lock().expect("no panic before") = Duration::from_secs(3_601);
    let expired = list(&vault, &call, "accounts/alice").await.map(drop).expect_err("expired");
    assert_eq!(expired.reason(), Reason::CredentialExpired);
    assert!(world.call(&vault, OPERATOR).await.caller(&vault.view().read(), vault.now()).is_ok());
}

#[tokio::test]
async fn issuing_tokens_does_not_make_an_operator() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, PLATFORM, Permission::TokensIssue, "users/-").await;
    world.grant(&vault, PLATFORM, Permission::TokensIssue, "services/-").await;
    world.grant(&vault, "users/root", Permission::Operator, "").await;
    assert!(world.issue(&vault, PLATFORM, "users/alice").await.is_ok());
    for operator in ["users/root", OPERATOR] {
        assert_eq!(world.issue(&vault, PLATFORM, operator).await.map(drop), Err(Error::Denied), "{operator}");
    }
}
