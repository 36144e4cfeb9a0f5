//! How much the server does a second, on this machine, in one run: each kind of call against the cheapest there is, a
//! health check over the same connections, so that the ratios hold where the machine's speed does not.
//!
//! `cargo build --release --bins && cargo bench -p coffer-tests`. Server and clients share the machine's cores.

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

use harness::{Etcd, Server, client_at, secret};

/// How long each row runs.
const ROW: Duration = Duration::from_secs(3);
/// Connections that the callers share.
const CONNECTIONS: usize = 4;

/// What a row measured.
struct Measured {
    per_second: f64,
    median: Duration,
    worst_percent: Duration,
}

#[tokio::main]
async fn main() {
    let server = Server::start();
    let (manager, platform) = people(&server).await;
    let health = |client: Client, _| async move {
        client.health().check(coffer_client::health::HealthCheckRequest::default()).await.map(drop)
    };
    let get = |client: Client, _| async move {
        let name = "projects/p/secrets/SECRET_1".to_owned();
        client.secrets().get_secret(v1::GetSecretRequest { name }).await.map(drop)
    };
    let fetch = |client: Client, _| async move {
        let workload = "projects/p/servers/s".to_owned();
        let request = v1::FetchEnvironmentRequest { workload, ..Default::default() };
        client.workloads().fetch_environment(request).await.map(drop)
    };
    let render = |client: Client, _| async move {
        let request = v1::RenderTemplateRequest {
            workload: "projects/p/servers/s".to_owned(),
            texts: vec!["Bearer {{SECRET_1}}".to_owned(), "{{SECRET_2}}".to_owned()],
            sink: v1::render_template_request::Sink::Header.into(),
            destination_host: String::new(),
        };
        client.templates().render_template(request).await.map(drop)
    };
    let transcript: Arc<Vec<u8>> = Arc::new(b"A line of a transcript that holds no value at all.\n".repeat(20_000));
    let redact = move |client: Client, _| {
        let (workload, texts) = ("projects/p/servers/s".to_owned(), vec![transcript.to_vec()]);
        async move { client.redactions().redact_text(v1::RedactTextRequest { workload, texts }).await.map(drop) }
    };
    let create = |client: Client, n: u64| async move {
        let scope = format!("projects/c{}", n % 997);
        client.secrets().create_secret(secret(&scope, &format!("S{n}"), "a value of usual length")).await.map(drop)
    };

    println!("{:48} {:>9} {:>9} {:>9} {:>7}", "call", "a second", "median", "p99", "ratio");
    let base = row("health check, 64 callers", 1.0, &measure(&manager, 64, health).await);
    row("get one secret, 64 callers", base, &measure(&manager, 64, get).await);
    row("fetch an environment of 20, 64 callers", base, &measure(&platform, 64, fetch).await);
    row("render two header values, 64 callers", base, &measure(&platform, 64, render).await);
    row("redact 1 MB of text, 2 callers", base, &measure(&platform, 2, redact).await);
    row("create a secret, 1 caller", base, &measure(&manager, 1, create).await);
    row("create a secret, 64 callers", base, &measure(&manager, 64, move |c, n| create(c, n + 10_000_000)).await);
    row("get one secret, 1 caller", base, &measure(&manager, 1, get).await);
    drop(server);

    // The same on etcd, which each read asks where the store stands; those that come together ask once.
    let etcd = Etcd::start(1);
    let server = Server::builder().on(etcd.config("")).start();
    let (manager, platform) = people(&server).await;
    row("on etcd: health check, 64 callers", base, &measure(&manager, 64, health).await);
    row("on etcd: get one secret, 1 caller", base, &measure(&manager, 1, get).await);
    row("on etcd: get one secret, 64 callers", base, &measure(&manager, 64, get).await);
    row("on etcd: fetch an environment of 20, 64 callers", base, &measure(&platform, 64, fetch).await);
    row("on etcd: create a secret, 1 caller", base, &measure(&manager, 1, create).await);
    row(
        "on etcd: create a secret, 64 callers",
        base,
        &measure(&manager, 64, move |c, n| create(c, n + 10_000_000)).await,
    );
}

/// Clients of somebody who manages, and of a service that reads for workloads; and a scope with 20 secrets.
async fn people(server: &Server) -> (Vec<Client>, Vec<Client>) {
    server.grant("users/manager", "secrets:manage", "projects/-").await;
    server.grant("services/platform", "secrets:inject", "projects/-").await;
    let manager = clients(server, &server.token("users/manager").await);
    let platform = clients(server, &server.token("services/platform").await);
    for n in 0..20 {
        let request = secret("projects/p", &format!("SECRET_{n}"), &"v".repeat(100));
        manager[0].secrets().create_secret(request).await.expect("created");
    }
    (manager, platform)
}

fn clients(server: &Server, token: &str) -> Vec<Client> {
    (0..CONNECTIONS).map(|_| client_at(&server.address(), token, None)).collect()
}

/// Prints a row and gives what it measured.
fn row(name: &str, base: f64, measured: &Measured) -> f64 {
    let base = if base == 1.0 { measured.per_second } else { base };
    println!(
        "{name:48} {:>9.0} {:>6.2} ms {:>6.2} ms {:>7.2}",
        measured.per_second,
        measured.median.as_secs_f64() * 1e3,
        measured.worst_percent.as_secs_f64() * 1e3,
        measured.per_second / base,
    );
    base
}

async fn measure<F, Fut>(clients: &[Client], callers: usize, call: F) -> Measured
where
    F: Fn(Client, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), tonic::Status>> + Send,
{
    let counter = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (client, call, counter) = (clients[caller % clients.len()].clone(), call.clone(), counter.clone());
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while began.elapsed() < ROW {
                    let started = Instant::now();
                    call(client.clone(), counter.fetch_add(1, Ordering::Relaxed)).await.expect("served");
                    taken.push(started.elapsed());
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.expect("no panic"));
    }
    let seconds = began.elapsed().as_secs_f64();
    taken.sort_unstable();
    Measured {
        per_second: taken.len() as f64 / seconds,
        median: taken[taken.len() / 2],
        worst_percent: taken[taken.len() * 99 / 100],
    }
}
