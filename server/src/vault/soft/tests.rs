//! Starts and uses: merged from what is written and what is not, and kept within their limits.

use std::time::Duration;

use coffer_proto::{
    limits,
    name::{Permission, Scope},
};

use super::Names;
use crate::vault::{
    Purpose, Vault,
    tests::world::{World, fetch, new, scope, secret, valued, workload},
};

const SERVICE: &str = "services/s";
const USER: &str = "users/a";

async fn world() -> (World, Vault) {
    let world = World::new().await;
    let vault = world.vault().await;
    for scope in ["projects/p", "projects/p/environments/e"] {
        world.grant(&vault, SERVICE, Permission::SecretsInject, scope).await;
        world.grant(&vault, USER, Permission::SecretsManage, scope).await;
    }
    let call = world.call(&vault, USER).await;
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "value"))).await.expect("created");
    (world, vault)
}

async fn start(world: &World, vault: &Vault, name: &str) {
    let call = world.call(vault, SERVICE).await;
    fetch(vault, &call, name).await.expect("fetched");
}

fn starts(vault: &Vault, name: &str) -> usize {
    vault.starts(&vault.view().read(), &workload(name)).map_or(0, |starts| starts.starts.len())
}

/// When the secret A was injected last, as its readers see it.
async fn injected(world: &World, vault: &Vault) -> i64 {
    let call = world.call(vault, USER).await;
    vault.get_secret(&call, secret("projects/p/secrets/A")).await.expect("there").last_used.injected
}

#[tokio::test]
async fn starts_and_uses_are_known_at_once_and_written_behind() {
    let (world, vault) = world().await;
    assert_eq!((starts(&vault, "projects/p/servers/s"), injected(&world, &vault).await), (0, 0));
    start(&world, &vault, "projects/p/servers/s").await;
    start(&world, &vault, "projects/p/servers/s").await;
    let used = injected(&world, &vault).await;
    assert_eq!(starts(&vault, "projects/p/servers/s"), 2);
    assert!(used > 0);
    vault.write_soft_state(false).await.expect("written");
    assert!(vault.0.soft.pending().starts.is_empty() && vault.0.soft.pending().used.is_empty());
    assert_eq!((starts(&vault, "projects/p/servers/s"), injected(&world, &vault).await), (2, used));
    // Another replica adds to it; neither takes away from the other.
    let other = world.vault().await;
    start(&world, &vault, "projects/p/servers/s").await;
    *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(60);
    start(&world, &other, "projects/p/servers/s").await;
    let last = injected(&world, &other).await;
    assert!(last >= used + 60);
    // What is older is written later.
    other.write_soft_state(false).await.expect("written");
    vault.write_soft_state(false).await.expect("written");
    let third = world.vault().await;
    assert_eq!((starts(&third, "projects/p/servers/s"), injected(&world, &third).await), (4, last));
    let known = third.started_from(&third.view().read(), "projects/p/", "", 10);
    assert_eq!(known, [workload("projects/p/servers/s")]);
}

#[tokio::test]
async fn dry_runs_and_unchanged_environments_are_no_starts() {
    let (world, vault) = world().await;
    let call = world.call(&vault, SERVICE).await;
    let server = workload("projects/p/servers/s");
    let dry = vault.fetch_environment(&call, Some(server.clone()), "", Purpose::DryRun).await.expect("fetched");
    vault.fetch_environment(&call, Some(server), &dry.revision, Purpose::Start).await.expect("unchanged");
    assert_eq!((starts(&vault, "projects/p/servers/s"), injected(&world, &vault).await), (0, 0));
}

#[tokio::test]
async fn what_is_given_later_is_a_start_once_it_is_told_of_and_still_current() {
    const SERVER: &str = "projects/p/servers/s";
    let (world, vault) = world().await;
    let call = world.call(&vault, SERVICE).await;
    let fetch = async |revision: &str, purpose| {
        vault.fetch_environment(&call, Some(workload(SERVER)), revision, purpose).await.expect("answered")
    };
    let later = fetch("", Purpose::Later).await;
    assert!(later.variables.len() == 1 && later.variables[0].value.is_some());
    assert_eq!(starts(&vault, SERVER), 0, "nobody knows whether it is started");
    assert!(injected(&world, &vault).await > 0, "its values were handed out nevertheless");
    let given = fetch(&later.revision, Purpose::Given).await;
    assert!(given.unchanged && given.variables.is_empty());
    assert_eq!(starts(&vault, SERVER), 1);
    let given = fetch("another", Purpose::Given).await;
    assert!(!given.unchanged && given.variables.is_empty() && given.revision == later.revision);
    assert_eq!(starts(&vault, SERVER), 1, "what is not current is no start with what is");
}

#[tokio::test]
async fn an_inherited_secret_is_used_where_it_belongs() {
    let (world, vault) = world().await;
    start(&world, &vault, "projects/p/environments/e/servers/s").await;
    assert!(injected(&world, &vault).await > 0);
}

#[tokio::test]
async fn the_newest_are_kept_and_the_old_are_forgotten() {
    let (world, vault) = world().await;
    for _ in 0..limits::WORKLOAD_INSTANCES + 5 {
        start(&world, &vault, "projects/p/servers/s").await;
    }
    assert_eq!(starts(&vault, "projects/p/servers/s"), limits::WORKLOAD_INSTANCES);
    vault.write_soft_state(false).await.expect("written");
    assert_eq!(starts(&vault, "projects/p/servers/s"), limits::WORKLOAD_INSTANCES);
    *world.clock.moved.lock().expect("no panic before") += limits::INSTANCE_TTL + Duration::from_secs(60);
    assert_eq!(starts(&vault, "projects/p/servers/s"), 0);
    for n in 0..1_500 {
        start(&world, &vault, &format!("projects/p/sandboxes/s{n}")).await;
    }
    vault.write_soft_state(false).await.expect("written");
    *world.clock.moved.lock().expect("no panic before") += limits::INSTANCE_TTL + Duration::from_secs(60);
    vault.write_soft_state(true).await.expect("written");
    let state = vault.view().read();
    assert!(state.started_from("", "").next().is_none(), "the records are gone");
}

#[tokio::test]
async fn a_scope_keeps_so_many_workloads_the_last_started() {
    let (world, vault) = world().await;
    let name = |n: usize| format!("projects/p/sandboxes/s{n:04}");
    for n in 0..limits::SCOPE_INSTANCE_WORKLOADS {
        start(&world, &vault, &name(n)).await;
    }
    vault.write_soft_state(false).await.expect("written");
    *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(60);
    start(&world, &vault, &name(0)).await;
    vault.write_soft_state(false).await.expect("written");
    for n in 0..10 {
        start(&world, &vault, &format!("projects/p/servers/new{n}")).await;
    }
    vault.write_soft_state(false).await.expect("written");
    let kept = vault.started_from(&vault.view().read(), "projects/p/", "", 5_000);
    assert_eq!(kept.len(), limits::SCOPE_INSTANCE_WORKLOADS);
    assert!(kept.contains(&workload(&name(0))), "it was started again");
    assert_eq!(kept.iter().filter(|kept| kept.as_str().contains("/servers/new")).count(), 10);
}

#[tokio::test]
async fn who_starts_again_together_with_a_new_one_is_not_crowded_out() {
    let (world, vault) = world().await;
    let name = |n: usize| format!("projects/p/sandboxes/s{n:04}");
    let later = || *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(60);
    for n in 0..limits::SCOPE_INSTANCE_WORKLOADS {
        start(&world, &vault, &name(n)).await;
        if n < 2 {
            later();
        }
    }
    vault.write_soft_state(false).await.expect("written");
    later();
    // In one round.
    start(&world, &vault, &name(0)).await;
    start(&world, &vault, "projects/p/servers/new").await;
    vault.write_soft_state(false).await.expect("written");
    let state = vault.view().read();
    let kept = vault.started_from(&state, "projects/p/", "", 5_000);
    assert_eq!(kept.len(), limits::SCOPE_INSTANCE_WORKLOADS);
    let has = |name: &str| kept.contains(&workload(name));
    assert!(has(&name(0)) && has("projects/p/servers/new") && !has(&name(1)));
    assert_eq!(starts(&vault, &name(0)), 2);
}

#[tokio::test]
async fn of_more_new_ones_than_there_is_room_for_the_last_are_kept() {
    const MORE: usize = 10;
    let (world, vault) = world().await;
    let name = |n: usize| format!("projects/p/sandboxes/s{n:04}");
    for n in 0..MORE {
        start(&world, &vault, &name(n)).await;
    }
    *world.clock.moved.lock().expect("no panic before") += Duration::from_secs(60);
    for n in MORE..limits::SCOPE_INSTANCE_WORKLOADS + MORE {
        start(&world, &vault, &name(n)).await;
    }
    vault.write_soft_state(false).await.expect("written");
    let kept = vault.started_from(&vault.view().read(), "projects/p/", "", 5_000);
    let expected: Vec<_> = (MORE..limits::SCOPE_INSTANCE_WORKLOADS + MORE).map(|n| workload(&name(n))).collect();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn a_deleted_scope_takes_its_starts_along_and_none_come_back() {
    let (world, vault) = world().await;
    world.grant(&vault, USER, Permission::AccessManage, "projects/p").await;
    start(&world, &vault, "projects/p/servers/s").await;
    vault.write_soft_state(false).await.expect("written");
    start(&world, &vault, "projects/p/servers/s").await;
    let call = world.call(&vault, USER).await;
    let environment = scope("projects/p/environments/e");
    world.grant(&vault, USER, Permission::AccessManage, "projects/p/environments/e").await;
    vault.delete_scope(&call, environment, String::new()).await.expect("deleted");
    vault.delete_scope(&call, scope("projects/p"), String::new()).await.expect("deleted");
    vault.write_soft_state(false).await.expect("written");
    let again = Scope::parse("projects/p").expect("a scope");
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    vault.create_secret(&call, again, Ok(new("A", "value"))).await.expect("created");
    vault.write_soft_state(false).await.expect("written");
    assert_eq!((starts(&vault, "projects/p/servers/s"), injected(&world, &vault).await), (0, 0));
    assert!(world.vault().await.view().read().started_from("projects/", "").next().is_none());
}

#[tokio::test]
async fn what_an_environment_was_is_remembered() {
    let (world, vault) = world().await;
    let call = world.call(&vault, USER).await;
    let server = workload("projects/p/servers/s");
    let service = world.call(&vault, SERVICE).await;
    let old =
        vault.fetch_environment(&service, Some(server.clone()), "", Purpose::Start).await.expect("fetched").revision;
    let name = secret("projects/p/secrets/A");
    vault.update_secret(&call, name, String::new(), Ok(valued("other"))).await.expect("updated");
    vault.create_secret(&call, scope("projects/p"), Ok(new("B", "value"))).await.expect("created");
    let state = vault.view().read();
    let now = crate::vault::environment::Environment::of(&state, server.scope());
    let changed = vault.changed_since(&old, &Names::of(&now)).expect("remembered");
    assert_eq!(changed.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(vault.changed_since("unknown", &Names::of(&now)), None);
}

#[tokio::test]
async fn starts_take_a_tenth_of_the_memory_at_most_and_nobody_takes_it_all() {
    let (world, _) = world().await;
    let memory = 100 * crate::view::ENTRY_BYTES * 20;
    let vault = world.vault_with_memory(memory).await;
    let half = memory / 10 / 2;
    for n in 0..200 {
        start(&world, &vault, &format!("projects/p/servers/s{n}")).await;
    }
    vault.write_soft_state(false).await.expect("written");
    let kept = |vault: &Vault, prefix| vault.view().read().started_from(prefix, "").count();
    let first = kept(&vault, "projects/p/");
    assert!(first > 50, "{first}");
    // Restarts are starts, too: each may have 32 times what is kept of one.
    for round in 0..4 {
        for n in 0..200 {
            start(&world, &vault, &format!("projects/p/servers/s{n}")).await;
        }
        vault.write_soft_state(false).await.expect("written");
        let bytes = vault.view().read().soft_bytes();
        // What is known of uses is beside it.
        assert!(bytes <= half + 2 * crate::view::ENTRY_BYTES, "round {round}: {bytes} of {half}");
    }
    assert!(kept(&vault, "projects/p/") >= first && starts(&vault, "projects/p/servers/s0") >= 1);
    world.grant(&vault, SERVICE, Permission::SecretsInject, "projects/q").await;
    start(&world, &vault, "projects/q/servers/new").await;
    vault.write_soft_state(false).await.expect("written");
    assert_eq!(kept(&vault, "projects/q/"), 1, "there is room for others");
}
