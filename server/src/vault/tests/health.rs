//! Unused and stale secrets, by a clock that is moved.

use std::time::Duration;

use coffer_proto::name::Permission;

use super::{
    references::{declaration, declared},
    world::{World, fetch, new, scope, secret, valued},
};
use crate::vault::{Call, Error, HealthRequest, Vault};

const USER: &str = "users/alice";
const SERVICE: &str = "services/starter";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn look(vault: &Vault, call: &Call, place: &str) -> (Vec<(String, bool)>, Vec<String>) {
    let request = HealthRequest { stale_days: 10, unused_days: 3 };
    let health = vault.scope_health(call, scope(place), Ok(request)).await.expect("looked");
    let unused = health.unused.iter().map(|(name, seconds)| (name.variable().to_string(), *seconds > 0)).collect();
    (unused, health.stale.iter().map(|(name, _)| name.variable().to_string()).collect())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn what_nobody_uses_and_what_is_old() {
    let world = World::new().await;
    let vault = world.vault().await;
    for pattern in ["projects/p", "projects/p/environments/-"] {
        world.grant(&vault, USER, Permission::SecretsManage, pattern).await;
        world.grant(&vault, SERVICE, Permission::SecretsInject, pattern).await;
    }
    let later = |days: u32| *world.clock.moved.lock().expect("no panic before") += DAY * days;
    // Tokens of users end with the hour.
    let signed_in = async |who: &str| {
        world.tokens.lock().expect("no panic before").remove(who);
        world.call(&vault, who).await
    };
    let call = signed_in(USER).await;
    for name in ["ASKED", "BELOW", "IDLE", "SHADOWED"] {
        vault.create_secret(&call, scope("projects/p"), Ok(new(name, "v"))).await.map(drop).expect("created");
    }
    vault
        .create_secret(&call, scope("projects/p/environments/e"), Ok(new("SHADOWED", "v")))
        .await
        .map(drop)
        .expect("created");
    for (name, used) in [
        ("projects/p/references/r", "ASKED"),
        ("projects/p/environments/e/references/r", "BELOW"),
        ("projects/p/environments/e/references/s", "SHADOWED"),
    ] {
        vault.set_declaration(&call, declaration(name), Ok(declared(&[used]))).await.expect("set");
    }
    assert_eq!(look(&vault, &call, "projects/p").await, (vec![], vec![]), "all of it is new");

    later(4);
    let call = signed_in(USER).await;
    let never = |name: &str| (name.to_owned(), false);
    assert_eq!(look(&vault, &call, "projects/p").await.0, [never("IDLE"), never("SHADOWED")]);
    assert_eq!(look(&vault, &call, "projects/p/environments/e").await.0, [], "it is what the name stands for there");

    // A start of a workload uses all that it receives.
    let service = signed_in(SERVICE).await;
    fetch(&vault, &service, "projects/p/servers/s").await.expect("fetched");
    assert_eq!(look(&vault, &call, "projects/p").await.0, []);
    later(4);
    let call = signed_in(USER).await;
    let long_ago = |name: &str| (name.to_owned(), true);
    assert_eq!(look(&vault, &call, "projects/p").await.0, [long_ago("IDLE"), long_ago("SHADOWED")]);

    // A new description makes no value younger; a new value does.
    vault
        .update_secret(&call, secret("projects/p/secrets/IDLE"), String::new(), Ok(valued("w")))
        .await
        .expect("updated");
    let described = crate::vault::SecretChange { description: Some("d".into()), ..Default::default() };
    vault
        .update_secret(&call, secret("projects/p/secrets/ASKED"), String::new(), Ok(described))
        .await
        .expect("updated");
    later(3);
    let call = signed_in(USER).await;
    assert_eq!(look(&vault, &call, "projects/p").await.1, names(&["ASKED", "BELOW", "SHADOWED"]));
    let denied = vault.scope_health(&signed_in("users/bob").await, scope("projects/p"), Err(Error::NoChanges)).await;
    assert_eq!(denied.map(drop), Err(Error::Denied));
}
