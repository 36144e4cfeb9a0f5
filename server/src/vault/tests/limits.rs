//! What one caller can take from the others.

use coffer_proto::{
    limits,
    name::{Permission, VariableName},
    reason::Reason,
};

use super::world::{OPERATOR, World, list, new, scope, secret, value, valued};
use crate::vault::{Conflict, Error, Import, ImportEntry, NewGrant, SecretChange, Vault, fields::Fields};

const USER: &str = "users/alice";

#[test]
fn the_violations_of_one_error_are_few_and_the_rest_is_counted() {
    let mut fields = Fields::new();
    (0..1_000_000).for_each(|at| fields.wrong(format!("entries[{at}].value"), "must be UTF-8 text"));
    let error = fields.finish().expect_err("wrong");
    assert!(error.to_string().ends_with(&format!("; and {} more", 1_000_000 - limits::VIOLATIONS)));
    assert!(error.to_string().len() < 2_048, "it travels in headers");
}

#[tokio::test]
async fn secrets_stop_at_the_ceiling_and_leave_room_to_sign_in_and_tidy_up() {
    let world = World::new().await;
    let vault = world.vault_with_memory(1 << 20).await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/-").await;
    let call = world.call(&vault, USER).await;
    let large = "x".repeat(50_000);
    let mut created = 0;
    let refusal = loop {
        let place = scope(&format!("projects/p{created}"));
        match vault.create_secret(&call, place, Ok(new("A", &large))).await {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.reason(), Reason::StorageFull);
    assert!((10..21).contains(&created), "{created} of 50 kB in 1 MiB");
    let name = secret("projects/p0/secrets/A");
    let grown = vault.update_secret(&call, name.clone(), String::new(), Ok(valued(&"x".repeat(65_000)))).await;
    assert_eq!(grown.map(drop), Err(refusal), "an update is no way around it");
    assert!(vault.update_secret(&call, name.clone(), String::new(), Ok(valued("small"))).await.is_ok());
    assert!(world.issue(&vault, OPERATOR, "users/bob").await.is_ok());
    assert!(vault.delete_secret(&call, name, String::new(), false).await.is_ok());
}

#[tokio::test]
async fn an_accounts_owner_cannot_make_plugins_without_end() {
    let world = World::new().await;
    let vault = world.vault().await;
    let call = world.call(&vault, USER).await;
    for n in 0..limits::ACCOUNT_PLUGINS {
        let plugin = scope(&format!("accounts/alice/plugins/p{n}"));
        vault.create_secret(&call, plugin, Ok(new("A", "v"))).await.expect("created");
    }
    let one_more = vault.create_secret(&call, scope("accounts/alice/plugins/one-more"), Ok(new("A", "v"))).await;
    assert!(matches!(one_more.map(drop), Err(Error::TooMany(_))));
    assert!(vault.create_secret(&call, scope("accounts/alice/plugins/p0"), Ok(new("B", "v"))).await.is_ok());
    assert!(vault.create_secret(&call, scope("accounts/alice"), Ok(new("B", "v"))).await.is_ok());
}

#[tokio::test]
async fn an_accounts_owner_cannot_make_secrets_without_end() {
    let world = World::new().await;
    let vault = world.vault().await;
    let call = world.call(&vault, USER).await;
    let import = |plugin: u64| {
        let entry = |n: u64| ImportEntry {
            variable: VariableName::parse(&format!("S{n}")).expect("a name"),
            value: Some(value("v")),
            kind: None,
            description: None,
        };
        let entries = (0..limits::SCOPE_SECRETS).map(entry).collect();
        let import = Import { entries, conflict: Conflict::Fail, validate_only: false, sharing: None };
        vault.import_secrets(&call, scope(&format!("accounts/alice/plugins/p{plugin}")), Ok(import))
    };
    let full = limits::ACCOUNT_SECRETS / limits::SCOPE_SECRETS;
    for plugin in 0..full {
        import(plugin).await.map(drop).expect("imported");
    }
    assert!(matches!(import(full).await.map(drop), Err(Error::TooMany(_))));
}

#[tokio::test]
async fn workloads_and_grants_leave_the_last_memory_to_those_who_sign_in() {
    let world = World::new().await;
    let vault = world.vault_with_memory(1 << 20).await;
    world.grant(&vault, "services/s", Permission::WorkloadsIssue, "projects/p").await;
    world.grant(&vault, "services/s", Permission::AccessManage, "projects/p").await;
    let call = world.call(&vault, "services/s").await;
    let mut issued = 0;
    let refusal = loop {
        match world.issue(&vault, "services/s", &format!("projects/p/servers/s{issued}")).await {
            Ok(_) => issued += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.reason(), Reason::StorageFull);
    let principal = super::world::principal("users/x");
    let grant = NewGrant { principal, permission: Permission::SecretsRead, pattern: "projects/p".into() };
    assert_eq!(vault.create_grant(&call, grant).await.map(drop), Err(refusal));
    assert!(world.issue(&vault, OPERATOR, "users/bob").await.is_ok(), "people sign in");
    world.grant(&vault, "users/bob", Permission::SecretsRead, "projects/p").await;
}

#[tokio::test]
async fn an_update_that_grows_anything_is_held_to_the_ceiling() {
    let world = World::new().await;
    let vault = world.vault_with_memory(1 << 20).await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/-").await;
    let call = world.call(&vault, USER).await;
    vault.create_secret(&call, scope("projects/p0"), Ok(new("A", "v"))).await.map(drop).expect("created");
    let mut created = 0;
    while vault.create_secret(&call, scope("projects/p0"), Ok(new(&format!("S{created}"), "v"))).await.is_ok() {
        created += 1;
    }
    let name = secret("projects/p0/secrets/A");
    let description = |text: String| SecretChange { description: Some(text), ..SecretChange::default() };
    let grown = vault.update_secret(&call, name.clone(), String::new(), Ok(description("x".repeat(1_000)))).await;
    assert_eq!(grown.map(drop).map_err(|error| error.reason()), Err(Reason::StorageFull));
    let same = vault.update_secret(&call, name, String::new(), Ok(description(String::new()))).await;
    assert!(same.is_ok());
}

/// Waits for no lock that somebody else's writes hold.
#[tokio::test]
async fn who_may_not_write_never_waits_in_line() {
    let world = World::new().await;
    let vault = world.vault().await;
    let mallory = world.call(&vault, "users/mallory").await;
    let _turn = hold_line(&vault, "projects/p").await;
    let refused = vault.create_secret(&mallory, scope("projects/p"), Ok(new("A", "v"))).await;
    assert_eq!(refused.map(drop), Err(Error::Denied));
}

#[tokio::test]
async fn who_hangs_up_leaves_the_line_and_nothing_behind() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, USER).await;
    let turn = hold_line(&vault, "projects/p").await;
    {
        let mut write = Box::pin(vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))));
        let waker = std::task::Waker::noop();
        for _ in 0..100 {
            let poll = write.as_mut().poll(&mut std::task::Context::from_waker(waker));
            assert!(poll.is_pending());
            tokio::task::yield_now().await;
        }
    }
    drop(turn);
    vault.create_secret(&call, scope("projects/p"), Ok(new("B", "v"))).await.expect("created");
    let names: Vec<_> = list(&vault, &call, "projects/p").await.expect("listed");
    assert_eq!(names.len(), 1, "the one that hung up wrote nothing");
}

async fn hold_line(vault: &Vault, line: &str) -> tokio::sync::OwnedMutexGuard<()> {
    vault.line(line).lock_owned().await
}
