//! A store with a key that is no key file, and the server on it.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use coffer_proto::v1;
use tempfile::TempDir;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::harness::{Server, until_async};

/// A store in a home of its own, and the server on it.
pub(super) struct Home {
    dir: TempDir,
    /// Says where the store is, if it is not in a directory of this home's.
    config: Option<PathBuf>,
    child: Option<Child>,
}

impl Home {
    pub(super) fn new() -> Self {
        Self { dir: TempDir::new().expect("a directory"), config: None, child: None }
    }

    /// From now on the store is the one that a configuration file names.
    pub(super) fn on(&mut self, config: PathBuf) {
        self.config = Some(config);
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The flag for a plugin at this home's socket.
    pub(super) fn plugin(&self) -> [String; 2] {
        ["--key-kms".to_owned(), format!("unix://{}", self.path("kms.sock").display())]
    }

    pub(super) fn command(&self, verb: &str, key: &[String]) -> Command {
        let mut command = Server::command(&[verb]);
        match &self.config {
            Some(config) => command.arg("--config").arg(config),
            None => command.arg("--data").arg(self.path("data")),
        };
        command.args(key).arg("--audit-file").arg(self.path("audit.log"));
        command
    }

    pub(super) async fn init(&self, key: &[String]) -> Output {
        let mut command = self.command("init", key);
        drop(fs::remove_file(self.path("token")));
        command.arg("--token-file").arg(self.path("token"));
        output(command).await
    }

    pub(super) fn run_command(&self, key: &[String]) -> Command {
        let mut command = self.command("run", key);
        command.args(["--listen", "127.0.0.1:0", "--log", "trace", "--address-file"]).arg(self.path("address"));
        command
    }

    /// Starts it and waits until it listens.
    pub(super) async fn start(&mut self, command: Command) {
        let mut command = command;
        drop(fs::remove_file(self.path("address")));
        let log = fs::File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        let child = self.child.insert(child);
        let address = self.dir.path().join("address");
        until_async("the server to listen", async || {
            let ended = child.try_wait().expect("its own child");
            assert!(ended.is_none(), "it ended with {ended:?}");
            address.exists().then_some(())
        })
        .await;
    }

    pub(super) async fn ended(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let status = until_async("the server to end", async || child.try_wait().expect("its own child")).await;
        status.code().expect("no signal")
    }

    pub(super) async fn stop(&mut self) {
        let pid = self.child.as_ref().expect("it runs").id();
        let pid = rustix::process::Pid::from_raw(pid.try_into().expect("a pid")).expect("not zero");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("its own child");
        assert_eq!(self.ended().await, 0, "{}", self.log());
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        let address = fs::read_to_string(self.path("address")).expect("it listens");
        Endpoint::from_shared(address.trim().to_owned()).expect("a URI")
    }

    /// Answers whoever asks for scopes as the operator.
    pub(super) async fn ask(&self, channel: tonic::transport::Channel) -> Result<(), tonic::Status> {
        let token = fs::read_to_string(self.path("token")).expect("a token");
        let mut request = tonic::Request::new(v1::ListGrantsRequest::default());
        let header = format!("Bearer {}", token.trim()).parse().expect("a header");
        request.metadata_mut().insert("authorization", header);
        v1::access_client::AccessClient::new(channel).list_grants(request).await.map(drop)
    }

    pub(super) async fn serves(&self) {
        self.ask(self.endpoint().connect().await.expect("it listens")).await.expect("it serves");
    }

    pub(super) fn data(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.path("data")];
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            } else {
                found.insert(path.clone(), fs::read(&path).expect("readable"));
            }
        }
        found
    }

    /// Each of the commands that open the store refuses and says `named`.
    pub(super) async fn refused(&self, key: &[String], named: &str) {
        let operator = self.command("operator", key);
        for command in [self.run_command(key), operator] {
            let output = output(command).await;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{told}");
            let error = told.lines().find(|line| line.starts_with("error: ")).expect("an error");
            assert!(error.contains(named), "{named}: {told}");
        }
    }

    /// Whether every byte is what it was.
    pub(super) fn same_as(&self, before: &BTreeMap<PathBuf, Vec<u8>>) {
        let after = self.data();
        let changed: Vec<_> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(changed.is_empty(), "{changed:?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Runs to the end while the test's own plugin goes on serving.
pub(super) async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("no panic")
}

pub(super) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) async fn health(channel: tonic::transport::Channel) -> ServingStatus {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect("it answers");
    answer.into_inner().status()
}
