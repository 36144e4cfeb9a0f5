//! Starts etcd, and ends it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use coffer_proto::etcd::{kv_client::KvClient, maintenance_client::MaintenanceClient};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::store::etcd::{Etcd, EtcdOptions};

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// How often others may take a port between its choice and its use.
const PORTS_TRIED: usize = 10;

/// An etcd of one member. Dropping it ends it.
pub(super) struct Server {
    dir: TempDir,
    more: Vec<String>,
    pub(super) port: u16,
    child: Child,
}

impl Server {
    /// Starts one.
    pub(super) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more of its own flags.
    pub(super) fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let more: Vec<_> = more.iter().map(|flag| (*flag).to_owned()).collect();
        for _ in 0..PORTS_TRIED {
            let port = free_port();
            if let Some(child) = spawn(&dir, port, &more) {
                return Self { dir, more, port, child };
            }
        }
        panic!("etcd does not start");
    }

    /// Ends it as a kill does, and starts it again where it was.
    pub(super) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.dir, self.port, &self.more).expect("etcd starts again");
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn options(&self, prefix: &str) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![format!("http://127.0.0.1:{}", self.port)],
            prefix: prefix.to_owned(),
            tls: None,
            user: None,
        }
    }

    /// A copy of its data, as of a backup.
    pub(super) fn copy(&mut self) -> TempDir {
        let copy = tempfile::tempdir().expect("a directory");
        self.kill();
        replace(&copy.path().join("data"), &self.dir.path().join("data"));
        self.child = spawn(&self.dir, self.port, &self.more).expect("etcd starts again");
        copy
    }

    /// Puts a copy in place of its data.
    pub(super) fn put_back(&mut self, copy: &TempDir) {
        self.kill();
        replace(&self.dir.path().join("data"), &copy.path().join("data"));
        self.child = spawn(&self.dir, self.port, &self.more).expect("etcd starts again");
    }

    /// A client beside coffer's.
    pub(super) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
    }

    /// The same of what keeps etcd going.
    pub(super) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).expect("an address").connect_lazy()
    }

    /// A new store below a prefix.
    pub(super) async fn create(&self, prefix: &str) -> Etcd {
        Etcd::create(self.options(prefix)).await.expect("create");
        self.open(prefix).await
    }

    pub(super) async fn open(&self, prefix: &str) -> Etcd {
        Etcd::open(self.options(prefix)).await.expect("open")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}

fn replace(to: &Path, from: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-r").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

/// Starts etcd and waits until it serves; `None` if it ends before.
fn spawn(dir: &TempDir, port: u16, more: &[String]) -> Option<Child> {
    let peer = format!("http://127.0.0.1:{}", free_port());
    let scheme = if more.iter().any(|flag| flag.starts_with("--cert-file")) { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{port}");
    let mut listen = format!("--listen-client-urls={client}");
    // Addresses beside its own.
    for (flag, others) in more.iter().filter_map(|flag| flag.split_once('=')) {
        if flag == "--listen-client-urls" {
            listen = format!("{listen},{others}");
        }
    }
    let mut flags = vec![
        format!("--data-dir={}", dir.path().join("data").display()),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ];
    flags.extend_from_slice(more);
    flags.push(listen);
    launch(&flags).ready()
}

/// An etcd that was started and may not serve yet.
pub(super) struct Launched {
    child: Child,
    is_ready: mpsc::Receiver<()>,
}

/// Starts etcd.
pub(super) fn launch(flags: &[String]) -> Launched {
    let mut child = match Command::new("etcd").args(flags).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            panic!("etcd is not installed: apt-get install etcd-server")
        }
        Err(error) => panic!("etcd cannot be started: {error}"),
    };
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let (ready, is_ready) = mpsc::sync_channel(1);
    // Reads to the end, so that etcd never waits for somebody to.
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if line.contains("ready to serve client requests") {
                let _ = ready.try_send(());
            }
        }
    });
    Launched { child, is_ready }
}

impl Launched {
    /// Waits until it serves; `None` if it ends before.
    pub(super) fn ready(mut self) -> Option<Child> {
        match self.is_ready.recv_timeout(START_MAX) {
            Ok(()) => Some(self.child),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let _ = self.child.wait();
                None
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                panic!("etcd does not serve after {START_MAX:?}");
            }
        }
    }
}
