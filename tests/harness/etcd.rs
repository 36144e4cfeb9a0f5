//! An etcd cluster: its processes, started, signalled and ended. What is asked of it over the wire is in [`ask`], who may
//! ask in [`users`].

mod ask;
mod users;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::statvfs,
    process::{Pid, Signal, kill_process},
};
use tempfile::TempDir;

use super::until;
pub(crate) use ask::Asked;
pub(crate) use users::COFFER;

/// In memory, where etcd need not wait for a disk that other tests keep busy.
const MEMORY: &str = "/dev/shm";
/// What must be free there, in bytes: a member takes 128 MiB, and tests run side by side.
const MEMORY_FREE_MIN: u64 = 4 << 30;
/// How often others may take a port between its choice and its use.
const PORTS_TRIED: usize = 10;

/// A cluster. Everything lies in a directory of its own; dropping it ends it.
pub(crate) struct Etcd {
    home: TempDir,
    members: Vec<Member>,
}

struct Member {
    client: u16,
    /// The same with TLS, where it has a certificate.
    tls: u16,
    flags: Vec<String>,
    log: PathBuf,
    /// None while it is ended.
    child: Option<Child>,
}

impl Etcd {
    /// One of so many members, each listening on free ports of this machine.
    pub(crate) fn start(members: usize) -> Self {
        Self::start_with(members, &[])
    }

    /// The same with more of etcd's own flags. With a certificate it is reached by TLS, too.
    pub(crate) fn start_with(members: usize, more: &[&str]) -> Self {
        for _ in 0..PORTS_TRIED {
            let home = home();
            let ports: Vec<_> = (0..members).map(|_| [(); 3].map(|()| free_port())).collect();
            let cluster: Vec<_> =
                ports.iter().enumerate().map(|(at, [_, peer, _])| format!("m{at}=http://127.0.0.1:{peer}")).collect();
            let cluster = cluster.join(",");
            let has_tls = more.iter().any(|flag| flag.starts_with("--cert-file="));
            let member = |(at, [client, peer, tls]): (usize, &[u16; 3])| {
                let secure = if has_tls { format!(",https://127.0.0.1:{tls}") } else { String::new() };
                let mut flags = vec![
                    format!("--name=m{at}"),
                    format!("--initial-cluster={cluster}"),
                    format!("--data-dir={}", data(home.path(), at).display()),
                    format!("--listen-client-urls=http://127.0.0.1:{client}{secure}"),
                    format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                    format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                    format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                ];
                flags.extend(more.iter().map(|flag| (*flag).to_owned()));
                Member { client: *client, tls: *tls, flags, log: home.path().join(format!("m{at}.log")), child: None }
            };
            let members = ports.iter().enumerate().map(member).collect();
            let mut etcd = Self { home, members };
            if etcd.run() {
                return etcd;
            }
        }
        panic!("etcd does not start");
    }

    /// Starts the members that are ended, and waits until they serve; `false` if one ended instead.
    fn run(&mut self) -> bool {
        let started: Vec<_> = self.members.iter_mut().filter(|member| member.child.is_none()).collect();
        let started: Vec<_> = started.into_iter().map(Member::spawn).collect();
        started.into_iter().all(Member::serves)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client)).collect()
    }

    /// Where its members keep what they are given.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where its first member is reached by TLS.
    pub(crate) fn tls_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.members[0].tls)
    }

    /// Its members as others reach them.
    pub(crate) fn ask(&self) -> Asked {
        Asked::new(self.endpoints())
    }

    /// A server's configuration for a store in it, in a file of its own.
    pub(crate) fn config(&self, more: &str) -> PathBuf {
        self.config_by(&self.endpoints(), more)
    }

    /// The same for a server that knows one member only.
    pub(crate) fn config_at(&self, at: usize, more: &str) -> PathBuf {
        self.config_by(&self.endpoints()[at..=at], more)
    }

    fn config_by(&self, endpoints: &[String], more: &str) -> PathBuf {
        let mut unused = (1..).map(|number| self.home.path().join(format!("coffer-{number}.toml")));
        let path = unused.find(|path| !path.exists()).expect("there are enough numbers");
        let text = format!("store = \"etcd\"\n[etcd]\nendpoints = {endpoints:?}\n{more}\n");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Sets something up through the JSON gateway of a member, as an operator of etcd does.
    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        self.post_as(path, body, None)
    }

    /// The same with a token of etcd's.
    fn post_as(&self, path: &str, body: &str, token: Option<&str>) -> String {
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
        (0..self.members.len()).for_each(|at| self.signal_one(at, signal));
    }

    /// To one member.
    pub(crate) fn signal_one(&self, at: usize, signal: Signal) {
        let child = self.members[at].child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("its own child");
    }

    /// `kill -9` of one member.
    pub(crate) fn kill(&mut self, at: usize) {
        self.members[at].kill();
    }

    /// Starts what was killed where it was, and waits until it serves.
    pub(crate) fn restart(&mut self) {
        assert!(self.run(), "a member of etcd does not start again");
    }

    /// A copy of the data of all members, as of one moment.
    pub(crate) fn copy(&mut self) -> TempDir {
        let copy = home();
        self.end();
        self.copied(self.home.path(), copy.path());
        self.restart();
        copy
    }

    /// Puts a copy in place of the data of all members.
    pub(crate) fn put_back(&mut self, copy: &TempDir) {
        self.end();
        self.copied(copy.path(), self.home.path());
        self.restart();
    }

    fn end(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }

    fn copied(&self, from: &Path, to: &Path) {
        for at in 0..self.members.len() {
            drop(fs::remove_dir_all(data(to, at)));
            let copied = Command::new("cp").arg("-r").args([data(from, at), data(to, at)]).status().expect("cp");
            assert!(copied.success());
        }
    }
}

impl Member {
    fn spawn(&mut self) -> &mut Self {
        let log = File::create(&self.log).expect("a log file");
        let mut command = Command::new("etcd");
        command.env_clear().args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("etcd is there: tests/run.sh installs it"));
        self
    }

    fn serves(&mut self) -> bool {
        let Self { log, child, .. } = self;
        let child = child.as_mut().expect("it was started");
        until("etcd to serve", || match child.try_wait().expect("its own child") {
            Some(_) => Some(false),
            None => {
                let said = fs::read_to_string(&*log).unwrap_or_default();
                said.contains("ready to serve client requests").then_some(true)
            }
        })
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn home() -> TempDir {
    let is_roomy = statvfs(MEMORY).is_ok_and(|stat| stat.f_bavail * stat.f_frsize >= MEMORY_FREE_MIN);
    let home = if is_roomy { TempDir::new_in(MEMORY) } else { TempDir::new() };
    home.expect("a temporary directory")
}

fn data(home: &Path, at: usize) -> PathBuf {
    home.join(format!("m{at}"))
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port()
}
