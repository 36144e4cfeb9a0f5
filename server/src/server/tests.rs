//! A whole server over a real store and real sockets.

use std::path::Path;

use coffer_proto::name::Principal;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::{
    clock::SystemClock,
    config::{self, Flags},
    seal::source::KeyFile,
    store::embedded::{Embedded, Options},
};

struct Running {
    home: tempfile::TempDir,
    addresses: Vec<String>,
    stage: watch::Sender<Stage>,
    reload: watch::Sender<()>,
    ended: JoinHandle<Result<End, Error>>,
}

fn path(home: &Path, name: &str) -> String {
    home.join(name).to_str().expect("UTF-8").to_owned()
}

fn config(home: &Path, reflection: bool) -> Config {
    let flags = Flags {
        data: Some(path(home, "data")),
        key_file: Some(path(home, "root.key")),
        listen: vec!["127.0.0.1:0".to_owned(), format!("unix:{}", path(home, "socket"))],
        address_file: Some(path(home, "address")),
        audit_file: Some(path(home, "audit.jsonl")),
        reflection,
        ..Flags::default()
    };
    config::load(&flags, []).expect("a good configuration")
}

async fn init(home: &Path) {
    let key = KeyFile::generate(&home.join("root.key")).expect("a key");
    Embedded::create(home.join("data")).await.expect("a store");
    let store = Embedded::open(home.join("data"), Options::default()).await.expect("opens");
    let audit = Arc::new(AuditFile::open(&home.join("audit.jsonl"), AuditOptions::default()).expect("opens"));
    let operator = Principal::parse("users/operator").expect("a principal");
    vault::init(Arc::new(store.clone()), &key, audit.clone(), Arc::new(SystemClock), &operator).await.expect("a vault");
    store.close().await.expect("closes");
    assert!(audit.close(CLOSE_WAIT_MAX).await);
}

async fn start(home: tempfile::TempDir, reflection: bool) -> Running {
    let server = Server::open(config(home.path(), reflection)).await.expect("opens");
    let bound = server.bind().await.expect("binds");
    let (stage, followed) = watch::channel(Stage::Serving);
    let (reload, reloads) = watch::channel(());
    let addresses = bound.addresses.clone();
    let ended = tokio::spawn(bound.run(Signals { stage: followed, reload: reloads }));
    Running { home, addresses, stage, reload, ended }
}

async fn new_server(reflection: bool) -> Running {
    let home = tempfile::tempdir().expect("a directory");
    init(home.path()).await;
    start(home, reflection).await
}

impl Running {
    async fn channel(&self, listener: usize) -> Channel {
        let endpoint = Endpoint::from_shared(self.addresses[listener].clone()).expect("a URI");
        endpoint.connect().await.expect("connects")
    }

    async fn end(self) -> tempfile::TempDir {
        self.stage.send_replace(Stage::Draining);
        assert_eq!(self.ended.await.expect("no panic").expect("no error"), End::Drained);
        self.home
    }
}

async fn services(channel: Channel) -> Result<Vec<String>, tonic::Status> {
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut stream =
        ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    let answer = stream.message().await?.expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("a list of services") };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}

#[tokio::test]
async fn it_serves_on_every_listener_and_leaves_nothing_behind() {
    let running = new_server(false).await;
    for listener in 0..2 {
        let mut health = HealthClient::new(running.channel(listener).await);
        for service in ["", "coffer.v1.Secrets", "coffer.v1.Workloads"] {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = health.check(request).await.expect("an answer").into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
    }
    let refused = services(running.channel(0).await).await.expect_err("reflection is off");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    let written = std::fs::read_to_string(running.home.path().join("address")).expect("an address file");
    assert_eq!(written, running.addresses.join("\n") + "\n");

    let home = running.end().await;
    for gone in ["address", "socket"] {
        assert!(!home.path().join(gone).exists(), "{gone}");
    }
    // The store and the sockets are free again.
    start(home, false).await.end().await;
}

#[tokio::test]
async fn reflection_is_served_by_flag() {
    let running = new_server(true).await;
    let services = services(running.channel(1).await).await.expect("reflection");
    for service in ["coffer.v1.Secrets", "grpc.health.v1.Health"] {
        assert!(services.iter().any(|name| name == service), "{services:?}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_reload_opens_the_audit_log_again() {
    let running = new_server(false).await;
    let log = running.home.path().join("audit.jsonl");
    // Another file would be opened again without being told; of this one, the chain's marker shows that it was.
    let is_continued = || std::fs::read_to_string(&log).expect("the log").contains("\"phase\":\"continued\"");
    assert!(!is_continued());
    running.reload.send_replace(());
    let reopened = async {
        while !is_continued() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reopened).await.expect("it is opened again");
    running.end().await;
}

#[tokio::test]
async fn a_wrong_key_or_no_store_is_an_error_that_names_it() {
    let home = tempfile::tempdir().expect("a directory");
    KeyFile::generate(&home.path().join("root.key")).expect("a key");
    let missing = Server::open(config(home.path(), false)).await.err().expect("no store").to_string();
    assert!(missing.contains("/data: there is no store here"), "{missing}");
    std::fs::remove_file(home.path().join("root.key")).expect("removed");

    init(home.path()).await;
    let key = KeyFile::open(&home.path().join("root.key")).expect("the key");
    std::fs::remove_file(home.path().join("root.key")).expect("removed");
    KeyFile::generate(&home.path().join("root.key")).expect("another key");
    let named = format!("key file {}: wrong key: ", home.path().join("root.key").display());
    let refusal = async || Server::open(config(home.path(), false)).await.err().expect("a wrong key").to_string();
    let by_header = refusal().await;
    assert!(by_header.starts_with(&named), "{by_header}");
    seal_mark::set(&home.path().join("data"), &key).expect("marked");
    let by_mark = refusal().await;
    assert!(by_mark.starts_with(&named), "{by_mark}");
}
