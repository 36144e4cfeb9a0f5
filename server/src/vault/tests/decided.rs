//! Decisions that a restore overtakes: what they rest on may be something else by then.

use std::{sync::Arc, time::Duration};

use coffer_proto::name::Permission;
use tokio::time::timeout;

use super::world::{OPERATOR, World, new, scope};
use crate::{
    store::{
        faulty::{Fault, Faults, Faulty},
        memory::Memory,
    },
    vault::{Call, Error, RotatedKeys, Vault},
};

const OWNER: &str = "users/owner";
const PATIENCE: Duration = Duration::from_secs(30);

async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("in time");
}

/// A vault on a store that can be restored and fail, and a call of somebody who may manage its secrets.
async fn scene() -> (Memory, Faults, World, Vault, Call) {
    let memory = Memory::new();
    let (store, faults) = Faulty::new(memory.clone());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    world.grant(&vault, OWNER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, OWNER).await;
    (memory, faults, world, vault, call)
}

/// The epoch rises while a transaction is on its way, and nothing but the epoch tells.
fn overtake(memory: &Memory, faults: &Faults) {
    memory.raise_epoch();
    faults.release();
}

#[tokio::test]
async fn a_change_that_was_decided_before_a_restore_is_not_made_after_it() {
    let (memory, faults, world, vault, call) = scene().await;
    let before = world.records().await;
    faults.next(Fault::Hang);
    let creating = vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v")));
    let overtaking = async {
        until(|| faults.planned() == 0).await;
        overtake(&memory, &faults);
    };
    let (created, ()) = tokio::join!(creating, overtaking);
    assert!(matches!(created.map(drop), Err(Error::StoreUnavailable(_))));
    assert_eq!(world.records().await, before);
}

#[tokio::test]
async fn a_rotation_that_a_restore_overtakes_goes_on_after_it() {
    for keys in [RotatedKeys::Root, RotatedKeys::Data] {
        let (memory, faults, world, vault, call) = scene().await;
        vault.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.map(drop).expect("created");
        let call = world.call(&vault, OPERATOR).await;
        // The first one begins it.
        faults.next(Fault::Delay(Duration::ZERO));
        faults.next(Fault::Hang);
        drop(vault.rotate_keys(&call, keys).await.expect("begun"));
        until(|| faults.planned() == 0).await;
        let before = world.records().await;
        overtake(&memory, &faults);
        until(|| faults.hung() == 1).await;
        assert_eq!(world.records().await, before);
        faults.gap();
        until(|| vault.rotation().is_some_and(|rotation| rotation.end.is_some())).await;
    }
}
