//! How much of the past is kept: snapshots, and the log between and after them.

use std::time::{Duration, SystemTime};

use super::Kept;
use crate::store::Millis;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Retention {
    /// Every position of this long ago and since can be restored.
    pub(in super::super) time: Duration,
    /// Unless snapshots and log have more bytes than this: then less is kept, but always the newest snapshot and the log
    /// after it.
    pub(in super::super) bytes_max: u64,
}

/// Most snapshots that are kept: each takes time whenever they are looked at.
const SNAPSHOTS_MAX: usize = 64;
/// So many between the oldest and the newest stay while it is the log that is too large: without them all of the past but
/// the newest would go at once.
const STEPS: usize = 3;

/// A snapshot, when its last transaction was made, its size, and that of the log up to the next one, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Aged {
    pub(super) kept: Kept,
    pub(super) time: Millis,
    pub(super) bytes: u64,
    pub(super) log_bytes: u64,
}

/// What may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Snapshots to remove.
    pub(super) doomed: Vec<Kept>,
    /// What stands for everything before it: the log is needed only after it, and all of it where there is none.
    pub(super) base: Option<Kept>,
    /// Less is kept than was asked for, because it is too large.
    pub(super) is_short: bool,
}

impl Retention {
    /// What of the snapshots, oldest first, may go. `before_bytes` is the size of the log before the first of them, which is
    /// needed as long as no snapshot is old enough to stand for it.
    ///
    /// What stands between the oldest and the newest only saves time, since the log goes on over it: it goes before any of
    /// the past does.
    pub(super) fn judge(&self, snapshots: &[Aged], before_bytes: u64, now: SystemTime) -> Verdict {
        let horizon = Millis::from(now.checked_sub(self.time).unwrap_or(SystemTime::UNIX_EPOCH));
        // The newest snapshot that is no younger than the horizon stands for everything before it.
        let mut base = snapshots.iter().rposition(|aged| aged.time <= horizon);
        let Some(newest) = snapshots.len().checked_sub(1) else { return Verdict::default() };
        let mut stays: Vec<usize> = (base.unwrap_or(0)..=newest).collect();
        let mut is_short = false;
        loop {
            let before = if base.is_none() { before_bytes } else { 0 };
            let log_bytes = sum(before, snapshots[base.unwrap_or(0)..].iter().map(|aged| aged.log_bytes));
            let bytes = sum(log_bytes, stays.iter().map(|at| snapshots[*at].bytes));
            let is_too_large = bytes > self.bytes_max;
            let between = usize::from(base.is_some())..stays.len().saturating_sub(1);
            let is_log = log_bytes > self.bytes_max / 2 && between.len() <= STEPS;
            if stays.len() > SNAPSHOTS_MAX || is_too_large && !is_log && !between.is_empty() {
                // That which is missed least: those beside it are close to each other.
                let time = |at: usize| stays.get(at).map_or(0, |at| snapshots[*at].time.0);
                let gap = |at: &usize| time(at + 1).saturating_sub(at.checked_sub(1).map_or(0, time));
                let least = between.min_by_key(gap).unwrap_or_default();
                stays.remove(least);
            } else if is_too_large && base != Some(newest) {
                if base.is_some() {
                    stays.remove(0);
                }
                base = stays.first().copied();
                is_short = true;
            } else {
                break;
            }
        }
        let doomed = (0..=newest).filter(|at| !stays.contains(at)).map(|at| snapshots[at].kept.clone()).collect();
        Verdict { doomed, base: base.map(|base| snapshots[base].kept.clone()), is_short }
    }
}

fn sum(first: u64, rest: impl Iterator<Item = u64>) -> u64 {
    rest.fold(first, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Epoch, Position, Revision};

    const DAY: u64 = 24 * 60 * 60;

    fn aged(day: u64, bytes: u64) -> Aged {
        let position = Position { epoch: Epoch(1), revision: Revision(day * 10) };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
        Aged { kept: Kept { position, path: format!("{day}").into() }, time: time.into(), bytes, log_bytes: 5 }
    }

    /// The days of what goes, the revision after which the log is kept, and whether that is less than was asked for. The
    /// log before each snapshot and after the last has 5 bytes.
    fn judged_of(bytes: u64, days: &[u64], bytes_max: u64, today: u64) -> (Vec<u64>, u64, bool) {
        let snapshots: Vec<_> = days.iter().map(|day| aged(*day, bytes)).collect();
        let retention = Retention { time: Duration::from_secs(7 * DAY), bytes_max };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(today * DAY);
        let verdict = retention.judge(&snapshots, 5, now);
        let days = verdict.doomed.iter().map(|kept| kept.position.revision.0 / 10).collect();
        (days, verdict.base.map_or(0, |base| base.position.revision.0), verdict.is_short)
    }

    fn judged(days: &[u64], bytes_max: u64, today: u64) -> (Vec<u64>, u64, bool) {
        judged_of(5, days, bytes_max, today)
    }

    #[test]
    fn everything_within_the_time_can_be_restored() {
        let judged = |days: &[u64]| judged(days, u64::MAX, 100);
        assert_eq!(judged(&[]), (vec![], 0, false), "without a snapshot the whole log is needed");
        assert_eq!(judged(&[98, 99]), (vec![], 0, false), "and as long as none is old enough");
        assert_eq!(judged(&[93, 99]), (vec![], 930, false), "one of exactly the horizon is");
        assert_eq!(judged(&[90, 92, 95, 99]), (vec![90], 920, false), "the newest of the old ones stays");
        assert_eq!(judged(&[10, 20]), (vec![10], 200, false), "the newest of all stays for ever");
    }

    #[test]
    fn what_is_too_large_costs_steps_of_the_past_before_the_past() {
        let judged = |bytes_max| judged_of(20, &[90, 94, 95, 97, 99], bytes_max, 100);
        assert_eq!(judged(125), (vec![], 900, false));
        assert_eq!(judged(124), (vec![95], 900, false), "the neighbours of 95 are closest to each other");
        assert_eq!(judged(104), (vec![95, 97], 900, false));
        assert_eq!(judged(84), (vec![94, 95, 97], 900, false));
        assert_eq!(judged(64), (vec![90, 94, 95, 97], 990, true));
    }

    #[test]
    fn a_log_that_is_too_large_costs_the_past_step_by_step() {
        let judged = |days: &[u64], bytes_max| judged(days, bytes_max, 100);
        assert_eq!(judged(&[95, 96, 97], 35), (vec![], 0, false));
        assert_eq!(judged(&[95, 96, 97], 34), (vec![], 950, true), "the log before the first goes first");
        assert_eq!(judged(&[95, 96, 97], 29), (vec![95], 960, true));
        assert_eq!(judged(&[95, 96, 97], 0), (vec![95, 96], 970, true), "but never the newest");
        assert_eq!(judged(&[], 0), (vec![], 0, false), "nothing stands for the log");
    }

    #[test]
    fn snapshots_on_demand_push_nothing_out() {
        let retention = Retention { time: Duration::from_secs(7 * DAY), bytes_max: 600 };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * DAY);
        let kept = |position: u64, seconds: u64| Aged {
            kept: Kept { position: Position { epoch: Epoch(1), revision: Revision(position) }, path: "x".into() },
            time: (now - Duration::from_secs(seconds)).into(),
            bytes: 100,
            log_bytes: 1,
        };
        let mut snapshots = vec![kept(1, 8 * DAY), kept(2, 4 * DAY)];
        for made in 3..200 {
            snapshots.push(kept(made, 1_000 - made));
            let verdict = retention.judge(&snapshots, 5, now);
            assert!(!verdict.is_short, "{made}");
            snapshots.retain(|aged| !verdict.doomed.contains(&aged.kept));
        }
        let left: Vec<_> = snapshots.iter().map(|aged| aged.kept.position.revision.0).collect();
        assert!(left.starts_with(&[1, 2]) && left.ends_with(&[199]), "{left:?}");
        // With all the room there is they are not without number either.
        let retention = Retention { bytes_max: u64::MAX, ..retention };
        let many: Vec<_> = (1..1_000).map(|made| kept(made, 4 * DAY - made)).collect();
        let verdict = retention.judge(&many, 5, now);
        assert_eq!((many.len() - verdict.doomed.len(), verdict.base, verdict.is_short), (SNAPSHOTS_MAX, None, false));
        assert!(!verdict.doomed.contains(&many[998].kept));
    }

    #[test]
    fn a_clock_before_everything_takes_nothing() {
        assert_eq!(judged(&[95, 96], u64::MAX, 1), (vec![], 0, false));
    }
}
