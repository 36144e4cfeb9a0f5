//! Whoever writes the store can break it, but neither move a secret, nor make a grant, token or manifest.

use std::sync::Arc;

use coffer_proto::name::Permission;

use super::{
    references::{declaration, declared},
    world::{OPERATOR, World, new, scope},
};
use crate::{
    record::key,
    seal::source::KeyFile,
    store::{Change, Key, Record, Store, Transaction, TransactionId, memory::Memory},
    vault::{OpenError, init},
};

/// A store with something of every kind, and what is in it.
pub(super) async fn furnished() -> (World, Vec<Record>) {
    let world = World::new().await;
    let vault = world.vault().await;
    world.grant(&vault, "users/alice", Permission::SecretsManage, "projects/p/environments/-").await;
    for place in ["projects/p", "projects/q"] {
        world.grant(&vault, "users/alice", Permission::SecretsManage, place).await;
        let call = world.call(&vault, "users/alice").await;
        vault.create_secret(&call, scope(place), Ok(new("A", "one"))).await.expect("created");
        vault.create_secret(&call, scope(place), Ok(new("B", "two"))).await.expect("created");
    }
    let call = world.call(&vault, "users/alice").await;
    for name in ["projects/p/references/r", "projects/p/environments/-/references/r", "projects/p/manifests/m"] {
        vault.set_declaration(&call, declaration(name), Ok(declared(&["A"]))).await.expect("set");
    }
    world.call(&vault, "users/bob").await;
    let records = world.records().await;
    (world, records)
}

/// Whether a store of these records opens and every value in it, too.
pub(super) async fn opens(world: &World, records: &[Record]) -> bool {
    let store = Arc::new(Memory::new());
    let changes = records.iter().map(|record| Change::Put(record.key.clone(), record.value.clone())).collect();
    let id = TransactionId::random().expect("randomness");
    let transaction = Transaction { id, epoch: None, expectations: Vec::new(), changes };
    store.commit(transaction).await.expect("stored").expect("no conflict");
    let limits =
        crate::vault::Limits { memory_bytes: 1 << 30, sharing: crate::vault::Sharing::Own, calls: Default::default() };
    let opened =
        crate::vault::Vault::open(store, world.key.clone(), world.audit.clone(), world.clock.clone(), limits).await;
    let Ok(vault) = opened else { return false };
    let state = vault.view().read();
    let all = state.scopes_from("", None).flat_map(|scope| scope.owned_secrets().collect::<Vec<_>>());
    let values: Vec<_> = all.map(|secret| secret.open(state.store())).collect();
    values.iter().all(Result::is_ok)
}

#[tokio::test]
async fn no_record_can_take_the_place_of_another() {
    let (world, records) = furnished().await;
    assert!(opens(&world, &records).await, "as it is");
    for (a, first) in records.iter().enumerate() {
        for (b, second) in records.iter().enumerate().skip(a + 1) {
            let mut swapped = records.clone();
            swapped[a].value = second.value.clone();
            swapped[b].value = first.value.clone();
            assert!(!opens(&world, &swapped).await, "{} and {} changed places", first.key, second.key);
        }
    }
}

#[tokio::test]
async fn no_record_can_be_copied_to_a_key_of_the_writers_choice() {
    let (world, records) = furnished().await;
    let operator = key::grant("", &super::world::principal("users/bob"), Permission::Operator);
    for record in &records {
        let mut more = records.clone();
        more.push(Record { key: operator.clone(), ..record.clone() });
        assert!(!opens(&world, &more).await, "{} as a grant", record.key);
        let mut more = records.clone();
        more.push(Record { key: Key::new("secret/projects/p:C"), ..record.clone() });
        assert!(!opens(&world, &more).await, "{} as a secret", record.key);
        for forged in ["manifest/projects/p:forged", "reference/projects/p:forged", "pattern/projects/-"] {
            let mut more = records.clone();
            more.push(Record { key: Key::new(forged), ..record.clone() });
            assert!(!opens(&world, &more).await, "{} as {forged}", record.key);
        }
    }
    let mut more = records.clone();
    more.push(Record { key: Key::new("something/unknown"), ..records[0].clone() });
    assert!(!opens(&world, &more).await, "a record of no known kind");
}

#[tokio::test]
async fn every_edited_record_is_noticed() {
    let (world, records) = furnished().await;
    for at in 0..records.len() {
        let length = records[at].value.len();
        // Every byte would be slow here; `record` and `seal` flip every bit of one.
        for byte in [0, 1, length / 3, length / 2, length - 1] {
            let mut edited = records.clone();
            let mut value = edited[at].value.to_vec();
            value[byte] ^= 0x10;
            edited[at].value = value.into();
            assert!(!opens(&world, &edited).await, "byte {byte} of {}", records[at].key);
        }
    }
}

#[tokio::test]
async fn a_missing_key_is_noticed() {
    let (world, records) = furnished().await;
    for missing in [key::HEADER, key::SYSTEM_KEY, key::DIGEST, "key/scope/projects/p", "scope/projects/p"] {
        let rest: Vec<_> = records.iter().filter(|record| record.key.as_str() != missing).cloned().collect();
        assert!(!opens(&world, &rest).await, "{missing}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_nothing_is_touched() {
    let (mut world, before) = furnished().await;
    let dir = tempfile::tempdir().expect("a directory");
    let right = std::mem::replace(&mut world.key, Arc::new(KeyFile::generate(&dir.path().join("key")).expect("a key")));
    let refused = world.open().await.map(drop).expect_err("a wrong key").to_string();
    assert!(refused.contains(": wrong key: this store was sealed with file key "), "{refused}");
    assert_eq!(world.records().await, before);

    let operator = super::world::principal(OPERATOR);
    let over = init(world.store.clone(), world.key.as_ref(), world.audit.clone(), world.clock.clone(), &operator).await;
    assert!(matches!(over, Err(OpenError::NotEmpty)), "no key over existing data");
    assert_eq!(world.records().await, before);
    world.key = right;
    assert!(world.open().await.is_ok());
}

#[tokio::test]
async fn an_empty_store_is_told_from_a_damaged_one() {
    let mut world = World::new().await;
    world.store = Arc::new(Memory::new());
    assert!(matches!(world.open().await.map(drop), Err(OpenError::Empty)));
}
