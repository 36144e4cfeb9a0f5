//! Watches: of one workload's environment, and of which workloads must be restarted. Level-triggered: whoever is woken
//! looks at what is there now, so states may be skipped, but never the last one.

mod environment;
mod instances;
mod resolved;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use super::Error;
use crate::{
    identity::Caller,
    view::{Listening, View},
};

pub use environment::{EnvironmentChange, EnvironmentWatch};
pub use instances::{InstancesChange, InstancesWatch};
pub(super) use resolved::{Resolutions, Resolved};

/// A watch looks again after this at the latest: the wall clock, by which tokens end, may be set.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60 * 60);
/// The watch of an environment looks so often whether other servers see more than this one, and lives so long in any case:
/// longer than the 30 seconds after which clients take it for one that lived, and try again at once.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(35);

/// What every watch waits for: that something it rests on is touched, or that its caller's token ends.
struct Wait {
    listening: Listening,
    expires: SystemTime,
    /// Longest time without a look.
    look_again: Duration,
}

impl Wait {
    fn new(listening: Listening) -> Self {
        Self { listening, expires: SystemTime::UNIX_EPOCH, look_again: LOOK_AGAIN_MAX }
    }

    /// The caller was let in once more.
    fn know(&mut self, caller: &Caller) {
        self.expires = SystemTime::try_from(caller.expires()).unwrap_or(SystemTime::UNIX_EPOCH);
    }

    async fn wait(&self, now: SystemTime) {
        let left = self.expires.duration_since(now).unwrap_or_default();
        tokio::select! {
            () = self.listening.heard() => {}
            () = sleep(left.min(self.look_again)) => {}
        }
    }
}

/// What a caller is called where the view tells of principals.
fn name(caller: &Caller) -> Arc<str> {
    caller.principal().to_string().into()
}

/// A view that has failed shows nothing new: its watches end, and begin again where something is shown.
fn check(view: &View) -> Result<(), Error> {
    view.error().map_or(Ok(()), |error| Err(error.into()))
}

/// Says what the caller of a watch that ends is not told.
fn logged(error: Error) -> Error {
    if let Some(detail) = error.detail() {
        tracing::error!(reason = error.reason().as_str(), detail, "a watch failed");
    }
    error
}

#[cfg(test)]
mod tests;
