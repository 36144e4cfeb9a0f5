//! Keeps callers nobody knows from filling the audit log: of the refusals of one peer so many are written down, the rest
//! is counted, and the count is written with that peer's next one. A flood of one peer hides nothing of another's.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Refusals of one peer written down at once.
const BURST: u32 = 20;
/// One more after each such time.
const EVERY: Duration = Duration::from_secs(1);
/// Peers told apart; beyond that, further ones share an allowance.
const PEERS_MAX: usize = 4_096;

/// How many lines strangers have left.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<HashMap<String, Allowance>>);

#[derive(Debug)]
struct Allowance {
    lines: u32,
    refilled: SystemTime,
    unwritten: u64,
}

impl Strangers {
    /// Whether a refusal may be written down now: then with the number of that peer's that were not since the last.
    pub(super) fn may_write(&self, peer: Option<&str>, now: SystemTime) -> Option<u64> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peer = address(peer.unwrap_or_default());
        if peers.len() >= PEERS_MAX && !peers.contains_key(peer) {
            // Those that have been quiet are strangers anew.
            peers.values_mut().for_each(|allowance| allowance.refill(now));
            peers.retain(|_, allowance| allowance.lines < BURST || allowance.unwritten > 0);
            if peers.len() >= PEERS_MAX {
                peer = "others";
            }
        }
        let new = || Allowance { lines: BURST, refilled: now, unwritten: 0 };
        peers.entry(peer.to_owned()).or_insert_with(new).take(now)
    }
}

/// A peer without its port, which it may choose as it likes.
fn address(peer: &str) -> &str {
    peer.rsplit_once(':').map_or(peer, |(address, _)| address)
}

impl Allowance {
    fn take(&mut self, now: SystemTime) -> Option<u64> {
        self.refill(now);
        if self.lines == 0 {
            self.unwritten += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.unwritten))
    }

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

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_flood_is_counted_instead_of_written() {
        let strangers = Strangers::default();
        let start = START + Duration::from_secs(1_000);
        let may_write = |at| strangers.may_write(Some("10.0.0.1:999"), at);
        let written = (0..100_000).filter(|_| may_write(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(may_write(start + EVERY), Some(100_000 - u64::from(BURST)));
        assert_eq!(may_write(start + EVERY), None);
        assert_eq!(may_write(start - EVERY), None, "a clock set back gives nothing");
        assert_eq!(may_write(start + Duration::from_secs(3_600)), Some(2));
    }

    #[test]
    fn one_peers_flood_hides_nothing_of_anothers() {
        let strangers = Strangers::default();
        for port in 0..10_000 {
            strangers.may_write(Some(&format!("10.0.0.1:{port}")), START);
        }
        assert_eq!(strangers.may_write(Some("10.0.0.2:1"), START), Some(0));
        assert_eq!(strangers.may_write(Some("[::1]:1"), START), Some(0));
        assert_eq!(strangers.may_write(None, START), Some(0));
    }

    #[test]
    fn peers_without_number_take_no_memory_without_end() {
        let strangers = Strangers::default();
        for n in 0..3 * PEERS_MAX {
            for _ in 0..2 {
                strangers.may_write(Some(&format!("peer{n}:1")), START);
            }
        }
        assert!(strangers.0.lock().expect("no panic before").len() <= PEERS_MAX + 1);
        let later = START + Duration::from_secs(3_600);
        assert_eq!(strangers.may_write(Some("new:1"), later), Some(0), "the quiet ones made room");
    }
}
