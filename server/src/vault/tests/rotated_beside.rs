//! What another server does while keys are rotated: nothing that it deletes comes back, and nothing that it decided under
//! keys of before is left under them.

use std::{sync::Arc, time::Duration};

use coffer_proto::name::Permission;

use super::{
    rotation::{finish, found, rotate},
    world::{OPERATOR, World, new, scope},
};
use crate::{
    store::{
        faulty::{Fault, Faults, Faulty},
        memory::Memory,
    },
    vault::{RotatedKeys, Vault},
};

const USER: &str = "users/alice";

/// Two servers of one store whose commits may be held up, and somebody who owns two projects.
async fn two() -> (World, [Vault; 2], Faults) {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vaults = [world.vault().await, world.vault().await];
    for permission in [Permission::SecretsManage, Permission::AccessManage] {
        world.grant(&vaults[1], USER, permission, "projects/-").await;
    }
    let owner = world.call(&vaults[1], USER).await;
    for place in ["projects/kept", "projects/gone"] {
        vaults[1].create_secret(&owner, scope(place), Ok(new("A", "v"))).await.map(drop).expect("created");
    }
    (world, vaults, faults)
}

/// Waits until a planned fault is met, or there is nothing that could meet it.
async fn met(faults: &Faults, is_over: impl Fn() -> bool) {
    let met = async {
        while faults.planned() > 0 && !is_over() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_deleted_while_a_commit_is_on_its_way_comes_back() {
    for keys in [RotatedKeys::Data, RotatedKeys::Root] {
        let mut at = 0;
        while deleted_meanwhile(keys, at).await {
            at += 1;
        }
        assert!(at > 1, "{keys:?}: it has a beginning and an end");
    }
}

/// `false` if the rotation has no such commit.
async fn deleted_meanwhile(keys: RotatedKeys, at: usize) -> bool {
    let (world, [vault, other], faults) = two().await;
    let token = world.issue(&other, OPERATOR, "users/bob").await.expect("issued");
    for _ in 0..at {
        faults.next(Fault::Delay(Duration::ZERO));
    }
    faults.next(Fault::Hang);
    let begun = tokio::spawn({
        let (vault, call) = (vault.clone(), world.held(OPERATOR));
        async move { vault.rotate_keys(&call, keys).await.map(drop) }
    });
    met(&faults, || vault.rotation().is_some_and(|rotation| rotation.end.is_some())).await;
    let is_met = faults.planned() == 0;
    faults.clear();
    other.revoke_token(&world.held(OPERATOR), token.id().clone()).await.expect("revoked");
    other.delete_scope(&world.held(USER), scope("projects/gone"), String::new()).await.expect("deleted");
    faults.release();
    begun.await.expect("no panic").expect("begun");
    finish(&vault).await;
    let records = world.records().await;
    let left: Vec<_> = records.iter().map(|record| record.key.as_str()).collect();
    let is_deleted = |key: &&&str| key.contains("projects/gone") || key.contains("users/bob");
    assert_eq!(left.iter().find(is_deleted), None, "{keys:?} {at}: {left:?}");
    is_met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_under_keys_of_before_is_decided_again() {
    for keys in [RotatedKeys::Data, RotatedKeys::Root] {
        for write in 0..4 {
            let (world, [vault, other], faults) = two().await;
            let owner = world.held(USER);
            faults.next(Fault::Hang);
            let writing = async {
                let create = async |place| vault.create_secret(&owner, scope(place), Ok(new("B", "v"))).await.map(drop);
                match write {
                    0 => drop(world.grant(&vault, "users/bob", Permission::SecretsRead, "projects/kept").await),
                    1 => drop(world.issue(&vault, OPERATOR, "users/bob").await.expect("issued")),
                    2 => create("projects/kept").await.expect("created"),
                    _ => create("projects/new").await.expect("created"),
                }
            };
            let rotating = async {
                met(&faults, || false).await;
                rotate(&world, &other, keys).await;
                faults.release();
            };
            tokio::join!(writing, rotating);
            let after = found(&world).await;
            assert_eq!(after.len(), if write < 2 { 2 } else { 3 }, "{keys:?} {write}: all opens");
        }
    }
}
