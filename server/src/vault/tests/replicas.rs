//! Two vaults on one store: together they break no limit, lose no update and let no revocation pass.

use std::sync::Arc;

use coffer_proto::{limits, name::Permission};

use super::world::{World, list, new, scope, secret, valued};
use crate::{
    record::Kind,
    store::embedded::{Embedded, Options},
    vault::{Error, NewSecret, ShownSecret},
};

const USER: &str = "users/alice";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_together_never_exceed_a_scopes_limit() {
    let world = World::new().await;
    let vaults = [world.vault().await, world.vault().await];
    world.grant(&vaults[0], USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vaults[0], USER).await;
    // Filled up to ten below the limit, then both race for the rest.
    let room = 10;
    for n in 0..limits::SCOPE_SECRETS - room {
        vaults[0].create_secret(&call, scope("projects/p"), Ok(new(&format!("S{n}"), "v"))).await.expect("created");
    }
    let tasks: Vec<_> = (0..2 * room)
        .map(|n| {
            let (vault, call) = (vaults[(n % 2) as usize].clone(), call.clone());
            tokio::spawn(async move {
                vault.create_secret(&call, scope("projects/p"), Ok(new(&format!("R{n}"), "v"))).await.map(drop)
            })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(()) => created += 1,
            Err(Error::ScopeFull(_) | Error::Contention) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(created <= room, "{created} created where {room} fit");
    let name = scope("projects/p");
    vaults[1].secret_stats(&call, name.clone().into()).await.expect("fresh");
    let held = vaults[1].view().read().scope(&name).map_or(0, |scope| scope.secrets.len() as u64);
    assert_eq!(held, limits::SCOPE_SECRETS - room + created, "what was answered is what is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etag_wins_once() {
    let world = World::new().await;
    let vaults = [world.vault().await, world.vault().await];
    world.grant(&vaults[0], USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&vaults[0], USER).await;
    let name = secret("projects/p/secrets/A");
    let mut etag =
        vaults[0].create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.expect("created").meta.etag();
    for round in 0..20 {
        let tasks: Vec<_> = (0..6)
            .map(|n| {
                let (vault, call, name, etag) = (vaults[n % 2].clone(), call.clone(), name.clone(), etag.clone());
                tokio::spawn(async move { vault.update_secret(&call, name, etag, Ok(valued(&format!("v{n}")))).await })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(shown) => winners.push(shown.meta.etag()),
                Err(Error::EtagMismatch | Error::Contention) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1, "round {round}");
        etag = winners.remove(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_after_a_revocation_was_answered() {
    let world = World::new().await;
    let (here, there) = (world.vault().await, world.vault().await);
    for round in 0..10 {
        let grant = world.grant(&here, USER, Permission::SecretsManage, "projects/p").await;
        let call = world.call(&here, USER).await;
        let writer = {
            let (vault, call) = (there.clone(), call.clone());
            tokio::spawn(async move {
                let mut written = 0;
                loop {
                    let new = new(&format!("R{round}_{written}"), "v");
                    match vault.create_secret(&call, scope("projects/p"), Ok(new)).await {
                        Ok(_) => written += 1,
                        Err(Error::Denied) => return written,
                        Err(Error::Contention) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        tokio::task::yield_now().await;
        let operator = world.call(&here, super::world::OPERATOR).await;
        here.delete_grant(&operator, grant).await.expect("revoked");
        let at_revocation = here.view().read().scope(&scope("projects/p")).map_or(0, |scope| scope.secrets.len());
        writer.await.expect("no panic");
        there.authenticate(&call).await.expect("fresh");
        let after = there.view().read().scope(&scope("projects/p")).map_or(0, |scope| scope.secrets.len());
        assert_eq!(at_revocation, after, "round {round}");
    }
}

#[tokio::test]
async fn a_write_is_seen_by_every_replica_at_once() {
    let world = World::new().await;
    let (here, there) = (world.vault().await, world.vault().await);
    world.grant(&here, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&here, USER).await;
    for n in 0..50 {
        here.create_secret(&call, scope("projects/p"), Ok(new(&format!("S{n}"), "v"))).await.expect("created");
        assert_eq!(list(&there, &call, "projects/p").await.expect("listed").len(), n + 1);
    }
    let id = call.credential.as_ref().expect("a token").token().clone();
    here.revoke_token(&call, id).await.expect("one's own");
    assert!(matches!(list(&there, &call, "projects/p").await, Err(Error::Unauthenticated(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_never_brings_back_what_was_deleted() {
    let world = World::new().await;
    let (here, there) = (world.vault().await, world.vault().await);
    world.grant(&here, USER, Permission::SecretsManage, "projects/p").await;
    let call = world.call(&here, USER).await;
    let name = secret("projects/p/secrets/A");
    for round in 0..100 {
        here.create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.expect("created");
        let update = {
            let (vault, call, name) = (there.clone(), call.clone(), name.clone());
            tokio::spawn(
                async move { vault.update_secret(&call, name, String::new(), Ok(valued("w"))).await.map(drop) },
            )
        };
        // One of the two is overtaken and decides again; a delete that is told "deleted" is the end of it.
        here.delete_secret(&call, name.clone(), String::new(), false).await.expect("deleted");
        let updated = update.await.expect("no panic");
        assert!(matches!(updated, Ok(()) | Err(Error::SecretNotFound(_))), "round {round}: {updated:?}");
        let left = list(&here, &call, "projects/p").await.expect("listed").len();
        assert_eq!(left, 0, "round {round}");
    }
}

/// Every answer of concurrent read-and-update turns fits one order of them: each success counted one up from what stood
/// there, so the last number is the number of successes, and no number was written twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_up_by_etag_loses_no_count() {
    const COUNTERS: [&str; 3] = ["A", "B", "C"];
    const TURNS: usize = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    Embedded::create(&data).await.expect("created");
    let embedded = Embedded::open(&data, Options::default()).await.expect("opens");
    for world in [World::new().await, World::on(Arc::new(embedded)).await] {
        let vaults = [world.vault().await, world.vault().await];
        world.grant(&vaults[0], USER, Permission::SecretsManage, "projects/p").await;
        let call = world.call(&vaults[0], USER).await;
        for counter in COUNTERS {
            let plain = NewSecret { kind: Kind::Plain, ..new(counter, "0") };
            vaults[0].create_secret(&call, scope("projects/p"), Ok(plain)).await.map(drop).expect("created");
        }
        let tasks: Vec<_> = (0..6)
            .map(|n| {
                let (vault, call) = (vaults[n % 2].clone(), call.clone());
                tokio::spawn(async move {
                    let mut written = Vec::new();
                    for turn in 0..TURNS {
                        let counter = COUNTERS[(turn + n) % COUNTERS.len()];
                        let name = secret(&format!("projects/p/secrets/{counter}"));
                        let seen = vault.get_secret(&call, name.clone()).await.expect("there");
                        let next = count(&seen) + 1;
                        let change = Ok(valued(&next.to_string()));
                        match vault.update_secret(&call, name, seen.meta.etag(), change).await {
                            Ok(_) => written.push((counter, next)),
                            Err(Error::EtagMismatch | Error::Contention) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    written
                })
            })
            .collect();
        let mut written = Vec::new();
        for task in tasks {
            written.extend(task.await.expect("no panic"));
        }
        written.sort_unstable();
        for counter in COUNTERS {
            let numbers: Vec<u64> =
                written.iter().filter(|(of, _)| *of == counter).map(|(_, number)| *number).collect();
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{counter}");
            for vault in &vaults {
                let seen =
                    vault.get_secret(&call, secret(&format!("projects/p/secrets/{counter}"))).await.expect("there");
                assert_eq!(count(&seen), numbers.len() as u64, "{counter}");
            }
        }
    }
}

fn count(shown: &ShownSecret) -> u64 {
    let value = shown.value.as_ref().expect("plain");
    value.expose().parse().expect("a number")
}

/// A platform that starts many things at once makes many scopes below one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_below_one_are_made_side_by_side() {
    let world = World::new().await;
    let vaults = [world.vault().await, world.vault().await];
    for pattern in ["projects/p", "projects/p/environments/-"] {
        world.grant(&vaults[0], USER, Permission::SecretsManage, pattern).await;
    }
    let call = world.call(&vaults[0], USER).await;
    vaults[0].create_secret(&call, scope("projects/p"), Ok(new("A", "v"))).await.map(drop).expect("created");
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let (vault, call) = (vaults[n % 2].clone(), call.clone());
            let place = scope(&format!("projects/p/environments/e{n}"));
            tokio::spawn(async move { vault.create_secret(&call, place, Ok(new("A", "v"))).await.map(drop) })
        })
        .collect();
    for round in 0..20 {
        let above =
            vaults[0].update_secret(&call, secret("projects/p/secrets/A"), String::new(), Ok(valued("w"))).await;
        assert_eq!(above.map(drop), Ok(()), "round {round}");
    }
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Ok(()));
    }
}
