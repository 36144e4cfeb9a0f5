//! Views that are kept up with the store, or are known not to be.

use std::{sync::Arc, time::Duration};

use coffer_proto::name::Permission;
use tokio::time::timeout;

use super::world::{World, list, new, scope};
use crate::{
    store::{Error as StoreError, faulty::Faulty, memory::Memory},
    vault::Serves,
};

const USER: &str = "users/alice";
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_after_a_gap_is_tried_until_the_store_answers() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let (here, there) = (world.vault().await, world.vault().await);
    world.grant(&here, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&here, USER).await;
    assert_eq!(list(&there, &call, "projects/p").await.expect("listed").len(), 0);
    faults.fail_reads(Some(StoreError::Unavailable("away".into())));
    faults.gap();
    // There are two views: some load is tried again.
    let refused = async {
        while faults.failed_reads() < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await
        }
    };
    timeout(PATIENCE, refused).await.expect("the views load again");
    faults.fail_reads(None);
    let written = timeout(PATIENCE, here.create_secret(&call, scope("projects/p"), Ok(new("A", "v")))).await;
    written.expect("its view goes on").expect("created");
    let listed = timeout(PATIENCE, list(&there, &call, "projects/p")).await.expect("its view goes on");
    assert_eq!(listed.expect("listed").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_follower_panics_has_failed() {
    let (store, faults) = Faulty::new(Memory::new());
    let world = World::on(Arc::new(store)).await;
    let vault = world.vault().await;
    world.grant(&vault, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vault, USER).await;
    let mut health = vault.watch_health();
    faults.panic();
    timeout(PATIENCE, health.wait_for(|serves| *serves == Serves::Nothing))
        .await
        .expect("it says so")
        .expect("the vault is there");
    let listed = timeout(PATIENCE, list(&vault, &call, "projects/p")).await.expect("an answer");
    assert!(listed.is_err(), "what it shows may be old");
}
