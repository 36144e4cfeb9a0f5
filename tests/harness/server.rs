//! A server process with a home of its own.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use tempfile::TempDir;

use super::{binary, command::exit_of, until, until_async};

/// How to start a server.
pub(crate) struct Builder {
    run: Vec<OsString>,
    /// Says where the store is, if it is not in a directory of this server's.
    config: Option<PathBuf>,
    tcp: String,
}

/// A running server, killed when dropped. Everything it writes lies below its home.
pub(crate) struct Server {
    home: TempDir,
    builder: Builder,
    child: Option<Child>,
}

impl Builder {
    /// More arguments of `coffer-server run`.
    pub(crate) fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.run.extend(args.into_iter().map(Into::into));
        self
    }

    /// On the store that a configuration file names, which is not in a directory.
    pub(crate) fn on(mut self, config: PathBuf) -> Self {
        self.config = Some(config);
        self
    }

    /// Another server of a store, with the same key, and with the same configuration if it was given none.
    pub(crate) fn beside(mut self, other: &Server) -> Server {
        self.config = self.config.or_else(|| other.builder.config.clone());
        let home = TempDir::new().expect("a temporary directory");
        let mut server = Server { home, builder: self, child: None };
        for (from, to) in
            [(other.key_file(), server.key_file()), (other.operator_token_file(), server.operator_token_file())]
        {
            fs::copy(from, to).expect("copied with its mode");
        }
        server.run();
        server
    }

    pub(crate) fn start(self) -> Server {
        self.start_in(TempDir::new().expect("a temporary directory"))
    }

    /// Starts with a home that has a store, a key and an operator's token already.
    pub(crate) fn resume_in(self, home: TempDir) -> Server {
        let mut server = Server { home, builder: self, child: None };
        server.run();
        server
    }

    /// Starts with a home that may hold other files already.
    pub(crate) fn start_in(self, home: TempDir) -> Server {
        let mut server = Server { home, builder: self, child: None };
        server.init();
        server.run();
        server
    }
}

impl Server {
    /// A server with a new store, listening on a free port and on a unix socket.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    pub(crate) fn builder() -> Builder {
        Builder { run: Vec::new(), config: None, tcp: "127.0.0.1:0".into() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.path("root.key")
    }

    pub(crate) fn operator_token_file(&self) -> PathBuf {
        self.path("operator.token")
    }

    /// Where the server's log goes, over all of its starts.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("server.log")).unwrap_or_default()).into_owned()
    }

    /// The audit log: one JSON object a line.
    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("audit.log")).expect("an audit log");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
    }

    /// `coffer-server` with a clean environment.
    pub(crate) fn command(args: &[&str]) -> Command {
        let mut command = Command::new(binary("coffer-server"));
        command.env_clear().args(args).stdin(Stdio::null());
        command
    }

    fn init(&self) {
        let mut init = Self::command(&["init", "--generate-key"]);
        self.store(&mut init);
        if self.builder.config.is_some() {
            init.arg("--audit-file").arg(self.path("audit.log"));
        }
        let output = init
            .arg("--key-file")
            .arg(self.key_file())
            .arg("--token-file")
            .arg(self.operator_token_file())
            .output()
            .expect("coffer-server starts");
        assert!(output.status.success(), "init: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty(), "with --token-file nothing is printed");
    }

    /// Says where the store is.
    fn store(&self, command: &mut Command) {
        match &self.builder.config {
            Some(config) => command.arg("--config").arg(config),
            None => command.arg("--data").arg(self.data()),
        };
    }

    /// The command that runs this server, for tests that change it.
    pub(crate) fn run_command(&self) -> Command {
        let mut command = Self::command(&["run", "--listen", &self.builder.tcp]);
        command.arg("--listen").arg(format!("unix:{}", self.path("coffer.sock").display()));
        self.store(&mut command);
        command.arg("--key-file").arg(self.key_file());
        command.arg("--address-file").arg(self.path("address"));
        if !self.builder.run.iter().any(|arg| arg == "--audit-file") {
            command.arg("--audit-file").arg(self.path("audit.log"));
        }
        command.args(&self.builder.run);
        command
    }

    /// Starts the stopped server again on the same data and waits until it accepts.
    pub(crate) fn run(&mut self) {
        self.run_by(self.run_command());
    }

    /// The same by another command, which becomes the server and writes the same address file.
    pub(crate) fn run_by(&mut self, command: Command) {
        if let Err(status) = self.try_run_by(command) {
            panic!("the server ended with {status}");
        }
    }

    /// The same for a server that may refuse to start.
    pub(crate) fn try_run_by(&mut self, mut command: Command) -> Result<(), ExitStatus> {
        assert!(self.child.is_none(), "it runs already");
        let address = self.path("address");
        drop(fs::remove_file(&address));
        let log = File::options().create(true).append(true).open(self.path("server.log")).expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        let child = self.child.insert(child);
        let ended = until("the server to accept", || match child.try_wait().expect("its own child") {
            Some(status) => Some(Some(status)),
            None => address.exists().then_some(None),
        });
        match ended {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                Err(status)
            }
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("its own child");
        child.wait().expect("its own child");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().try_into().expect("a pid")).expect("not zero");
        rustix::process::kill_process(pid, signal).expect("its own child");
    }

    /// Waits for the end that something else caused.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        exit_of(self.child.as_mut().expect("it runs"))
    }

    /// SIGTERM, and its exit status. Asynchronous, so that the test's clients go on answering meanwhile: a drain waits
    /// for peers that do not.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        until_async("the server to end", async || child.try_wait().expect("its own child")).await
    }

    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.run();
    }

    fn addresses(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("address")).expect("the server has written it");
        text.lines().map(str::to_owned).collect()
    }

    /// The address of the TCP listener; another one after each start.
    pub(crate) fn address(&self) -> String {
        self.addresses().into_iter().find(|a| a.starts_with("http")).expect("a TCP listener")
    }

    /// The address of the unix socket; the same after each start.
    pub(crate) fn socket(&self) -> String {
        self.addresses().into_iter().find(|a| a.starts_with("unix:")).expect("a unix listener")
    }
}

/// Runs `coffer-server` to its end, with flags that name paths.
pub(crate) fn server_command(args: &[&str], paths: &[(&str, &Path)]) -> Output {
    let mut command = Server::command(args);
    for (flag, path) in paths {
        command.arg(flag).arg(path);
    }
    command.output().expect("coffer-server starts")
}

/// All that a command printed.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "the server's log explains a failed test")]
            {
                let log = self.log();
                let tail = log.lines().rev().take(20).collect::<Vec<_>>();
                eprintln!("the server's last lines:");
                tail.iter().rev().for_each(|line| eprintln!("    {line}"));
            }
        }
    }
}
