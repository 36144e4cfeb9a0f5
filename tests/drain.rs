//! SIGTERM: what has begun is finished, nothing new begins, and the exit status is 0.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use coffer_proto::v1;
use rustix::process::Signal;

use crate::harness::{Server, secret, until, until_async};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_server_lost_no_call_and_exits_zero() {
    let mut server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    let count = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (manager, count) = (manager.clone(), count.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in 0..10_000u32 {
                    let name = format!("W{writer}_{}", n % 200);
                    let request = v1::ImportSecretsRequest {
                        parent: "projects/p".into(),
                        entries: vec![v1::ImportEntry {
                            secret_id: name.clone(),
                            value: n.to_string().into_bytes(),
                            ..Default::default()
                        }],
                        conflict: v1::import_secrets_request::Conflict::Replace.into(),
                        validate_only: false,
                        sharing: None,
                    };
                    if manager.imports().import_secrets(request).await.is_err() {
                        break;
                    }
                    acknowledged.push((name, n));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                acknowledged
            })
        })
        .collect();
    until_async("writes to be under way", async || (count.load(Ordering::Relaxed) > 100).then_some(())).await;
    assert_eq!(server.stop().await.code(), Some(0));
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("it ends"));
    }
    assert!(!acknowledged.is_empty());
    server.run();
    let found: BTreeMap<_, _> = server.environment("projects/p/servers/s").await.into_iter().collect();
    for (name, value) in acknowledged {
        let there = found.get(&name).expect("acknowledged");
        // The call that was under way when the server went may have happened as well.
        assert!(there.parse::<u32>().expect("a number") >= value, "{name}");
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_drain_up() {
    let mut server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "v")).await.expect("created");
    let start = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start();
    // A connection that never says anything keeps a drain waiting.
    let address = server.address();
    let idle = TcpStream::connect(address.trim_start_matches("http://")).expect("connected");
    server.signal(Signal::INT);
    // Two pending signals of a kind are one.
    until("the first to be taken", || server.log().contains("told to end").then_some(()));
    server.signal(Signal::INT);
    let start = Instant::now();
    server.wait();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(idle);
    until("the port to be free", || TcpStream::connect(address.trim_start_matches("http://")).err().map(drop));
}
