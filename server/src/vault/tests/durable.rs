//! Nothing acts without the audit log, and a store's bad answers are passed on as what they are.

use std::sync::Arc;

use coffer_proto::{name::Permission, reason::Reason};

use super::world::{World, fetch, list, new, scope, secret, valued};
use crate::{
    audit::Phase,
    store::{
        self,
        faulty::{Fault, Faulty},
        memory::Memory,
    },
    vault::Error,
};

const USER: &str = "users/alice";

#[tokio::test]
async fn without_an_audit_log_nothing_is_done_and_nothing_leaves() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    world.grant(&vault, "services/s", Permission::SecretsInject, "projects/p").await;
    let (user, service) = (world.call(&vault, USER).await, world.call(&vault, "services/s").await);
    vault.create_secret(&user, scope("projects/p"), Ok(new("A", "v"))).await.expect("created");
    let before = world.records().await;

    *world.audit.broken.lock().expect("no panic before") = true;
    let name = secret("projects/p/secrets/A");
    let created = vault.create_secret(&user, scope("projects/p"), Ok(new("B", "v"))).await;
    assert_eq!(created.map(drop), Err(Error::AuditUnavailable));
    let updated = vault.update_secret(&user, name.clone(), String::new(), Ok(valued("w"))).await;
    assert_eq!(updated.map(drop), Err(Error::AuditUnavailable));
    assert_eq!(vault.delete_secret(&user, name, String::new(), false).await, Err(Error::AuditUnavailable));
    assert_eq!(fetch(&vault, &service, "projects/p/servers/s").await.map(drop), Err(Error::AuditUnavailable));
    assert_eq!(list(&vault, &user, "projects/p").await.map(drop), Err(Error::AuditUnavailable));
    assert_eq!(list(&vault, &user, "projects/q").await.map(drop), Err(Error::AuditUnavailable), "refusals, too");
    assert_eq!(world.records().await, before);
}

#[tokio::test]
async fn an_intent_is_written_before_and_an_outcome_after() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, USER).await;
    world.audit.lines.lock().expect("no panic before").clear();
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.expect("created");
    assert_eq!(world.audit.phases("test"), [Phase::Intent, Phase::Done]);
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.map(drop).expect_err("exists");
    vault.create_secret(&call, scope("projects/q"), Ok(new("A", "v"))).await.map(drop).expect_err("denied");
    list(&vault, &call, "projects/p").await.expect("listed");
    let expected = [Phase::Intent, Phase::Done, Phase::Failed, Phase::Refused, Phase::Read];
    assert_eq!(world.audit.phases("test"), expected);
}

#[tokio::test]
async fn a_stores_bad_answers_are_passed_on_as_what_they_are() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, USER).await;
    let create = async |name: &str| {
        let created = vault.create_secret(&call, scope("projects/p"), Ok(new(name, "v"))).await;
        created.map(drop).map_err(|error| error.reason())
    };
    faults.next(Fault::Unavailable);
    assert_eq!(create("A").await, Err(Reason::StoreUnavailable));
    faults.next(Fault::Full);
    assert_eq!(create("A").await, Err(Reason::StorageFull));
    faults.next(Fault::UnknownLanded);
    assert_eq!(create("B").await, Err(Reason::OutcomeUnknown));
    assert_eq!(create("A").await, Ok(()), "the next one works");
    assert_eq!(create("B").await, Err(Reason::SecretExists), "it had landed");

    // Whoever does not know what became of a call must not hear that nothing did, whatever becomes of the log.
    faults.next(Fault::UnknownLanded);
    *world.audit.lines_left.lock().expect("no panic before") = Some(1);
    assert_eq!(create("D").await, Err(Reason::OutcomeUnknown), "its intent was the last line");
    *world.audit.lines_left.lock().expect("no panic before") = None;

    world.audit.lines.lock().expect("no panic before").clear();
    faults.fail_reads(Some(crate::store::Error::Unavailable("gone".into())));
    assert_eq!(create("C").await, Err(Reason::StoreUnavailable), "who cannot see the latest state decides nothing");
    assert_eq!(world.audit.phases("test"), [Phase::Failed]);
}

#[tokio::test]
async fn a_given_value_always_counts_as_a_change() {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, USER).await;
    vault.create_secret(&call, scope("projects/p"), Ok(new("A", "same"))).await.expect("created");
    let name = secret("projects/p/secrets/A");
    let again = vault.update_secret(&call, name.clone(), String::new(), Ok(valued("same"))).await.expect("updated");
    assert_eq!(again.meta.version, 2, "telling that it is the same would confirm a guess");
    let nothing = vault.update_secret(&call, name, String::new(), Ok(Default::default())).await;
    assert_eq!(nothing.map(drop), Err(Error::NoChanges));
}

#[test]
fn a_full_disk_says_what_still_works_and_a_snapshot_how_much_it_needs() {
    let told = |error: store::Error| {
        let error = Error::from(error);
        assert_eq!(error.reason(), Reason::StorageFull);
        error.to_string()
    };
    assert!(told(store::Error::Full("".into())).ends_with("deletes still work"));
    assert!(told(store::Error::Exhausted("".into())).ends_with("takes no deletes either; reads go on"));
    assert_eq!(told(store::Error::NoRoom("97 MiB".into())), "no room: 97 MiB");
}
