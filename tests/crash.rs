//! An acknowledged write survives `kill -9`, and one that was not acknowledged happened wholly or not at all.
//!
//! Writers keep a ledger of what the server acknowledged; the server is killed under them again and again, and after
//! each restart everything is compared.

use std::time::Duration;

use crate::harness::{Ledger, Server};

/// How often the server is killed.
const KILLS: u32 = 220;
const WRITERS: usize = 4;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_hundreds_of_kills() {
    let mut server = Server::start();
    server.grant("users/writer", "secrets:manage", "projects/-").await;
    server.grant("services/injector", "secrets:inject", "projects/-").await;
    let writer = server.token("users/writer").await;
    let injector = server.token("services/injector").await;
    let mut ledgers = Ledger::several(WRITERS);
    let mut pause_us = 1;
    for _ in 0..KILLS {
        let writing: Vec<_> =
            ledgers.drain(..).map(|ledger| tokio::spawn(ledger.write(server.socket_client(&writer)))).collect();
        // From at once to in the middle of everything, no two alike: a generator of the whole period.
        pause_us = (pause_us * 21_001 + 12_347) % 40_000;
        tokio::time::sleep(Duration::from_micros(pause_us)).await;
        server.kill();
        for task in writing {
            ledgers.push(task.await.expect("the writer ends with the connection"));
        }
        server.run();
        let client = server.socket_client(&injector);
        for ledger in &mut ledgers {
            ledger.settle(&client).await;
        }
    }
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.acknowledged).sum();
    assert!(acknowledged > u64::from(KILLS), "the kills left hardly a write to lose: {acknowledged}");
}
