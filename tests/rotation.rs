//! Keys are rotated while writers write, and the server is killed at any point of it: nothing is lost, the rotation ends,
//! and what was issued before goes on.

use std::{collections::BTreeSet, time::Duration};

use coffer_client::Client;
use coffer_proto::v1::{self, RotatedKeys};

use crate::harness::{Ledger, Server, until_async};

/// How often the server is killed.
const KILLS: u32 = 40;
const WRITERS: usize = 4;
/// Scopes that nobody writes to meanwhile, so that there is something to rotate.
const RESTING: usize = 150;

async fn keys(client: &Client) -> v1::KeyStatus {
    let status = client.operations().get_status(v1::GetStatusRequest {}).await.expect("told").into_inner();
    status.keys.expect("always there")
}

/// Rotates; how far it came before the server was gone.
async fn rotate(client: Client, keys: RotatedKeys) -> Option<v1::Rotation> {
    let request = v1::RotateKeysRequest { keys: keys.into() };
    let mut stream = client.operations().rotate_keys(request).await.ok()?.into_inner();
    let mut last = None;
    while let Ok(Some(message)) = stream.message().await {
        let rotation = message.rotation.expect("always there");
        assert!(rotation.done <= rotation.total, "{rotation:?}");
        last = Some(rotation);
    }
    last
}

fn is_done(rotation: Option<&v1::Rotation>) -> bool {
    rotation.is_some_and(|rotation| rotation.end_time.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_killed_under_load_loses_nothing_and_ends() {
    let mut server = Server::start();
    server.grant("users/writer", "secrets:manage", "projects/-").await;
    server.grant("services/injector", "secrets:inject", "projects/-").await;
    let writer = server.token("users/writer").await;
    let injector = server.token("services/injector").await;
    let operator = server.operator_token();
    let mut resting = Ledger::several(WRITERS + RESTING);
    let mut ledgers: Vec<_> = resting.drain(..WRITERS).collect();
    for ledger in &mut resting {
        ledger.step(&server.socket_client(&writer)).await.expect("written");
    }
    let mut roots = BTreeSet::from([keys(&server.socket_client(&operator)).await.root_key_id]);
    let (mut cut_off, mut pause_us) = (0, 1);
    for round in 0..KILLS {
        let which = if round % 2 == 0 { RotatedKeys::Data } else { RotatedKeys::Root };
        let writing: Vec<_> =
            ledgers.drain(..).map(|ledger| tokio::spawn(ledger.write(server.socket_client(&writer)))).collect();
        let rotating = tokio::spawn(rotate(server.socket_client(&operator), which));
        // From at once to when it is long over, no two alike: a generator of the whole period.
        pause_us = (pause_us * 21_001 + 12_347) % 200_000;
        tokio::time::sleep(Duration::from_micros(pause_us)).await;
        server.kill();
        for task in writing {
            ledgers.push(task.await.expect("the writer ends with the connection"));
        }
        let seen = rotating.await.expect("it ends with the connection");
        server.run();
        let client = server.socket_client(&operator);
        cut_off += u32::from(seen.is_some() && !is_done(seen.as_ref()));
        let ends = async || {
            let keys = keys(&client).await;
            keys.rotation.as_ref().is_none_or(|rotation| is_done(Some(rotation))).then_some(keys)
        };
        let keys = until_async("the rotation to end", ends).await;
        assert!(seen.is_none() || keys.rotation.is_some(), "what was told to have begun has");
        roots.insert(keys.root_key_id);
        let client = server.socket_client(&injector);
        for ledger in ledgers.iter_mut().chain(&mut resting) {
            ledger.settle(&client).await;
        }
    }
    assert!(cut_off > KILLS / 4, "the kills met hardly a rotation: {cut_off}");
    assert!(roots.len() > 2, "the root key hardly changed: {roots:?}");
    let client = server.socket_client(&operator);
    for which in [RotatedKeys::Data, RotatedKeys::Root] {
        let rotation = rotate(client.clone(), which).await.expect("it is told");
        assert!(is_done(Some(&rotation)) && rotation.done == rotation.total, "{rotation:?}");
    }
    let client = server.socket_client(&injector);
    for ledger in ledgers.iter_mut().chain(&mut resting) {
        ledger.settle(&client).await;
    }
}
