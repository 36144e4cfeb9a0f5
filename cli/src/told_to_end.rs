//! Whether the program is told to end, for commands that have something to clean up first.

use std::{fs, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// What the kernel tells of this process.
const STATUS: &str = "/proc/self/status";

/// Signals that end a program. What was ignored when it started (`nohup`) stays ignored.
pub(crate) struct Signals(Vec<Signal>);

impl Signals {
    /// Catches them from here on. Needs a runtime.
    pub(crate) fn catch() -> Result<Self, Failure> {
        // Without /proc nobody knows, and none is ignored.
        let ignored = fs::read_to_string(STATUS).map_or(0, |status| ignored(&status));
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let ends = ends.into_iter().filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        let caught = ends.map(signal).collect::<io::Result<_>>();
        caught.map(Self).map_err(|error| Failure::failed(format!("cannot catch signals: {error}")))
    }

    /// Waits for one.
    pub(crate) async fn told(&mut self) {
        std::future::poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            if signals.any(|signal| signal.poll_recv(context).is_ready()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}

/// The mask of ignored signals in what the kernel tells; bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("Name:\tcoffer\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000000\n"), 0x1003);
        assert_eq!(ignored("Name:\tcoffer\n"), 0);
        assert_eq!(ignored("SigIgn:\tx\n"), 0);
    }
}
