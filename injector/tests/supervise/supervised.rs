//! A supervised command that prints lines.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{fake::Fake, run::injector};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Lines that wait to be read.
const LINES_MAX: usize = 1_000;

/// The injector and what it prints.
pub(crate) struct Supervised {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

/// Runs a shell script under the injector with these flags.
pub(crate) fn supervise(server: &Fake, flags: &[&str], script: &str) -> Supervised {
    let mut command = injector(server);
    command.args(flags).args(["--", "sh", "-c", script]);
    Supervised::of(command)
}

impl Supervised {
    pub(crate) fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let stdout = lines(child.stdout.take().expect("piped"));
        let stderr = lines(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// The next line on stdout.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no line: {error}; stderr: {:?}", self.said()))
    }

    /// The next line on stderr.
    pub(crate) fn problem(&self) -> String {
        self.stderr.recv_timeout(PATIENCE).expect("a line on stderr")
    }

    /// What stderr holds now.
    pub(crate) fn said(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }

    /// Whether nothing is printed for a while.
    pub(crate) fn is_silent_for(&self, time: Duration) -> bool {
        self.stdout.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Its end, which must come.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        until("it to end", || self.child.try_wait().expect("our own child"))
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.ends().code()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // A test that failed leaves it running; its group goes with it by TERM and a second TERM.
        for _ in 0..2 {
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(2) {
            thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that must come.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
