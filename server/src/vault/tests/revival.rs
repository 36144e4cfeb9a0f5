//! A deleted scope takes everything with it; one made later under its name revives nothing.

use std::{sync::Arc, time::Duration};

use coffer_proto::{name::Permission, reason::Reason};

use super::world::{OPERATOR, World, fetch, list, new, scope, shared};
use crate::{
    record::{SharedWith, key},
    store::{
        Change, Transaction, TransactionId,
        faulty::{Fault, Faulty},
        memory::Memory,
    },
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

    let refused = vault.delete_scope(&platform, scope("projects/p"), String::new()).await;
    assert_eq!(refused, Err(Error::ScopeNotEmpty), "a scope below is for others to delete");
    world.grant(&vault, PLATFORM, Permission::AccessManage, "projects/p/environments/-").await;
    assert_eq!(vault.delete_scope(&platform, scope("projects/p/environments/e"), String::new()).await, Ok(1));
    assert_eq!(vault.delete_scope(&platform, scope("projects/p"), String::new()).await, Ok(1));
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::Denied));

    // Made again: by a grant to somebody else.
    world.grant(&vault, "users/bob", Permission::SecretsManage, "projects/p").await;
    let bob = world.call(&vault, "users/bob").await;
    vault.create_secret(&bob, scope("projects/p"), Ok(new("A", "other"))).await.expect("created");
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::Denied), "the old grant");
    let old = fetch(&vault, &world.held(server), server).await.map(drop).expect_err("the old token");
    assert_eq!(old.reason(), Reason::CredentialInvalid);
    assert_eq!(fetch(&vault, &platform, server).await.map(drop), Err(Error::Denied), "the old grant on workloads");
}

/// What is inherited from a scope made again must not reach those who had rights below the one before.
#[tokio::test]
async fn grants_on_patterns_below_die_with_their_scope() {
    let world = World::new().await;
    let vault = world.vault().await;
    for (permission, pattern) in [
        (Permission::AccessManage, "organizations/o"),
        (Permission::SecretsInject, "organizations/o/workspaces/-"),
        (Permission::SecretsManage, "organizations/o/workspaces/-"),
    ] {
        world.grant(&vault, "services/old", permission, pattern).await;
    }
    let old = world.call(&vault, "services/old").await;
    vault.delete_scope(&old, scope("organizations/o"), String::new()).await.expect("deleted");
    world.grant(&vault, USER, Permission::SecretsManage, "organizations/o").await;
    world.grant(&vault, USER, Permission::SecretsManage, "organizations/o/workspaces/w").await;
    let user = world.call(&vault, USER).await;
    let all = shared("A", "new", SharedWith::All);
    vault.create_secret(&user, scope("organizations/o"), Ok(all)).await.expect("created");
    let server = "organizations/o/workspaces/w/servers/s";
    assert_eq!(fetch(&vault, &old, server).await.map(drop), Err(Error::Denied));
    assert_eq!(list(&vault, &old, "organizations/o/workspaces/w").await.map(drop), Err(Error::Denied));
    assert_eq!(list(&vault, &old, "organizations/o/workspaces/-").await.map(|all| all.len()), Ok(0));
}

#[tokio::test]
async fn a_scope_is_never_left_below_a_deleted_one() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let (here, there) = (world.vault().await, world.vault().await);
    for pattern in ["projects/-", "projects/-/environments/-"] {
        world.grant(&here, PLATFORM, Permission::SecretsManage, pattern).await;
        world.grant(&here, PLATFORM, Permission::AccessManage, pattern).await;
    }
    let call = world.call(&here, PLATFORM).await;
    let (above, below) = (scope("projects/p"), scope("projects/p/environments/e"));
    here.create_secret(&call, above.clone(), Ok(new("A", "v"))).await.expect("created");

    // One replica has decided to delete, and while that is on its way another one makes a scope below.
    world.audit.lines.lock().expect("no panic before").clear();
    faults.next(Fault::Hang);
    let delete = {
        let (vault, call, above) = (here.clone(), call.clone(), above.clone());
        tokio::spawn(async move { vault.delete_scope(&call, above, String::new()).await })
    };
    while world.audit.phases("test").is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    there.create_secret(&call, below.clone(), Ok(new("B", "v"))).await.expect("created");
    faults.release();
    assert_eq!(delete.await.expect("no panic"), Err(Error::ScopeNotEmpty));
    assert_eq!(there.delete_scope(&call, below, String::new()).await, Ok(1));
    assert_eq!(here.delete_scope(&call, above, String::new()).await, Ok(1));
}

#[tokio::test]
async fn a_token_issued_before_its_bearer_became_an_operator_is_no_operators() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, PLATFORM, Permission::TokensIssue, "users/-").await;
    let early = world.issue(&vault, PLATFORM, USER).await.expect("issued");
    world.tokens.lock().expect("no panic before").insert(USER.to_owned(), early);
    world.grant(&vault, USER, Permission::Operator, "").await;
    let more = crate::vault::NewGrant {
        principal: super::world::principal("users/eve"),
        permission: Permission::Operator,
        pattern: String::new(),
    };
    let refused = vault.create_grant(&world.held(USER), more.clone()).await.map(drop);
    assert_eq!(refused, Err(Error::Denied), "whoever issued that token would be an operator, too");
    assert_eq!(world.issue(&vault, PLATFORM, USER).await.map(drop), Err(Error::Denied));

    let right = world.issue(&vault, OPERATOR, USER).await.expect("issued");
    world.tokens.lock().expect("no panic before").insert(USER.to_owned(), right);
    vault.create_grant(&world.held(USER), more).await.map(drop).expect("an operator with an operator's token");
}

#[tokio::test]
async fn whoever_was_an_operator_once_leaves_none_behind() {
    let world = World::new().await;
    let vault = world.vault().await;
    let early = world.issue(&vault, OPERATOR, USER).await.expect("issued");
    world.tokens.lock().expect("no panic before").insert(USER.to_owned(), early);
    *world.clock.moved.lock().expect("no panic before") = Duration::from_secs(1);
    world.grant(&vault, USER, Permission::Operator, "").await;
    let refused = world.issue(&vault, USER, "users/eve").await.map(drop);
    assert_eq!(refused, Err(Error::Denied), "its issuer may have kept a copy");
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
    world
        .store
        .commit(Transaction { id, epoch: None, expectations: Vec::new(), changes })
        .await
        .expect("stored")
        .expect("done");
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
    for n in 0..25 {
        let some = shared(&format!("SOME_{n}"), "1", only.clone());
        vault.create_secret(&user, organization.clone(), Ok(some)).await.expect("created");
    }
    let all = shared("EVERYBODY", "2", SharedWith::All);
    vault.create_secret(&user, scope("organizations/o"), Ok(all)).await.expect("created");
    vault.create_secret(&user, workspace.clone(), Ok(new("OWN", "3"))).await.expect("created");
    let server = "organizations/o/workspaces/w/servers/s";
    assert_eq!(fetch(&vault, &platform, server).await.expect("fetched").len(), 27);

    vault.delete_scope(&platform, workspace.clone(), String::new()).await.expect("deleted");
    let left = fetch(&vault, &platform, server).await.expect("an empty workspace");
    assert_eq!(left, [("EVERYBODY".to_owned(), "2".to_owned())]);
    let shown = list(&vault, &user, "organizations/o").await.expect("listed");
    let rest = SharedWith::Only(vec!["v".into()]);
    let some: Vec<_> = shown.iter().filter(|secret| secret.meta.sharing.as_ref() == Some(&rest)).collect();
    assert_eq!(some.len(), 25, "more than one transaction's");
    assert!(some.iter().all(|secret| secret.meta.version == 1), "no value changed");
}

#[tokio::test]
async fn an_expired_token_lets_nobody_in() {
    let world = World::new().await;
    let vault = world.vault().await;
    let call = world.call(&vault, USER).await;
    assert_eq!(list(&vault, &call, "accounts/alice").await.map(|all| all.len()), Ok(0));
    *world.clock.moved.lock().expect("no panic before") = Duration::from_secs(3_601);
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
