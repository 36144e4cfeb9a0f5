//! No call holds the view's lock for longer than it takes to walk over so many entries, however many there are: a change
//! waits for the lock, and every reader waits for the change.

use std::time::Duration;

use coffer_proto::{
    limits,
    name::{DeclarationKind, Permission, ResourcePattern, ScopePattern, VariableName},
};

use super::world::{OPERATOR, World, fetch, new, scope, workload};
use crate::{
    record::Kind,
    vault::{Error, Import, ImportEntry, PageRequest, Purpose, SecretChange, Vault, read::STEP},
    view::most_of,
};

const USER: &str = "users/alice";
const SERVICE: &str = "services/starter";
/// More than a page looks at.
const MANY: usize = limits::PAGE_SCANNED + 100;
/// What a call may come to beside its steps: the rights of its caller, and what stands in its way.
const BESIDE: usize = 20;

/// So many scopes, each with a secret, a workload that was started, a grant, and its holder's token.
async fn crowd(world: &World, vault: &Vault) {
    for permission in [Permission::SecretsManage, Permission::AccessManage] {
        world.grant(vault, USER, permission, "projects/-").await;
    }
    world.grant(vault, SERVICE, Permission::SecretsInject, "projects/-/servers/-").await;
    let (user, service) = (world.call(vault, USER).await, world.call(vault, SERVICE).await);
    for n in 0..MANY {
        let place = format!("projects/p{n}");
        vault.create_secret(&user, scope(&place), Ok(new("A", "v"))).await.expect("created");
        fetch(vault, &service, &format!("{place}/servers/s")).await.expect("started");
        // Half on one pattern, half each on its own.
        let pattern = if n % 2 == 0 { "projects/-" } else { &place };
        world.grant(vault, &format!("users/u{n}"), Permission::SecretsRead, pattern).await;
        world.issue(vault, OPERATOR, &format!("users/u{n}")).await.expect("issued");
    }
    vault.write_soft_state(false).await.expect("written");
}

fn page(size: i32) -> Result<PageRequest, Error> {
    PageRequest::new("List", &[], size, "")
}

/// Runs a call and holds it against a bound.
macro_rules! at_most {
    ($bound:expr, $call:expr) => {{
        let (most, result) = most_of($call).await;
        assert!(most <= $bound + BESIDE, "{most} entries under one hold of the lock: {}", stringify!($call));
        result.expect(stringify!($call))
    }};
}

#[tokio::test]
async fn no_call_walks_over_more_than_a_bound_under_one_hold_of_the_lock() {
    let world = World::new().await;
    let vault = world.vault().await;
    crowd(&world, &vault).await;
    let (user, operator) = (world.call(&vault, USER).await, world.call(&vault, OPERATOR).await);
    let service = world.call(&vault, SERVICE).await;
    let all = || ScopePattern::parse("projects/-").expect("a pattern");
    let servers = || ResourcePattern::parse("projects/-/servers/-").expect("a pattern");
    let looks = limits::PAGE_SCANNED;

    let stats = at_most!(STEP, vault.secret_stats(&user, all()));
    assert_eq!((stats.scopes, stats.encrypted), (MANY as u64, MANY as u64), "and it counts all of them, once");
    let access = at_most!(STEP, vault.list_effective_access(&user, scope("projects/p0"), page(200)));
    assert_eq!(access.entries.len(), 200);
    // Nobody's scopes match: the page is empty, and goes on.
    let none = || ScopePattern::parse("projects/-/environments/-").expect("a pattern");
    at_most!(looks, vault.list_scopes(&user, Some(none()), page(200)));
    at_most!(looks, vault.list_scopes(&user, None, page(200)));
    at_most!(looks, vault.list_secrets(&user, all(), page(200)));
    at_most!(looks, vault.list_grants(&operator, None, None, page(200)));
    at_most!(looks, vault.list_grants(&user, Some("projects/none".into()), None, page(200)));
    at_most!(looks, vault.list_tokens(&operator, None, page(200)));
    at_most!(looks, vault.list_instances(&user, servers(), true, page(200)));
    at_most!(looks, vault.list_declarations(&user, DeclarationKind::Manifest, all(), page(200)));
    let mut watch = at_most!(looks, vault.watch_instances(&user, servers()));
    at_most!(looks, watch.next());

    let place = scope("projects/p0");
    at_most!(looks, vault.status(&operator));
    at_most!(looks, vault.create_secret(&user, place.clone(), Ok(new("B", "v"))));
    let entries = vec![ImportEntry {
        variable: VariableName::parse("C").expect("a name"),
        value: Some(super::world::value("v")),
        kind: Some(Kind::Plain),
        description: None,
    }];
    let import = Import { entries, conflict: crate::vault::Conflict::Fail, validate_only: false, sharing: None };
    at_most!(looks, vault.import_secrets(&user, place.clone(), Ok(import)));
    let changed = SecretChange { value: Some(super::world::value("w")), ..SecretChange::default() };
    let name = super::world::secret("projects/p0/secrets/A");
    at_most!(looks, vault.update_secret(&user, name.clone(), String::new(), Ok(changed)));
    let start = Purpose::Start;
    at_most!(looks, vault.fetch_environment(&service, Some(workload("projects/p0/servers/s")), "", start));
    at_most!(looks, vault.delete_secret(&user, name, String::new(), false));
    at_most!(looks, vault.delete_scope(&user, scope("projects/p1"), String::new()));
    at_most!(looks, world.issue(&vault, OPERATOR, "users/one-more"));

    *world.clock.moved.lock().expect("no panic before") = Duration::from_secs(400 * 24 * 60 * 60);
    at_most!(STEP, vault.remove_expired());
}
