//! Watches over a store in memory: what is told, what ends them, and that nothing is left of them.

use std::time::Duration;

use coffer_proto::{
    limits,
    name::{Permission, ResourcePattern},
};
use tokio::time::timeout;

use super::*;
use crate::{
    identity,
    record::SharedWith,
    vault::{
        Error, Purpose, SecretChange, Vault,
        tests::world::{OPERATOR, World, fetch, new, scope, secret, shared, valued, workload},
    },
};

const SERVICE: &str = "services/s";
const USER: &str = "users/a";
const SERVER: &str = "projects/p/environments/e/servers/s";
/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(20);

async fn world() -> (World, Vault) {
    let world = World::new().await;
    let vault = world.vault().await;
    for place in ["projects/p", "projects/p/environments/e", "organizations/o", "organizations/o/workspaces/w"] {
        if !place.ends_with("/o") {
            world.grant(&vault, SERVICE, Permission::SecretsInject, place).await;
        }
        world.grant(&vault, USER, Permission::SecretsManage, place).await;
    }
    (world, vault)
}

async fn create(world: &World, vault: &Vault, place: &str, new: crate::vault::NewSecret) {
    let call = world.call(vault, USER).await;
    vault.create_secret(&call, scope(place), Ok(new)).await.expect("created");
}

async fn update(world: &World, vault: &Vault, name: &str, change: SecretChange) {
    let call = world.call(vault, USER).await;
    vault.update_secret(&call, secret(name), String::new(), Ok(change)).await.expect("updated");
}

async fn watch(world: &World, vault: &Vault, whose: &str, revision: &str) -> EnvironmentWatch {
    let call = world.call(vault, SERVICE).await;
    vault.watch_environment(&call, Some(workload(whose)), revision.to_owned()).await.expect("a watch")
}

/// The next change's names; nothing if it is a reset.
async fn changed(watch: &mut EnvironmentWatch) -> Option<Vec<String>> {
    let change = timeout(LONG, watch.next()).await.expect("in time").expect("a change");
    change.changed.map(|names| names.iter().map(ToString::to_string).collect())
}

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn own_and_inherited_changes_are_told_and_a_description_is_not() {
    let (world, vault) = world().await;
    create(&world, &vault, "projects/p", new("BASE", "1")).await;
    let mut watch = watch(&world, &vault, SERVER, "").await;
    assert_eq!(changed(&mut watch).await, None, "who has nothing is told to fetch");
    create(&world, &vault, "projects/p/environments/e", new("OWN", "1")).await;
    assert_eq!(changed(&mut watch).await, names(&["OWN"]));
    update(&world, &vault, "projects/p/secrets/BASE", valued("2")).await;
    assert_eq!(changed(&mut watch).await, names(&["BASE"]));
    let described = SecretChange { description: Some("text".into()), ..SecretChange::default() };
    update(&world, &vault, "projects/p/secrets/BASE", described).await;
    assert!(watch.look().expect("still there").is_none(), "a description is no change");
    create(&world, &vault, "projects/p", new("OWN", "shadowed")).await;
    assert!(watch.look().expect("still there").is_none(), "nor is what is shadowed");
    let locked = SecretChange { locked: Some(true), ..SecretChange::default() };
    update(&world, &vault, "projects/p/secrets/OWN", locked.clone()).await;
    assert_eq!(changed(&mut watch).await, names(&["OWN"]), "a lock wins");
    let unlocked = SecretChange { locked: Some(false), ..locked };
    update(&world, &vault, "projects/p/secrets/OWN", unlocked).await;
    assert_eq!(changed(&mut watch).await, names(&["OWN"]));
    // A delete leaves nothing that could be newer than before.
    for (deleted, told) in [
        ("projects/p/secrets/OWN", None),
        ("projects/p/environments/e/secrets/OWN", names(&["OWN"])),
        ("projects/p/secrets/BASE", names(&["BASE"])),
    ] {
        let call = world.call(&vault, USER).await;
        vault.delete_secret(&call, secret(deleted), String::new(), false).await.expect("deleted");
        match told {
            None => assert!(watch.look().expect("still there").is_none(), "what was shadowed"),
            told => assert_eq!(changed(&mut watch).await, told, "{deleted}"),
        }
    }
}

#[tokio::test]
async fn what_an_organization_shares_is_told_where_it_is_received() {
    let (world, vault) = world().await;
    let only = |ids: &[&str]| SharedWith::Only(ids.iter().map(|id| (*id).to_owned()).collect());
    create(&world, &vault, "organizations/o", shared("KEY", "1", only(&["other"]))).await;
    let mut watch = watch(&world, &vault, "organizations/o/workspaces/w/servers/s", "").await;
    assert_eq!(changed(&mut watch).await, None);
    update(&world, &vault, "organizations/o/secrets/KEY", valued("2")).await;
    assert!(watch.look().expect("still there").is_none(), "it is not received");
    let shared = SecretChange { sharing: Some(SharedWith::All), ..SecretChange::default() };
    update(&world, &vault, "organizations/o/secrets/KEY", shared).await;
    assert_eq!(changed(&mut watch).await, names(&["KEY"]));
}

#[tokio::test]
async fn a_change_undone_before_it_is_told_is_never_told() {
    let (world, vault) = world().await;
    create(&world, &vault, "projects/p", new("KEY", "1")).await;
    create(&world, &vault, "projects/p/environments/e", new("KEY", "2")).await;
    let mut watch = watch(&world, &vault, SERVER, "").await;
    assert_eq!(changed(&mut watch).await, None);
    for locked in [true, false] {
        let change = SecretChange { locked: Some(locked), ..SecretChange::default() };
        update(&world, &vault, "projects/p/secrets/KEY", change).await;
    }
    create(&world, &vault, "projects/p", new("AFTER", "1")).await;
    assert_eq!(changed(&mut watch).await, names(&["AFTER"]));
}

#[tokio::test]
async fn a_revision_that_is_remembered_is_gone_on_from_and_any_other_is_a_reset() {
    let (world, vault) = world().await;
    create(&world, &vault, "projects/p", new("KEY", "1")).await;
    let call = world.call(&vault, SERVICE).await;
    let fetched = vault.fetch_environment(&call, Some(workload(SERVER)), "", Purpose::Start).await.expect("fetched");
    update(&world, &vault, "projects/p/secrets/KEY", valued("2")).await;
    assert_eq!(changed(&mut watch(&world, &vault, SERVER, &fetched.revision).await).await, names(&["KEY"]));
    let mut told = watch(&world, &vault, SERVER, "").await;
    let told = timeout(LONG, told.next()).await.expect("in time").expect("a change").revision;
    update(&world, &vault, "projects/p/secrets/KEY", valued("3")).await;
    let resumed = changed(&mut watch(&world, &vault, SERVER, &told).await).await;
    assert_eq!(resumed, names(&["KEY"]), "what a watch told is as good as what was fetched");
    for garbage in ["0", &"f".repeat(64), "ffffffffffffffffffffffffffffffff", "\u{0}", "é"] {
        assert_eq!(changed(&mut watch(&world, &vault, SERVER, garbage).await).await, None, "{garbage:?}");
    }
    let long = vault.watch_environment(&call, Some(workload(SERVER)), "f".repeat(65)).await.err();
    assert!(matches!(long, Some(Error::Invalid { .. })), "{long:?}");
}

#[tokio::test]
async fn the_end_of_a_right_or_token_or_scope_ends_it_and_leaves_nothing() {
    let (world, vault) = world().await;
    create(&world, &vault, "projects/p/environments/e", new("KEY", "1")).await;
    world.grant(&vault, "services/issuer", Permission::WorkloadsIssue, "projects/p/environments/e").await;
    let token = world.issue(&vault, "services/issuer", SERVER).await.expect("issued");
    world.tokens.lock().expect("no panic before").insert(SERVER.to_owned(), token);
    let operator = world.call(&vault, OPERATOR).await;
    let kept = world.grant(&vault, "services/b", Permission::SecretsInject, "projects/p/environments/e").await;
    let other = world.call(&vault, "services/b").await;
    let ends = async |watch: &mut EnvironmentWatch| {
        loop {
            if let Err(error) = timeout(LONG, watch.next()).await.expect("in time") {
                return error;
            }
        }
    };

    let mut granted = vault.watch_environment(&other, Some(workload(SERVER)), String::new()).await.expect("a watch");
    assert_eq!(changed(&mut granted).await, None);
    let (ended, deleted) = tokio::join!(ends(&mut granted), vault.delete_grant(&operator, kept));
    deleted.expect("deleted");
    assert_eq!(ended, Error::Denied);

    let own = world.held(SERVER);
    let mut workloads = vault.watch_environment(&own, None, String::new()).await.expect("a watch");
    let mut services = watch(&world, &vault, SERVER, "").await;
    assert_eq!((changed(&mut workloads).await, changed(&mut services).await), (None, None));
    world.grant(&vault, "users/a", Permission::AccessManage, "projects/p/environments/e").await;
    let user = world.call(&vault, USER).await;
    let delete = vault.delete_scope(&user, scope("projects/p/environments/e"), String::new());
    let (of_workload, of_service, deleted) = tokio::join!(ends(&mut workloads), ends(&mut services), delete);
    deleted.expect("deleted");
    assert_eq!(of_workload, Error::Unauthenticated(identity::Error::Invalid));
    assert_eq!(of_service, Error::Denied);

    assert!(vault.view().listening() > 0);
    drop((granted, workloads, services));
    assert_eq!(vault.view().listening(), 0, "nothing is left of them");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_tokens_time_ends_it_though_nothing_happens() {
    let (world, vault) = world().await;
    world.call(&vault, SERVICE).await;
    // A service's token is valid for 30 days. The clock stands still but for what is said here; the timer is tokio's.
    let valid = limits::SERVICE_TOKEN_TTL_DEFAULT;
    *world.clock.moved.lock().expect("no panic before") = valid - Duration::from_secs(10);
    let mut watch = watch(&world, &vault, SERVER, "").await;
    assert_eq!(changed(&mut watch).await, None);
    let began = tokio::time::Instant::now();
    let ended = tokio::spawn(async move { watch.next().await });
    tokio::task::yield_now().await;
    *world.clock.moved.lock().expect("no panic before") = valid + Duration::from_secs(1);
    let error = ended.await.expect("a task").expect_err("the end");
    assert_eq!(error, Error::Unauthenticated(identity::Error::Expired));
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
}

fn pattern(text: &str) -> ResourcePattern {
    ResourcePattern::parse(text).expect("a pattern")
}

/// What a message tells: each workload's name with whether it must be restarted and why.
async fn told(watch: &mut InstancesWatch) -> (Vec<(String, bool, Vec<String>)>, Vec<String>, bool) {
    let change = timeout(LONG, watch.next()).await.expect("in time").expect("a change");
    let workloads = change.workloads.iter().map(|known| {
        let changed = known.changed.iter().map(ToString::to_string).collect();
        (known.workload.to_string(), known.restart_required, changed)
    });
    (workloads.collect(), change.forgotten.iter().map(ToString::to_string).collect(), change.synced)
}

#[tokio::test(start_paused = true)]
async fn an_instances_watch_tells_what_there_is_and_then_what_changes() {
    let (world, vault) = world().await;
    create(&world, &vault, "projects/p", new("KEY", "1")).await;
    let service = world.call(&vault, SERVICE).await;
    for name in ["projects/p/servers/a", SERVER] {
        fetch(&vault, &service, name).await.expect("fetched");
    }
    let user = world.call(&vault, USER).await;
    let mut project = vault.watch_instances(&user, pattern("projects/p")).await.expect("a watch");
    let mut all = vault.watch_instances(&user, pattern("projects/-/environments/-")).await.expect("a watch");
    let (a, s) = ("projects/p/servers/a".to_owned(), SERVER.to_owned());
    assert_eq!(told(&mut project).await, (vec![(a.clone(), false, vec![])], vec![], true));
    assert_eq!(told(&mut all).await, (vec![(s.clone(), false, vec![])], vec![], true));

    update(&world, &vault, "projects/p/secrets/KEY", valued("2")).await;
    let why = vec!["KEY".to_owned()];
    assert_eq!(told(&mut project).await, (vec![(a.clone(), true, why.clone())], vec![], false));
    assert_eq!(told(&mut all).await, (vec![(s.clone(), true, why)], vec![], false), "what it inherits changed");
    fetch(&vault, &service, SERVER).await.expect("started again");
    let began = tokio::time::Instant::now();
    assert_eq!(told(&mut all).await, (vec![(s.clone(), false, vec![])], vec![], false));
    assert!(began.elapsed() > Duration::from_millis(900), "it looks once a second");

    world.grant(&vault, USER, Permission::AccessManage, "projects/p/environments/e").await;
    create(&world, &vault, "projects/p/environments/e", new("OWN", "1")).await;
    assert_eq!(told(&mut all).await, (vec![(s.clone(), true, vec!["OWN".to_owned()])], vec![], false));
    vault.delete_scope(&user, scope("projects/p/environments/e"), String::new()).await.expect("deleted");
    assert_eq!(told(&mut all).await, (vec![], vec![s], false), "with the scope its starts are gone");
    drop((project, all));
    assert_eq!(vault.view().listening(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instances_watch_ends_with_its_right_and_a_wildcard_shows_less() {
    let (world, vault) = world().await;
    let grant = world.grant(&vault, "users/b", Permission::SecretsRead, "projects/p").await;
    let service = world.call(&vault, SERVICE).await;
    fetch(&vault, &service, "projects/p/servers/a").await.expect("fetched");
    let reader = world.call(&vault, "users/b").await;
    let mut one = vault.watch_instances(&reader, pattern("projects/p/servers/a")).await.expect("a watch");
    let mut many = vault.watch_instances(&reader, pattern("projects/-/servers/-")).await.expect("a watch");
    assert_eq!((told(&mut one).await.0.len(), told(&mut many).await.0.len()), (1, 1));
    let operator = world.call(&vault, OPERATOR).await;
    vault.delete_grant(&operator, grant).await.expect("deleted");
    assert_eq!(timeout(LONG, one.next()).await.expect("in time"), Err(Error::Denied));
    assert_eq!(told(&mut many).await, (vec![], vec!["projects/p/servers/a".to_owned()], false));
    let denied = vault.watch_instances(&reader, pattern("projects/p")).await.err();
    assert_eq!(denied, Some(Error::Denied));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_any_more_is_not_told_while_a_listing_is_taken_slowly() {
    let (world, vault) = world().await;
    let service = world.call(&vault, SERVICE).await;
    for n in 0..=limits::PAGE_ENTRIES {
        for scope in ["projects/p", "projects/p/environments/e"] {
            fetch(&vault, &service, &format!("{scope}/servers/s{n:03}")).await.expect("fetched");
        }
    }
    let operator = world.call(&vault, OPERATOR).await;
    let mut grants = Vec::new();
    for scope in ["projects/p", "projects/p/environments/e"] {
        grants.push(world.grant(&vault, "users/b", Permission::SecretsRead, scope).await);
    }
    let reader = world.call(&vault, "users/b").await;
    let mut one = vault.watch_instances(&reader, pattern("projects/p")).await.expect("a watch");
    let mut many = vault.watch_instances(&reader, pattern("projects/-/environments/-")).await.expect("a watch");
    for watch in [&mut one, &mut many] {
        let (first, _, synced) = told(watch).await;
        assert_eq!((first.len(), synced), (limits::PAGE_ENTRIES, false), "there is more");
    }
    for grant in grants {
        vault.delete_grant(&operator, grant).await.expect("deleted");
    }
    assert_eq!(timeout(LONG, one.next()).await.expect("in time"), Err(Error::Denied));
    assert_eq!(told(&mut many).await, (vec![], vec![], true), "the rest is not told");
    let (workloads, forgotten, _) = told(&mut many).await;
    assert_eq!((workloads, forgotten.len()), (vec![], limits::PAGE_ENTRIES), "and what was is taken back");
}

#[tokio::test]
async fn a_flood_of_changes_is_told_in_few_looks_and_by_its_end() {
    let (world, vault) = world().await;
    create(&world, &vault, "projects/p", new("KEY", "0")).await;
    let mut watch = watch(&world, &vault, SERVER, "").await;
    assert_eq!(changed(&mut watch).await, None);
    for n in 1..100 {
        update(&world, &vault, "projects/p/secrets/KEY", valued(&n.to_string())).await;
    }
    assert_eq!(changed(&mut watch).await, names(&["KEY"]), "a hundred changes, one message");
    assert!(watch.look().expect("still there").is_none());
}
