//! Ten thousand idle watches: what they take of the server, whom a change wakes, and how soon they end with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use coffer_client::Client;
use coffer_proto::v1::{self, workloads_client::WorkloadsClient};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

use crate::harness::{Server, secret, until_async};

/// Workloads, each with a token of its own, because a principal has 8 watches.
const WORKLOADS: usize = 1_250;
const WATCHES_EACH: usize = 8;
const WATCHES: usize = WORKLOADS * WATCHES_EACH;
/// Streams of one connection.
const STREAMS: usize = 128;
/// What an idle watch may take of the server's memory, in bytes: task, stream, buffers, and what it listens to.
const WATCH_BYTES: usize = 16 * 1024;
/// Calls at once while everything is set up.
const AT_ONCE: usize = 64;

/// What the watches of one test were told, all together.
#[derive(Default)]
struct Counts {
    messages: AtomicUsize,
    ends: AtomicUsize,
    wrong: AtomicUsize,
}

fn workload(n: usize) -> String {
    format!("projects/p{n}/servers/s")
}

/// A field of `/proc/{pid}/status`, in KiB.
fn status_kib(server: &Server, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number")
}

/// How many descriptors the server has open. Nothing where only a privileged process may count those of an undumpable
/// one, its parent or not.
fn descriptors(server: &Server) -> Option<usize> {
    match std::fs::read_dir(format!("/proc/{}/fd", server.pid())) {
        Ok(descriptors) => Some(descriptors.count()),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "it runs");
            #[allow(clippy::print_stderr, reason = "what is left out says so")]
            {
                eprintln!("the server's descriptors are not counted in this run: {error}");
            }
            None
        }
    }
}

/// A secret and a token for each workload.
async fn set_up(server: &Server) -> (Client, Vec<String>) {
    let manager = server.with("users/manager", &[("secrets:manage", "projects/-")]).await;
    let issuer = server.with("services/issuer", &[("workloads:issue", "projects/-")]).await;
    let mut tokens = Vec::new();
    let all: Vec<usize> = (0..WORKLOADS).collect();
    for batch in all.chunks(AT_ONCE) {
        let made = batch.iter().map(|n| {
            let (manager, issuer, n) = (manager.clone(), issuer.clone(), *n);
            tokio::spawn(async move {
                let new = secret(&format!("projects/p{n}"), "KEY", "v");
                manager.secrets().create_secret(new).await.expect("created");
                let request = v1::IssueTokenRequest { principal: workload(n), ..Default::default() };
                issuer.tokens().issue_token(request).await.expect("issued").into_inner().token
            })
        });
        for token in made.collect::<Vec<_>>() {
            tokens.push(token.await.expect("set up"));
        }
    }
    (manager, tokens)
}

/// Opens a watch and counts what it tells, in a task of its own.
async fn watch(channel: Channel, token: &str, counts: Arc<Counts>) {
    let mut request = Request::new(v1::WatchEnvironmentRequest::default());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    let mut stream = WorkloadsClient::new(channel).watch_environment(request).await.expect("a watch").into_inner();
    tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(_)) => counts.messages.fetch_add(1, Ordering::Relaxed),
                Err(status) if status.code() == Code::Unavailable && status.message().contains("server ends") => {
                    counts.ends.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(None) | Err(_) => {
                    counts.wrong.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            };
        }
    });
}

async fn until_told(counts: &Counts, messages: usize) {
    let told = async || (counts.messages.load(Ordering::Relaxed) >= messages).then_some(());
    until_async("the messages", told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_watches() {
    let mut server = Server::start();
    let (manager, tokens) = set_up(&server).await;
    let (memory, open) = (status_kib(&server, "VmRSS"), descriptors(&server));

    let counts = Arc::new(Counts::default());
    let socket = server.socket();
    for tokens in tokens.chunks(STREAMS / WATCHES_EACH) {
        let channel = Endpoint::from_shared(socket.clone()).expect("a URI").connect().await.expect("connects");
        let opened = tokens.iter().flat_map(|token| std::iter::repeat_n(token, WATCHES_EACH)).map(|token| {
            let (channel, token, counts) = (channel.clone(), token.clone(), Arc::clone(&counts));
            tokio::spawn(async move { watch(channel, &token, counts).await })
        });
        for opened in opened.collect::<Vec<_>>() {
            opened.await.expect("a watch");
        }
    }
    until_told(&counts, WATCHES).await;
    let each = (status_kib(&server, "VmRSS") - memory) * 1024 / WATCHES;
    assert!(each <= WATCH_BYTES, "{each} bytes a watch");
    let connections = WATCHES.div_ceil(STREAMS);
    if let (Some(open), Some(now)) = (open, descriptors(&server)) {
        assert!(now <= open + connections + 10, "{now} descriptors, {open} before");
    }

    // A change is told to those whose it is, and to nobody else: after the second one there is nothing but both.
    for (n, messages) in [(7, WATCHES + WATCHES_EACH), (WORKLOADS - 1, WATCHES + 2 * WATCHES_EACH)] {
        let (name, value) = (format!("projects/p{n}/secrets/KEY"), Some(b"2".to_vec()));
        let request = v1::UpdateSecretRequest { name, value, ..Default::default() };
        manager.secrets().update_secret(request).await.expect("updated");
        until_told(&counts, messages).await;
    }
    assert_eq!(counts.messages.load(Ordering::Relaxed), WATCHES + 2 * WATCHES_EACH);

    let start = Instant::now();
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let ended = async || (counts.ends.load(Ordering::Relaxed) == WATCHES).then_some(());
    until_async("every end", ended).await;
    assert_eq!(counts.wrong.load(Ordering::Relaxed), 0);
}
