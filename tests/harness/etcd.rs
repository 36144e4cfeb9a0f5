//! An etcd, started and ended.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::until;

/// How often others may take a port between its choice and its use.
const PORTS_TRIED: usize = 10;

/// A cluster. Everything lies in a directory of its own; dropping it ends it.
pub(crate) struct Etcd {
    home: TempDir,
    members: Vec<Member>,
}

struct Member {
    client: u16,
    child: Child,
}

impl Etcd {
    /// One of so many members, each listening on free ports of this machine.
    pub(crate) fn start(members: usize) -> Self {
        for _ in 0..PORTS_TRIED {
            let home = TempDir::new().expect("a temporary directory");
            let ports: Vec<_> = (0..members).map(|_| (free_port(), free_port())).collect();
            let cluster: Vec<_> =
                ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}")).collect();
            let cluster = cluster.join(",");
            let started = ports.iter().enumerate().map(|(at, (client, peer))| {
                let log = File::create(home.path().join(format!("m{at}.log"))).expect("a log file");
                let child = Command::new("etcd")
                    .env_clear()
                    .args(["--name", &format!("m{at}"), "--initial-cluster", &cluster])
                    .arg("--data-dir")
                    .arg(home.path().join(format!("m{at}")))
                    .arg(format!("--listen-client-urls=http://127.0.0.1:{client}"))
                    .arg(format!("--advertise-client-urls=http://127.0.0.1:{client}"))
                    .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
                    .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(log)
                    .spawn()
                    .expect("etcd is there: tests/run.sh installs it");
                Member { client: *client, child }
            });
            let mut etcd = Self { members: started.collect(), home };
            if etcd.serves() {
                return etcd;
            }
        }
        panic!("etcd does not start");
    }

    /// Waits until each member serves; `false` if one ended instead.
    fn serves(&mut self) -> bool {
        let home = self.home.path();
        self.members.iter_mut().enumerate().all(|(at, member)| {
            let log = home.join(format!("m{at}.log"));
            until("etcd to serve", || match member.child.try_wait().expect("its own child") {
                Some(_) => Some(false),
                None => {
                    let said = std::fs::read_to_string(&log).unwrap_or_default();
                    said.contains("ready to serve client requests").then_some(true)
                }
            })
        })
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client)).collect()
    }

    /// A server's configuration for a store in it.
    pub(crate) fn config(&self, more: &str) -> PathBuf {
        let path = self.home.path().join("coffer.toml");
        let text = format!("store = \"etcd\"\n[etcd]\nendpoints = {:?}\n{more}\n", self.endpoints());
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Sets something up through the JSON gateway of a member, as an operator of etcd does.
    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        self.post_as(path, body, None)
    }

    /// The same with a token of etcd's.
    pub(crate) fn post_as(&self, path: &str, body: &str, token: Option<&str>) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.members[0].client)).expect("connect");
        let length = body.len();
        let token = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /v3/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer
    }

    /// To every member.
    pub(crate) fn signal(&self, signal: Signal) {
        for member in &self.members {
            kill_process(Pid::from_child(&member.child), signal).expect("its own child");
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}
