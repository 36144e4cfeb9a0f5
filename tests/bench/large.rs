//! How a server on etcd bears a million secrets: what they take in etcd and in memory, and how long it loads them.
//!
//! `cargo build --release --bins && cargo bench -p coffer-tests --bench large`. Needs 3 GB of disk and memory and some
//! minutes; server, etcd and the client share the machine's cores.

#![allow(clippy::print_stdout, reason = "a table is what it is for")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the harness of the behaviour tests")]
mod harness;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use coffer_client::Client;
use coffer_proto::v1;
use tonic::Code;

use harness::{Etcd, Server, client_at};

/// Accounts, each a scope.
const SCOPES: u64 = 100_000;
/// Secrets of each.
const SECRETS: usize = 10;
/// Size of each value, in bytes, like that of a token.
const VALUE_BYTES: usize = 64;
/// Callers at once.
const CALLERS: u64 = 32;

#[tokio::main]
async fn main() {
    let total = SCOPES as f64 * SECRETS as f64;
    let etcd = Etcd::start(1);
    let mut server = Server::builder().on(etcd.config("")).start();
    server.grant("users/manager", "secrets:manage", "accounts/-").await;
    let manager = client_at(&server.socket(), &server.token("users/manager").await, None);
    let before = (etcd_bytes(&etcd), memory_bytes(&server));

    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(import(manager.clone(), Arc::clone(&next)))).collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    let took = began.elapsed();
    println!("{total:.0} secrets of {VALUE_BYTES} bytes in {SCOPES} scopes, {SECRETS} each");
    println!("written in {:.0} s: {:.0} secrets a second", took.as_secs_f64(), total / took.as_secs_f64());
    println!("in etcd, with all history:  {:>6.0} bytes a secret", (etcd_bytes(&etcd) - before.0) as f64 / total);
    compact(&etcd);
    println!("in etcd, compacted:         {:>6.0} bytes a secret", (etcd_bytes(&etcd) - before.0) as f64 / total);
    println!("in the writing server:      {:>6.0} bytes a secret", (memory_bytes(&server) - before.1) as f64 / total);

    server.stop().await;
    let began = Instant::now();
    server.run();
    println!("a server starts in {:.1} s", serving(began, &server).await.as_secs_f64());
    println!("in a server that loaded it: {:>6.0} bytes a secret", (memory_bytes(&server) - before.1) as f64 / total);
    let client = client_at(&server.socket(), &server.operator_token(), None);
    let began = Instant::now();
    client.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect("listed");
    println!("its first list of scopes takes {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
}

async fn import(client: Client, next: Arc<AtomicU64>) {
    loop {
        let scope = next.fetch_add(1, Ordering::Relaxed);
        if scope >= SCOPES {
            return;
        }
        let entry = |n: usize| v1::ImportEntry {
            secret_id: format!("SECRET_{n}"),
            value: vec![b'v'; VALUE_BYTES],
            ..Default::default()
        };
        let entries = (0..SECRETS).map(entry).collect();
        let request =
            v1::ImportSecretsRequest { parent: format!("accounts/{scope:08}"), entries, ..Default::default() };
        // A machine this busy may let etcd's answers be late, and then nothing happened.
        while let Err(status) = client.imports().import_secrets(request.clone()).await {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What of etcd's database is in use.
fn etcd_bytes(etcd: &Etcd) -> u64 {
    number(&etcd.post("maintenance/status", "{}"), "dbSizeInUse")
}

/// Forgets all history.
fn compact(etcd: &Etcd) {
    let revision = number(&etcd.post("maintenance/status", "{}"), "revision");
    etcd.post("kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
}

/// A number of one of etcd's answers, which it writes as text.
fn number(answer: &str, name: &str) -> u64 {
    let after = answer.split_once(&format!("\"{name}\":\"")).map(|(_, after)| after);
    after.and_then(|after| after.split('"').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {answer}"))
}

/// What a server holds of the machine's memory.
fn memory_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("its own child");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("resident memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Waits until a server answers.
async fn serving(began: Instant, server: &Server) -> Duration {
    let client = client_at(&server.socket(), &server.operator_token(), None);
    client.scopes().list_scopes(v1::ListScopesRequest { page_size: 1, ..Default::default() }).await.expect("listed");
    began.elapsed()
}
