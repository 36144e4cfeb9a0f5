//! Keeps callers nobody knows from filling the audit log: of their refusals so many are written down, the rest is
//! counted, and the count is written with the next one.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Refusals of unknown callers written down at once.
const BURST: u32 = 100;
/// One more after each such time.
const EVERY: Duration = Duration::from_millis(100);

/// How many lines strangers have left.
#[derive(Debug)]
pub(super) struct Strangers(Mutex<Allowance>);

#[derive(Debug)]
struct Allowance {
    lines: u32,
    refilled: SystemTime,
    unwritten: u64,
}

impl Strangers {
    pub(super) fn new(now: SystemTime) -> Self {
        Self(Mutex::new(Allowance { lines: BURST, refilled: now, unwritten: 0 }))
    }

    /// Whether a refusal may be written down now: then with the number of those that were not since the last.
    pub(super) fn may_write(&self, now: SystemTime) -> Option<u64> {
        let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        allowance.refill(now);
        if allowance.lines == 0 {
            allowance.unwritten += 1;
            return None;
        }
        allowance.lines -= 1;
        Some(std::mem::take(&mut allowance.unwritten))
    }
}

impl Allowance {
    fn refill(&mut self, now: SystemTime) {
        match now.duration_since(self.refilled) {
            Ok(passed) => {
                let more = u32::try_from(passed.as_millis() / EVERY.as_millis()).unwrap_or(BURST);
                if more > 0 {
                    self.lines = self.lines.saturating_add(more).min(BURST);
                    self.refilled = now;
                }
            }
            // The clock was set back.
            Err(_) => self.refilled = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_instead_of_written() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let strangers = Strangers::new(start);
        let written = (0..100_000).filter(|_| strangers.may_write(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(strangers.may_write(start + EVERY), Some(100_000 - u64::from(BURST)));
        assert_eq!(strangers.may_write(start + EVERY), None);
        assert_eq!(strangers.may_write(start - EVERY), None, "a clock set back gives nothing");
        assert_eq!(strangers.may_write(start + Duration::from_secs(3_600)), Some(2));
    }
}
