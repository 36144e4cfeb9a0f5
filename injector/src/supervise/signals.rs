//! Signals that the injector is sent. Caught from before the command starts, so that none is lost.

use std::io;

use nix::sys::signal::Signal;
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

/// Signals as they come, SIGCHLD among them.
pub(super) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Needs a tokio runtime.
    pub(super) fn catch() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        for caught in PASSED_ON.into_iter().chain([Signal::SIGCHLD]) {
            let mut stream = signal(SignalKind::from_raw(caught as i32))?;
            let sender = sender.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(caught).await.is_ok() {} });
        }
        Ok(Self(receiver))
    }

    pub(super) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // The tasks above end with the runtime.
            None => std::future::pending().await,
        }
    }
}
