//! Signals that the injector is sent. Caught from before the command starts, so that none is lost.
//!
//! What whoever started the injector wants ignored (`nohup`, a job in the background of a script) stays ignored, by the
//! injector and by the command.

use std::{fs, io};

use nix::sys::signal::{SigSet, Signal};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Those that are passed on.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];
/// Signals that wait to be looked at; more of one kind are one, as everywhere.
const QUEUE_MAX: usize = 16;

/// What the kernel tells of this process.
const STATUS: &str = "/proc/self/status";

/// Signals as they come, SIGCHLD among them.
pub(super) struct Signals {
    caught: mpsc::Receiver<Signal>,
    ignored: SigSet,
}

impl Signals {
    /// Needs a tokio runtime.
    pub(super) fn catch() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        // Without /proc nobody knows, and none is ignored.
        let ignored = fs::read_to_string(STATUS).map_or(SigSet::empty(), |status| ignored(&status));
        let passed_on = PASSED_ON.into_iter().filter(|signal| !ignored.contains(*signal));
        for caught in passed_on.chain([Signal::SIGCHLD]) {
            let mut stream = signal(SignalKind::from_raw(caught as i32))?;
            let sender = sender.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(caught).await.is_ok() {} });
        }
        Ok(Self { caught: receiver, ignored })
    }

    /// Those that were ignored when the injector was started, and are so by the command.
    pub(super) fn ignored(&self) -> SigSet {
        self.ignored
    }

    pub(super) async fn next(&mut self) -> Signal {
        match self.caught.recv().await {
            Some(signal) => signal,
            // The tasks above end with the runtime.
            None => std::future::pending().await,
        }
    }
}

/// SIGPIPE is not among them: every Rust program ignores it, whatever it was started with.
fn ignored(status: &str) -> SigSet {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let signals = Signal::iterator().filter(|signal| *signal != Signal::SIGPIPE);
    signals.filter(|signal| mask >> (*signal as i32 - 1) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_kernels_mask() {
        let of = |mask: &str| ignored(&format!("Name:\tx\nSigBlk:\tffff\nSigIgn:\t{mask}\nSigCgt:\tffff\n"));
        // The bits of HUP, INT and QUIT, PIPE, and the last signal of all.
        let expected = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT]);
        assert_eq!(of("8000000000001007"), expected);
        for none in ["0000000000000000", "", "x"] {
            assert_eq!(of(none), SigSet::empty(), "{none}");
        }
        assert_eq!(ignored(""), SigSet::empty());
    }
}
