//! Time, passed in so that tests decide it.

use std::time::SystemTime;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time, in UTC.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the operating system")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
