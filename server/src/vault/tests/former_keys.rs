//! A key that was rotated away counts for nothing any more, whatever whoever writes the store puts beside those of now.

use std::collections::BTreeMap;

use super::{
    rotation::{named_keys, rotate},
    tampering::{furnished, opens},
    world::World,
};
use crate::{
    record::key,
    seal::{Keyring, Uid, header},
    store::{Change, Epoch, Key, Next, Position, Record, Revision},
    vault::RotatedKeys,
    view::Examiner,
};

/// Everything that ever stood under each key.
async fn history(world: &World) -> BTreeMap<Key, Vec<std::sync::Arc<[u8]>>> {
    let mut found: BTreeMap<Key, Vec<_>> = BTreeMap::new();
    let last = world.store.latest().await.expect("known");
    let mut follow = world.store.changes(Position { epoch: Epoch(1), revision: Revision(0) }).await.expect("followed");
    loop {
        let Next::Commit(commit) = follow.next().await.expect("followed") else { panic!("nothing is forgotten") };
        for change in commit.changes.iter() {
            if let Change::Put(key, value) = change {
                found.entry(key.clone()).or_default().push(value.clone());
            }
        }
        if commit.position == last {
            return found;
        }
    }
}

/// The records with another in the place of one, or beside them.
fn with(records: &[Record], key: &str, value: &[u8]) -> Vec<Record> {
    let mut records = records.to_vec();
    match records.iter_mut().find(|record| record.key.as_str() == key) {
        Some(record) => record.value = value.into(),
        None => records.push(Record { key: Key::new(key), value: value.into(), revision: Revision(1) }),
    }
    records
}

fn value<'a>(records: &'a [Record], key: &str) -> &'a [u8] {
    &records.iter().find(|record| record.key.as_str() == key).expect("there").value
}

/// Whether a verification with the key finds them whole.
async fn is_whole(world: &World, records: &[Record]) -> bool {
    let Some(header) = records.iter().find(|record| record.key.as_str() == key::HEADER) else { return false };
    let Ok(keyring) = header::open(world.key.as_ref(), &header.value).await else { return false };
    let mut examiner = Examiner::new(keyring);
    records.iter().filter(|record| Examiner::is_key(record)).all(|record| examiner.learn(record).is_ok())
        && examiner.check_keys().is_ok()
        && records.iter().all(|record| examiner.check(record).is_ok())
}

/// What somebody has who once had the root key: all that it ever wrapped.
async fn leaked(world: &World, records: &[Record]) -> Keyring {
    header::open(world.key.as_ref(), value(records, key::HEADER)).await.expect("opens")
}

#[tokio::test]
async fn a_root_key_that_leaked_and_was_rotated_away_makes_nothing() {
    let (world, before) = furnished().await;
    let leaked = leaked(&world, &before).await;
    let vault = world.vault().await;
    for keys in [RotatedKeys::Root, RotatedKeys::Data, RotatedKeys::Root] {
        rotate(&world, &vault, keys).await;
    }
    drop(vault);
    let now = world.records().await;
    assert!(opens(&world, &now).await, "as it is");
    let place = "key/scope/projects/p";
    let own = Uid(value(&now, place)[..16].try_into().expect("a uid"));
    let (_, system) = leaked.create_data_key(key::SYSTEM_KEY, Uid::NONE, 1).expect("randomness");
    let (_, scope) = leaked.create_data_key(place, own, 1).expect("randomness");
    let foreign = "key/scope/projects/forged";
    let (_, other) = leaked.create_data_key(foreign, Uid([7; 16]), 1).expect("randomness");
    let old = value(&before, key::HEADER);
    for (name, forged) in [(key::SYSTEM_KEY, system), (place, scope), (foreign, other)] {
        assert!(!opens(&world, &with(&now, name, &forged)).await, "{name}");
        assert!(!opens(&world, &with(&with(&now, name, &forged), key::HEADER, old)).await, "{name} and the old header");
    }
    // What was wrapped apart could stand side by side: the old bytes after the new ones, in the words of the format.
    let both = [value(&now, key::HEADER), old].concat();
    let opened = header::open(world.key.as_ref(), &both).await;
    assert!(opened.is_err() || opened.is_ok_and(|opened| !opened.has_old_root()), "never two roots");
    assert!(!opens(&world, &with(&now, key::HEADER, &both)).await);
}

#[tokio::test]
async fn no_key_and_no_record_of_a_rotation_can_be_put_back() {
    let (world, _) = furnished().await;
    let vault = world.vault().await;
    for keys in [RotatedKeys::Data, RotatedKeys::Root, RotatedKeys::Data, RotatedKeys::Data] {
        rotate(&world, &vault, keys).await;
    }
    drop(vault);
    let now = world.records().await;
    assert!(opens(&world, &now).await, "as it is");
    assert!(is_whole(&world, &now).await, "as it is");
    let mut tried = 0;
    for (name, values) in history(&world).await {
        let name = name.as_str();
        if !(name.starts_with(key::DATA_KEYS) || [key::HEADER, key::ROTATION].contains(&name)) {
            continue;
        }
        for old in values.iter().filter(|old| ***old != *value(&now, name)) {
            assert!(!opens(&world, &with(&now, name, old)).await, "{name}");
            assert!(!is_whole(&world, &with(&now, name, old)).await, "{name}");
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
    for gone in [key::ROTATION, key::HEADER] {
        let rest: Vec<_> = now.iter().filter(|record| record.key.as_str() != gone).cloned().collect();
        assert!(!opens(&world, &rest).await, "{gone}");
        assert!(!is_whole(&world, &rest).await, "{gone}");
    }
}

#[tokio::test]
async fn what_two_headers_wrapped_together_is_none_of_now() {
    let (world, before) = furnished().await;
    let vault = world.vault().await;
    rotate(&world, &vault, RotatedKeys::Root).await;
    drop(vault);
    let now = world.records().await;
    let headers = history(&world).await.remove(&Key::new(key::HEADER)).expect("there");
    // Of a rotation under way, the new root key and the one before it.
    let both = headers
        .iter()
        .find(|header| ***header != *value(&now, key::HEADER) && ***header != *value(&before, key::HEADER));
    let both = both.expect("two steps");
    assert!(header::open(world.key.as_ref(), both).await.expect("opens").has_old_root());
    let old_scope = value(&before, "key/scope/projects/p");
    assert!(!opens(&world, &with(&with(&now, key::HEADER, both), "key/scope/projects/p", old_scope)).await);
}

#[tokio::test]
async fn each_rotation_of_data_keys_replaces_them_all() {
    let (world, _) = furnished().await;
    let vault = world.vault().await;
    for _ in 0..3 {
        let old = named_keys(&world).await;
        rotate(&world, &vault, RotatedKeys::Data).await;
        // The root key wraps as before.
        assert_eq!(named_keys(&world).await.intersection(&old).count(), 1);
        assert!(vault.rotation().expect("there").done > 0);
    }
}
