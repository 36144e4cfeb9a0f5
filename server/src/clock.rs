//! Time, passed in so that tests decide it.

use std::time::{Duration, SystemTime};

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time, in UTC.
    fn now(&self) -> SystemTime;

    /// Time since the machine's start, with what it slept (CLOCK_BOOTTIME of clock_gettime(2)): nobody can set it.
    fn uptime(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the operating system")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn uptime(&self) -> Duration {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const SINCE_START: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const SINCE_START: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(SINCE_START);
        // Neither is negative for these clocks.
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}
