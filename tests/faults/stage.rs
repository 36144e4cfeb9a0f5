//! A server whose disk can be broken, and a client who keeps a ledger.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use coffer_client::Client;
use coffer_proto::v1::{self, store_status::Writes};
use coffer_server::store::embedded::Embedded;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::harness::{Server, refused, secret, strace};

/// The scope of every secret here.
const SCOPE: &str = "projects/p";
/// Longest wait of the client for one answer: longer than the server's own limit.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which of the store's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// The log, which is the truth.
    Log,
    /// Sled, which follows it.
    Sled,
}

/// A fault, as strace makes it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) on: On,
    pub(super) call: &'static str,
    /// What happens: `error=EIO`.
    pub(super) what: &'static str,
    /// At which of the calls of a thread: `3`, or `3+` from then on.
    pub(super) when: String,
}

/// What became of a write.
#[derive(Debug)]
pub(super) enum Outcome {
    Acknowledged,
    /// Nothing happened, says the reason.
    Refused(String),
    /// It may have happened: its outcome is not known, or no answer came.
    Open,
}

/// The server, and what its client knows.
pub(super) struct Stage {
    pub(super) server: Server,
    token: String,
    pub(super) client: Client,
    /// Names that must be there, and those that may be.
    there: BTreeSet<String>,
    open: BTreeSet<String>,
    next: u64,
    /// Longest wait for the answer of a write.
    pub(super) patience: Duration,
}

impl Stage {
    pub(super) async fn set() -> Self {
        let mut server = Server::start();
        server.grant("users/writer", "secrets:manage", SCOPE).await;
        let token = server.token("users/writer").await;
        let client = server.socket_client(&token);
        assert!(server.stop().await.success());
        Self { server, token, client, there: BTreeSet::new(), open: BTreeSet::new(), next: 0, patience: PATIENCE }
    }

    fn file(&self, on: On) -> PathBuf {
        match on {
            On::Sled => self.server.data().join("sled/db"),
            On::Log => {
                let segments = fs::read_dir(self.server.data().join("log")).expect("readable");
                segments.map(|entry| entry.expect("readable").path()).max().expect("a segment")
            }
        }
    }

    fn trace(&self) -> PathBuf {
        self.server.home().join("trace")
    }

    /// The server under strace, with the fault to come.
    fn faulty(&self, fault: &Fault) -> Command {
        let command = self.server.run_command();
        let mut strace = strace();
        strace.args(["-D", "-f", "--seccomp-bpf", "-e", "signal=none", "-e"]);
        strace.arg("trace=openat,pwrite64,fdatasync,fsync,sync_file_range,ftruncate");
        strace.arg("-e").arg(format!("inject={}:{}:when={}", fault.call, fault.what, fault.when));
        strace.arg("-P").arg(self.file(fault.on)).arg("-o").arg(self.trace());
        strace.arg("--").arg(command.get_program()).args(command.get_args());
        strace
    }

    /// Starts the server with a fault to come. It may come while the server starts, which then refuses in one line.
    pub(super) fn start(&mut self, fault: &Fault) -> Result<(), ExitStatus> {
        let before = self.server.log().len();
        let started = self.server.try_run_by(self.faulty(fault));
        if let Err(status) = started {
            assert_eq!(status.code(), Some(1), "{fault:?}");
            let log = self.server.log();
            let errors: Vec<_> = log[before..].lines().filter(|line| line.starts_with("error: ")).collect();
            assert_eq!(errors.len(), 1, "{fault:?}: {log}");
            assert!(errors[0].contains(&self.server.data().display().to_string()), "{fault:?}: {errors:?}");
            assert!(!errors[0].contains("damaged"), "what the system refuses is no damage: {fault:?}: {errors:?}");
            return Err(status);
        }
        self.client = self.server.socket_client(&self.token);
        Ok(())
    }

    /// Creates a secret.
    pub(super) async fn create(&mut self) -> Outcome {
        let name = format!("N_{}", self.next);
        self.next += 1;
        let (secrets, value) = (&mut self.client.secrets(), "v".repeat(400));
        let call = tokio::time::timeout(self.patience, secrets.create_secret(secret(SCOPE, &name, &value))).await;
        let outcome = outcome(call.map(|answer| answer.map(drop)).ok());
        match &outcome {
            Outcome::Acknowledged => drop(self.there.insert(name)),
            Outcome::Open => drop(self.open.insert(name)),
            Outcome::Refused(_) => {}
        }
        outcome
    }

    /// Deletes a secret that is there.
    pub(super) async fn delete(&mut self) -> Outcome {
        let id = self.there.pop_first().expect("there is one");
        let request = v1::DeleteSecretRequest { name: format!("{SCOPE}/secrets/{id}"), ..Default::default() };
        let call = tokio::time::timeout(PATIENCE, self.client.secrets().delete_secret(request)).await;
        let outcome = outcome(call.map(|answer| answer.map(drop)).ok());
        match &outcome {
            Outcome::Acknowledged => {}
            Outcome::Open => drop(self.open.insert(id)),
            Outcome::Refused(_) => drop(self.there.insert(id)),
        }
        outcome
    }

    async fn list(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListSecretsRequest { parent: SCOPE.into(), page_token, ..Default::default() };
            let call = tokio::time::timeout(PATIENCE, self.client.secrets().list_secrets(request)).await;
            let page = call.expect("reads go on").expect("reads go on").into_inner();
            names.extend(page.secrets.iter().filter_map(|secret| secret.name.rsplit('/').next().map(str::to_owned)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return names;
            }
        }
    }

    /// Reads show what was acknowledged, and nothing that was refused.
    pub(super) async fn reads_go_on(&self) {
        let found = self.list().await;
        let lost: Vec<_> = self.there.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        let strange: Vec<_> = found.difference(&self.there).filter(|name| !self.open.contains(*name)).collect();
        assert!(strange.is_empty(), "refused, and there: {strange:?}");
    }

    /// Which writes pass, and whether the server calls itself healthy.
    pub(super) async fn says(&self) -> (Writes, String, bool) {
        let operator = self.server.socket_client(&self.server.operator_token());
        let status = operator.operations().get_status(v1::GetStatusRequest {}).await.expect("answered").into_inner();
        let store = status.store.expect("it says");
        let answer = self.client.health().check(HealthCheckRequest::default()).await.expect("answered").into_inner();
        (store.writes(), store.writes_reason, answer.status() == ServingStatus::Serving)
    }

    /// Dies, and starts again on a disk that works: everything acknowledged is there, and writes go on.
    pub(super) async fn recover(&mut self, is_running: bool) {
        if is_running {
            self.server.kill();
        }
        self.server.run();
        self.client = self.server.socket_client(&self.token);
        self.reads_go_on().await;
        self.there = self.list().await;
        self.open.clear();
        assert!(matches!(self.create().await, Outcome::Acknowledged), "writes go on after a restart");
        while self.there.len() > 300 {
            assert!(matches!(self.delete().await, Outcome::Acknowledged), "deletes, too");
        }
        self.server.kill();
    }

    /// The calls on the broken file after the fault, in the order of their begin.
    pub(super) fn calls_after_the_fault(&self) -> Vec<String> {
        let text = fs::read_to_string(self.trace()).expect("strace has written it");
        let after = text.lines().skip_while(|line| !line.contains("(INJECTED)")).skip(1);
        let calls = after.filter(|line| !line.contains("resumed>") && !line.contains("+++"));
        calls.map(str::to_owned).collect()
    }

    pub(super) fn was_struck(&self) -> bool {
        fs::read_to_string(self.trace()).expect("strace has written it").contains("(INJECTED)")
    }
}

fn outcome(answer: Option<Result<(), Status>>) -> Outcome {
    match answer {
        Some(Ok(())) => Outcome::Acknowledged,
        Some(Err(status)) if status.code() == Code::DeadlineExceeded => Outcome::Open,
        Some(Err(status)) => match refused::<()>(Err(status)).reason.as_str() {
            "OUTCOME_UNKNOWN" => Outcome::Open,
            reason => Outcome::Refused(reason.to_owned()),
        },
        None => Outcome::Open,
    }
}

/// So that a path that only this file builds cannot go stale: the directory is what the store's own code opens.
#[tokio::test]
async fn the_files_that_are_broken_are_the_stores() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let store: &Path = directory.path();
    Embedded::create(store.join("data")).await.expect("created");
    let opened = Embedded::open(store.join("data"), Default::default()).await.expect("opened");
    opened.close().await.expect("closed");
    assert!(store.join("data/sled/db").is_file() && store.join("data/log").is_dir());
}
