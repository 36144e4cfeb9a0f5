//! When a transaction was made, as the store keeps it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last millisecond of the year 9999: RFC 3339 and protobuf end there.
const MILLIS_MAX: u64 = 253_402_300_799_999;

/// Milliseconds since 1970, UTC. Within a store it never goes back, whatever the clock does; 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// As the rest of the world has it; nothing if there never was anything. What is later than can be written down counts
    /// as the last moment that can.
    pub fn time(self) -> Option<SystemTime> {
        (self.0 > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_millis(self.0.min(MILLIS_MAX)))).flatten()
    }
}

impl From<SystemTime> for Millis {
    /// Times before 1970 are as early as can be.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}
