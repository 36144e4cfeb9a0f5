//! Members that answer late, or not at all.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::timeout;

use super::{
    proxy::{Mode, Proxy},
    server::Server,
    soon,
};
use crate::store::{
    Store as _, Writes,
    conformance::{put, transaction},
    etcd::Etcd,
};

/// How long a call waits for the position of the store.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// A store that was reached through each of so many proxies.
async fn behind(proxies: usize) -> (Server, Vec<Proxy>, Etcd) {
    let server = Server::start();
    server.create("coffer/").await;
    let mut options = server.options("coffer/");
    options.endpoints.clear();
    let mut all = Vec::new();
    for _ in 0..proxies {
        let proxy = Proxy::start(server.port).await;
        options.endpoints.push(format!("http://127.0.0.1:{}", proxy.port));
        all.push(proxy);
    }
    let store = Etcd::open(options).await.expect("open");
    for member in 0..proxies {
        store.0.cluster.prefer(member);
        store.latest().await.expect("latest");
    }
    store.0.cluster.prefer(0);
    (server, all, store)
}

#[tokio::test]
async fn a_slow_cluster_is_waited_for() {
    let (_server, proxies, store) = behind(3).await;
    let before = store.latest().await.expect("latest");
    for late_ms in [300, 450] {
        for proxy in &proxies {
            proxy.set(Mode::Slow(Duration::from_millis(late_ms)));
        }
        for _ in 0..2 {
            // The second leaves little for a busy machine; that it comes at all is what counts.
            let max = if late_ms < 400 { LOOK_MAX } else { 2 * LOOK_MAX };
            assert!(timeout(max, store.latest()).await.is_ok_and(|latest| latest.is_ok()), "{late_ms}");
        }
        // Whoever has lost an answer asks first.
        store.0.suspect.store(true, Ordering::Relaxed);
        let position = soon(store.commit(transaction([put("key", "")]))).await.expect("commit").expect("no conflict");
        assert!(position > before);
        assert_eq!(soon(store.condition()).await.writes, Writes::All, "{late_ms}");
    }
}

#[tokio::test]
async fn a_slow_member_is_not_asked_for_new_connections() {
    let (_server, proxies, store) = behind(1).await;
    proxies[0].set(Mode::Slow(Duration::from_millis(600)));
    let before = proxies[0].connections();
    for _ in 0..3 {
        let mut look = store.latest();
        assert!(timeout(LOOK_MAX, &mut look).await.is_err(), "it is too slow for a call");
        assert!(soon(look).await.is_ok(), "but it answers");
    }
    assert_eq!(proxies[0].connections(), before);
}

#[tokio::test]
async fn members_that_say_nothing_cost_little() {
    let (_server, proxies, store) = behind(3).await;
    let silent = &proxies[..2];
    for proxy in silent {
        proxy.set(Mode::LoseAnswers);
    }
    for _ in 0..3 {
        assert!(timeout(LOOK_MAX, store.latest()).await.is_ok_and(|latest| latest.is_ok()));
    }
    assert_eq!(store.0.cluster.preferred(), 2, "who answered is asked first");
    // A connection that is dead without a word is made anew.
    proxies[2].set(Mode::LoseAnswers);
    assert!(soon(store.latest()).await.is_ok());
}
