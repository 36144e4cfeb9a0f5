//! Rotation of keys under load, cut off anywhere, loses nothing and leaves nothing under an old key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coffer_proto::{limits, name::Permission};

use super::world::{OPERATOR, World, fetch, new, scope, secret, value, valued, workload};
use crate::{
    audit::Phase,
    identity,
    seal::{KeyId, living},
    store::{
        Change, Store, Transaction, TransactionId,
        faulty::{Fault, Faulty},
        memory::Memory,
    },
    vault::{CloneRequest, Error, Import, ImportEntry, Purpose, RotatedKeys, Vault},
};

const USER: &str = "users/alice";
const SERVICE: &str = "services/injector";
const SERVER: &str = "projects/large/servers/s";

/// What every secret should be, by name.
pub(super) type Ledger = BTreeMap<String, String>;

/// Scopes from empty to full, and somebody who may do everything in them.
async fn furnish(world: &World, vault: &Vault, large: u64) -> Ledger {
    for permission in [Permission::SecretsManage, Permission::SecretsInject, Permission::AccessManage] {
        let whom = if permission == Permission::SecretsInject { SERVICE } else { USER };
        world.grant(vault, whom, permission, "projects/-").await;
    }
    world.grant(vault, USER, Permission::SecretsRead, "projects/empty").await;
    let call = world.call(vault, USER).await;
    let mut ledger = Ledger::new();
    for (place, count, bytes) in
        [("projects/small", 3, 10), ("projects/wide", 12, 60_000 / 2), ("projects/large", large, 500)]
    {
        let text = |n: u64| format!("{n}-{}", "v".repeat(bytes));
        let entry = |n: u64| ImportEntry {
            variable: format!("S{n}").parse_name(),
            value: Some(value(&text(n))),
            kind: None,
            description: None,
        };
        for first in (0..count).step_by(200) {
            let entries = (first..count.min(first + 200)).map(entry).collect();
            let import =
                Import { entries, conflict: crate::vault::Conflict::Fail, validate_only: false, sharing: None };
            vault.import_secrets(&call, scope(place), Ok(import)).await.expect("imported");
        }
        ledger.extend((0..count).map(|n| (format!("{place}/secrets/S{n}"), text(n))));
    }
    ledger
}

trait ParseName {
    fn parse_name(&self) -> coffer_proto::name::VariableName;
}

impl ParseName for String {
    fn parse_name(&self) -> coffer_proto::name::VariableName {
        coffer_proto::name::VariableName::parse(self).expect("a name")
    }
}

/// Waits until a key is in memory so many times: vaults that were dropped, and reads under way, let go in their own time.
async fn living_settles(key: KeyId, count: usize) {
    let settles = async {
        while living::count(key) != count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(20), settles).await;
    assert!(settled.is_ok(), "{key} is in memory {} times, not {count}", living::count(key));
}

/// Rotates and waits until it is done.
pub(super) async fn rotate(world: &World, vault: &Vault, keys: RotatedKeys) {
    let call = world.call(vault, OPERATOR).await;
    let mut progress = vault.rotate_keys(&call, keys).await.expect("begun");
    while progress.changed().await.is_ok() {}
    let last = progress.borrow().clone();
    assert!(last.end.is_some() && last.failed.is_none() && last.done == last.total, "{last:?}");
}

/// Waits until the rotation that was cut off is done.
pub(super) async fn finish(vault: &Vault) {
    let ends = async {
        loop {
            match vault.rotation() {
                None => return,
                Some(rotation) if rotation.end.is_some() => return,
                Some(rotation) => assert_eq!(rotation.failed, None),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ends).await.expect("the rotation ends");
}

/// The values of a store as somebody who opens it now finds them.
pub(super) async fn found(world: &World) -> Ledger {
    let vault = world.vault().await;
    let state = vault.view().read();
    let all = state.scopes_from("", None).flat_map(|scope| scope.owned_secrets().collect::<Vec<_>>());
    all.map(|secret| (secret.name().to_string(), secret.open(state.store()).expect("opens").expose().to_owned()))
        .collect()
}

/// The keys that seal or wrap anything in the store, as its envelopes name them.
pub(super) async fn named_keys(world: &World) -> BTreeSet<[u8; 8]> {
    let id = |bytes: &[u8]| <[u8; 8]>::try_from(&bytes[1..9]).expect("an envelope");
    let mut ids = BTreeSet::new();
    for record in world.records().await {
        match record.key.as_str() {
            "header" => {}
            key if key.starts_with("key/") => drop(ids.insert(id(&record.value[16..]))),
            key if key.starts_with("secret/") => {
                let metadata = u32::from_be_bytes(record.value[26..30].try_into().expect("four bytes")) as usize;
                ids.insert(id(&record.value[30..]));
                ids.insert(id(&record.value[30 + metadata..]));
            }
            _ => drop(ids.insert(id(&record.value))),
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_under_an_old_key_in_store_or_memory() {
    let world = World::new().await;
    let vault = world.vault().await;
    let ledger = furnish(&world, &vault, limits::SCOPE_SECRETS).await;
    let service = world.call(&vault, SERVICE).await;
    let before = vault.fetch_environment(&service, Some(workload(SERVER)), "", Purpose::Start).await.expect("fetched");
    let mut watch =
        vault.watch_environment(&service, Some(workload(SERVER)), before.revision.clone()).await.expect("watches");
    let user = world.call(&vault, USER).await;
    let etag = vault.get_secret(&user, secret("projects/small/secrets/S1")).await.expect("there").meta.etag();
    let mut old = named_keys(&world).await;
    for keys in [RotatedKeys::Data, RotatedKeys::Root, RotatedKeys::Data] {
        rotate(&world, &vault, keys).await;
        let now = named_keys(&world).await;
        match keys {
            RotatedKeys::Data => assert_eq!(now.intersection(&old).count(), 1, "the root key alone"),
            RotatedKeys::Root => assert_eq!(old.difference(&now).count(), 1, "the root key alone"),
        }
        for gone in old.difference(&now) {
            living_settles(KeyId(*gone), 0).await;
        }
        for still in &now {
            living_settles(KeyId(*still), 1).await;
        }
        old = now;
    }
    let after = vault.fetch_environment(&service, Some(workload(SERVER)), "", Purpose::Start).await.expect("fetched");
    assert_eq!(before.revision, after.revision);
    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err(), "a watch tells of nothing");
    drop(watch);
    vault
        .update_secret(&user, secret("projects/small/secrets/S1"), etag, Ok(valued("w")))
        .await
        .expect("the same etag");
    assert_eq!(found(&world).await.len(), ledger.len());

    let scope_key = |name: &str| vault.view().read().scope(&scope(name)).expect("there").key.id();
    let doomed = scope_key("projects/wide");
    living_settles(doomed, 1).await;
    vault.delete_scope(&user, scope("projects/wide"), String::new()).await.expect("deleted");
    living_settles(doomed, 0).await;
    assert!(!world.records().await.iter().any(|record| record.key.as_str() == "key/scope/projects/wide"));
}

#[tokio::test]
async fn one_rotation_at_a_time_and_for_operators_only() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    let user = world.call(&vault, USER).await;
    assert_eq!(vault.rotate_keys(&user, RotatedKeys::Root).await.map(drop), Err(Error::Denied));
    assert_eq!(vault.rotation(), None);
    let call = world.call(&vault, OPERATOR).await;
    faults.next(Fault::Delay(Duration::ZERO));
    faults.next(Fault::Hang);
    let mut progress = vault.rotate_keys(&call, RotatedKeys::Data).await.expect("begun");
    vault.rotate_keys(&call, RotatedKeys::Data).await.expect("joined");
    assert_eq!(vault.rotate_keys(&call, RotatedKeys::Root).await.map(drop), Err(Error::RotationRunning));
    while progress.has_changed().is_ok() && vault.rotation().is_some_and(|rotation| rotation.end.is_none()) {
        faults.release();
        tokio::task::yield_now().await;
    }
    while progress.changed().await.is_ok() {}
    let phases = world.audit.phases("test");
    assert_eq!(phases.last(), Some(&Phase::Done), "{phases:?}");
    rotate(&world, &vault, RotatedKeys::Root).await;
}

/// Writes of every kind until told to end; answers what it knows of its own secrets.
async fn writer(world: Arc<World>, vault: Vault, n: usize, stop: Arc<AtomicBool>) -> Ledger {
    let call = world.held(USER);
    let mut ledger = Ledger::new();
    let home = format!("projects/w{n}");
    let again = |error: Error| assert!(matches!(error, Error::Contention | Error::EtagMismatch), "{error:?}");
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (a, b) = (format!("A{}", round % 5), format!("B{}", round % 7));
        let (first, text) = (format!("{home}/secrets/{a}"), format!("{n}:{round}"));
        let result = if ledger.contains_key(&first) {
            let etag = vault.get_secret(&call, secret(&first)).await.expect("there").meta.etag();
            vault.update_secret(&call, secret(&first), etag, Ok(valued(&text))).await.map(drop)
        } else {
            vault.create_secret(&call, scope(&home), Ok(new(&a, &text))).await.map(drop)
        };
        match result {
            Ok(()) => drop(ledger.insert(first.clone(), text.clone())),
            Err(error) => again(error),
        }
        let second = format!("{home}/secrets/{b}");
        let is_there = ledger.contains_key(&second);
        if is_there {
            match vault.delete_secret(&call, secret(&second), String::new(), false).await {
                Ok(()) => drop(ledger.remove(&second)),
                Err(error) => again(error),
            }
        } else {
            match vault.create_secret(&call, scope(&home), Ok(new(&b, &text))).await {
                Ok(_) => drop(ledger.insert(second, text.clone())),
                Err(error) => again(error),
            }
        }
        if round % 4 == 0 && ledger.contains_key(&first) {
            let destination = format!("projects/c{n}-{round}");
            let request = CloneRequest {
                names: vec![secret(&first)],
                scopes: Vec::new(),
                destination: scope(&destination),
                replace: false,
                sharing: Ok(None),
            };
            match vault.clone_secrets(&call, request).await {
                Ok(_) => drop(ledger.insert(format!("{destination}/secrets/{a}"), ledger[&first].clone())),
                Err(error) => again(error),
            }
        }
        if round % 3 == 0 {
            world.issue(&vault, OPERATOR, &format!("users/u{n}")).await.map(drop).unwrap_or_else(again);
            fetch(&vault, &world.held(SERVICE), &format!("{home}/servers/s")).await.expect("fetched");
            vault.write_soft_state(false).await.expect("written");
        }
        tokio::task::yield_now().await;
    }
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_two_replicas_lose_nothing_while_keys_are_rotated() {
    let world = Arc::new(World::new().await);
    let vaults = [world.vault().await, world.vault().await];
    let mut ledger = furnish(&world, &vaults[0], 300).await;
    world.call(&vaults[0], SERVICE).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..4).map(|n| tokio::spawn(writer(world.clone(), vaults[n % 2].clone(), n, stop.clone()))).collect();
    for round in 0..4 {
        for keys in [RotatedKeys::Data, RotatedKeys::Root] {
            let old = named_keys(&world).await;
            rotate(&world, &vaults[round % 2], keys).await;
            let now = named_keys(&world).await;
            let left = now.intersection(&old).count();
            match keys {
                RotatedKeys::Data => assert!(left <= 1, "{left} of before"),
                RotatedKeys::Root => assert!(old.difference(&now).count() >= 1, "the root key is gone"),
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        ledger.extend(writer.await.expect("no panic"));
    }
    assert_eq!(found(&world).await, ledger);
}

/// Lets every commit before it through and fails that one; then the vault goes, and another takes it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_cut_off_anywhere_is_finished_by_the_next_server() {
    let faults = [
        (Fault::Unavailable, &[0, 2, 4][..]),
        (Fault::UnknownLost, &[0, 1, 5]),
        (Fault::UnknownLanded, &[0, 2, 3]),
        (Fault::Hang, &[0, 1, 2, 3, 4, 5, 6]),
    ];
    for keys in [RotatedKeys::Data, RotatedKeys::Root] {
        for (fault, places) in &faults {
            for at in *places {
                cut_off(keys, fault.clone(), *at).await;
            }
        }
    }
}

async fn cut_off(keys: RotatedKeys, fault: Fault, at: usize) {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    let ledger = furnish(&world, &vault, 100).await;
    let call = world.call(&vault, OPERATOR).await;
    let old = named_keys(&world).await;
    for _ in 0..at {
        faults.next(Fault::Delay(Duration::ZERO));
    }
    faults.next(fault.clone());
    let begun = tokio::spawn({
        let (vault, call) = (vault.clone(), call.clone());
        async move { vault.rotate_keys(&call, keys).await.map(drop) }
    });
    // Until the fault was met, or the rotation was over before it came to that.
    let met = async {
        let is_over = || vault.rotation().is_some_and(|rotation| rotation.end.is_some());
        while faults.planned() > 0 && !is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.expect("it goes on");
    faults.clear();
    begun.abort();
    drop(vault);
    let vault = world.vault().await;
    finish(&vault).await;
    // What hung lands only now: it must not harm what was done since.
    faults.release();
    assert_eq!(found(&world).await, ledger, "{keys:?} {fault:?} {at}");
    rotate(&world, &vault, keys).await;
    let now = named_keys(&world).await;
    let left = old.intersection(&now).count();
    assert!(keys == RotatedKeys::Root || left <= 1, "{keys:?} {fault:?} {at}: {left}");
    assert_eq!(found(&world).await, ledger, "{keys:?} {fault:?} {at}");
}

#[tokio::test]
async fn a_restore_revives_no_token() {
    let memory = Memory::new();
    let world = World::on(Arc::new(memory.clone())).await;
    let vault = world.vault().await;
    let call = world.call(&vault, OPERATOR).await;
    assert!(vault.authenticate(&call).await.is_ok());
    drop(vault);
    memory.raise_epoch();
    let vault = world.vault().await;
    let refused = vault.authenticate(&call).await.map(drop);
    assert_eq!(refused, Err(Error::Unauthenticated(identity::Error::Invalid)));
    let operator = super::world::principal("users/root");
    let token = crate::vault::admit_operator(
        world.store.clone(),
        world.key.clone(),
        world.audit.clone(),
        world.clock.clone(),
        &operator,
    );
    let token = token.await.expect("admitted");
    world.tokens.lock().expect("no panic before").insert("users/root".to_owned(), token);
    let call = world.held("users/root");
    assert!(vault.authenticate(&call).await.is_ok());
    let tokens = vault.list_tokens(&call, None, crate::vault::PageRequest::new("ListTokens", &[""], 200, "")).await;
    assert_eq!(tokens.expect("listed").entries.len(), 1, "those of before are none");
}

#[tokio::test]
async fn a_key_of_before_cannot_be_moved_to_another_scope() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    furnish(&world, &vault, 200).await;
    // Cut off within a scope of many secrets, so that its record holds two keys.
    let call = world.call(&vault, OPERATOR).await;
    for _ in 0..4 {
        faults.next(Fault::Delay(Duration::ZERO));
    }
    faults.next(Fault::Hang);
    drop(vault.rotate_keys(&call, RotatedKeys::Data).await.expect("begun"));
    let is_mixed = || {
        let state = vault.view().read();
        state.scope(&scope("projects/large")).is_some_and(|scope| scope.key.has_old())
    };
    for _ in 0..5_000 {
        if is_mixed() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(is_mixed(), "cut off elsewhere");
    let records = world.records().await;
    drop(vault);
    let of = |key: &str| records.iter().find(|record| record.key.as_str() == key).expect("there").value.clone();
    for target in ["key/scope/projects/small", "key/system"] {
        let changes = records.iter().map(|record| {
            let moved = record.key.as_str() == target;
            let value = if moved { of("key/scope/projects/large") } else { record.value.clone() };
            Change::Put(record.key.clone(), value)
        });
        let moved: Arc<dyn Store> = Arc::new(Memory::new());
        for chunk in changes.collect::<Vec<_>>().chunks(100) {
            let id = TransactionId::random().expect("randomness");
            let transaction = Transaction { id, epoch: None, expectations: Vec::new(), changes: chunk.to_vec() };
            moved.commit(transaction).await.expect("stored").expect("no conflict");
        }
        let limits = crate::vault::Limits {
            memory_bytes: 1 << 30,
            sharing: crate::vault::Sharing::Own,
            calls: Default::default(),
        };
        let opened = Vault::open(moved, world.key.clone(), world.audit.clone(), world.clock.clone(), limits).await;
        assert!(opened.is_err(), "{target}");
    }
}
