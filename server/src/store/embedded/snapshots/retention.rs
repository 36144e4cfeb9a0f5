//! How much of the past is kept: snapshots, and the log between and after them.

use std::time::{Duration, SystemTime};

use super::Kept;
use crate::store::{Millis, Revision};

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Retention {
    /// Every position of this long ago and since can be restored.
    pub(in super::super) time: Duration,
    /// Unless snapshots and log have more bytes than this: then less is kept, but always the newest snapshot and the log
    /// after it.
    pub(in super::super) bytes_max: u64,
}

/// A snapshot, when its last transaction was made, and its size with that of the log up to the next one, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Aged {
    pub(super) kept: Kept,
    pub(super) time: Millis,
    pub(super) bytes: u64,
}

/// What may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Snapshots to remove.
    pub(super) doomed: Vec<Kept>,
    /// The log is needed only after this revision.
    pub(super) keep_after: Revision,
    /// Less is kept than was asked for, because it is too large.
    pub(super) is_short: bool,
}

impl Retention {
    /// What of the snapshots, oldest first, may go. `before_bytes` is the size of the log before the first of them, which is
    /// needed as long as no snapshot is old enough to stand for it.
    pub(super) fn judge(&self, snapshots: &[Aged], before_bytes: u64, now: SystemTime) -> Verdict {
        let horizon = Millis::from(now.checked_sub(self.time).unwrap_or(SystemTime::UNIX_EPOCH));
        // The newest snapshot that is no younger than the horizon stands for everything before it.
        let mut base = snapshots.iter().rposition(|aged| aged.time <= horizon);
        let size = |base: Option<usize>| {
            let before = if base.is_none() { before_bytes } else { 0 };
            before + snapshots[base.unwrap_or(0)..].iter().map(|aged| aged.bytes).sum::<u64>()
        };
        let mut is_short = false;
        while !snapshots.is_empty() && size(base) > self.bytes_max && base != Some(snapshots.len() - 1) {
            base = Some(base.map_or(0, |base| base + 1));
            is_short = true;
        }
        let Some(base) = base else { return Verdict { is_short, ..Verdict::default() } };
        Verdict {
            doomed: snapshots[..base].iter().map(|aged| aged.kept.clone()).collect(),
            keep_after: snapshots[base].kept.position.revision,
            is_short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Epoch, Position};

    const DAY: u64 = 24 * 60 * 60;

    fn aged(day: u64, bytes: u64) -> Aged {
        let position = Position { epoch: Epoch(1), revision: Revision(day * 10) };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY);
        Aged { kept: Kept { position, path: format!("{day}").into() }, time: time.into(), bytes }
    }

    fn judged(days: &[u64], bytes_max: u64, today: u64) -> (usize, u64, bool) {
        let snapshots: Vec<_> = days.iter().map(|day| aged(*day, 10)).collect();
        let retention = Retention { time: Duration::from_secs(7 * DAY), bytes_max };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(today * DAY);
        let verdict = retention.judge(&snapshots, 5, now);
        (verdict.doomed.len(), verdict.keep_after.0, verdict.is_short)
    }

    #[test]
    fn everything_within_the_time_can_be_restored() {
        assert_eq!(judged(&[], u64::MAX, 100), (0, 0, false), "without a snapshot the whole log is needed");
        assert_eq!(judged(&[98, 99], u64::MAX, 100), (0, 0, false), "and as long as none is old enough");
        assert_eq!(judged(&[93, 99], u64::MAX, 100), (0, 930, false), "one of exactly the horizon is");
        assert_eq!(judged(&[90, 92, 95, 99], u64::MAX, 100), (1, 920, false), "the newest of the old ones stays");
        assert_eq!(judged(&[10, 20], u64::MAX, 100), (1, 200, false), "the newest of all stays for ever");
    }

    #[test]
    fn bytes_shorten_the_time_but_never_take_the_newest() {
        assert_eq!(judged(&[95, 96, 97], 35, 100), (0, 0, false));
        assert_eq!(judged(&[95, 96, 97], 34, 100), (0, 950, true), "the log before the first goes first");
        assert_eq!(judged(&[95, 96, 97], 29, 100), (1, 960, true));
        assert_eq!(judged(&[95, 96, 97], 0, 100), (2, 970, true));
        assert_eq!(judged(&[], 0, 100), (0, 0, false), "nothing stands for the log");
    }

    #[test]
    fn a_clock_before_everything_takes_nothing() {
        assert_eq!(judged(&[95, 96], u64::MAX, 1), (0, 0, false));
    }
}
