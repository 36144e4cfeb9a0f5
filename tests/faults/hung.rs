//! A sync that hangs: who writes waits, who reads does not.

use std::time::Duration;

use coffer_proto::v1::store_status::Writes;

use super::stage::{Fault, On, Outcome, Stage};
use crate::harness::until_async;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_sync_hangs_writes_time_out_and_reads_go_on() {
    let mut stage = Stage::set().await;
    // Longer than the client waits, in microseconds.
    let fault = Fault { on: On::Log, call: "fdatasync", what: "delay_enter=5000000", when: "3".into() };
    stage.start(&fault).expect("it starts");
    stage.patience = Duration::from_secs(2);
    let mut hung = false;
    for _ in 0..5 {
        match stage.create().await {
            Outcome::Acknowledged => {}
            Outcome::Open => {
                hung = true;
                break;
            }
            other @ Outcome::Refused(_) => panic!("{other:?}"),
        }
    }
    assert!(hung, "one of the first writes hangs");
    stage.reads_go_on().await;
    assert_eq!(stage.says().await.0, Writes::All, "it has not failed: it waits");
    until_async("writes to go on", async || matches!(stage.create().await, Outcome::Acknowledged).then_some(())).await;
    stage.recover(true).await;
}
