//! Bounds what one principal can write to the audit log. A token that is used in a loop would otherwise fill the disk, on
//! which every other call depends.
//!
//! Each principal has a token bucket. A call that is allowed takes one line from it, and one more for every
//! [`SUBJECTS_A_LINE`] names that its line lists, so that calls about much cost more.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use coffer_proto::{limits, name::Principal};

/// Names in a line that count as a line of their own: together they take about a kilobyte.
const SUBJECTS_A_LINE: usize = 32;
/// Principals told apart, about 10 MiB in all. Only those that called within the time that fills a bucket are kept.
const PRINCIPALS_MAX: usize = 65_536;
/// Least time between two searches for full buckets, which look at all of them.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Lines that may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// At once, after a quiet time.
    pub(super) burst: u32,
    /// For each second that passes.
    pub(super) per_second: u32,
}

/// Audited calls that one principal may make a second, in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRates {
    /// A service's: it may speak for a whole platform.
    pub service: NonZeroU32,
    /// A user's or workload's.
    pub other: NonZeroU32,
}

impl CallRates {
    /// A service may make the calls of so many seconds at once: 30,000 workloads that start together.
    const SERVICE_BURST_SECONDS: u32 = 30;
    /// Others may make the calls of so many seconds at once: 2,000 replicas that start together.
    const OTHER_BURST_SECONDS: u32 = 100;

    fn of(&self, principal: &Principal) -> Rate {
        let (per_second, seconds) = match principal {
            Principal::Service(_) => (self.service, Self::SERVICE_BURST_SECONDS),
            Principal::User(_) | Principal::Workload(_) => (self.other, Self::OTHER_BURST_SECONDS),
        };
        Rate { burst: per_second.get().saturating_mul(seconds), per_second: per_second.get() }
    }
}

impl Default for CallRates {
    fn default() -> Self {
        Self { service: limits::SERVICE_CALLS_PER_SECOND, other: limits::CALLS_PER_SECOND }
    }
}

/// A bucket of lines. Times are of a clock that nobody can set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// What is left, in thousandths of a line.
    left: u64,
    filled: Duration,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: Duration) -> Self {
        Self { left: capacity(rate), filled: now }
    }

    /// Takes lines, at most a full bucket. Otherwise returns how long it takes until they are there.
    pub(super) fn take(&mut self, rate: Rate, lines: usize, now: Duration) -> Result<(), Duration> {
        self.fill(rate, now);
        let wanted = u64::try_from(lines).unwrap_or(u64::MAX).saturating_mul(1_000).min(capacity(rate));
        match self.left.checked_sub(wanted) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Duration::from_millis((wanted - self.left).div_ceil(u64::from(rate.per_second.max(1))))),
        }
    }

    pub(super) fn is_full(&mut self, rate: Rate, now: Duration) -> bool {
        self.fill(rate, now);
        self.left == capacity(rate)
    }

    fn fill(&mut self, rate: Rate, now: Duration) {
        // So many lines a second are so many thousandths a millisecond.
        let passed = u64::try_from(now.saturating_sub(self.filled).as_millis()).unwrap_or(u64::MAX);
        self.left = passed.saturating_mul(u64::from(rate.per_second)).saturating_add(self.left).min(capacity(rate));
        self.filled += Duration::from_millis(passed);
    }
}

fn capacity(rate: Rate) -> u64 {
    u64::from(rate.burst) * 1_000
}

/// What each principal may still write.
#[derive(Debug)]
pub(super) struct Budgets {
    rates: CallRates,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<Principal, Bucket>,
    tidied: Duration,
    /// Shared by those for whom there is no place.
    others: Option<Bucket>,
}

impl Budgets {
    pub(super) fn new(rates: CallRates) -> Self {
        Self { rates, buckets: Mutex::default() }
    }

    /// Takes from a principal's budget what a line about so many things costs, or returns when it may be tried again.
    pub(super) fn take(&self, principal: &Principal, subjects: usize, now: Duration) -> Result<(), Duration> {
        let rate = self.rates.of(principal);
        let lines = cost(subjects);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.of.get_mut(principal) {
            return bucket.take(rate, lines, now);
        }
        if buckets.of.len() >= PRINCIPALS_MAX && now.saturating_sub(buckets.tidied) >= TIDY_INTERVAL {
            buckets.tidied = now;
            buckets.of.retain(|principal, bucket| !bucket.is_full(self.rates.of(principal), now));
        }
        if buckets.of.len() >= PRINCIPALS_MAX {
            let rate = Rate {
                burst: self.rates.service.get().saturating_mul(CallRates::SERVICE_BURST_SECONDS),
                per_second: self.rates.service.get(),
            };
            return buckets.others.get_or_insert(Bucket::full(rate, now)).take(rate, lines, now);
        }
        buckets.of.entry(principal.clone()).or_insert(Bucket::full(rate, now)).take(rate, lines, now)
    }
}

/// What a line about so many things counts as.
pub(super) fn cost(subjects: usize) -> usize {
    1 + subjects / SUBJECTS_A_LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    fn principal(text: &str) -> Principal {
        Principal::parse(text).expect("a principal")
    }

    fn taken(budgets: &Budgets, who: &str, subjects: usize, at: Duration) -> usize {
        let who = principal(who);
        std::iter::repeat_with(|| budgets.take(&who, subjects, at)).take(100_000).take_while(Result::is_ok).count()
    }

    #[test]
    fn a_principal_spends_its_own_budget_and_no_other() {
        let budgets = Budgets::new(CallRates::default());
        assert_eq!(taken(&budgets, "projects/p/servers/a", 1, START), 2_000);
        assert_eq!(taken(&budgets, "projects/p/servers/b", 1, START), 2_000);
        assert_eq!(taken(&budgets, "users/a", 1, START), 2_000);
        assert_eq!(taken(&budgets, "services/a", 1, START), 30_000);
        let second = Duration::from_secs(1);
        assert_eq!(taken(&budgets, "users/a", 1, START + second), 20);
        assert_eq!(taken(&budgets, "services/a", 1, START + second), 1_000);
        assert_eq!(taken(&budgets, "users/a", 1, START + second * 1_000), 2_000, "never more than the burst");
    }

    #[test]
    fn calls_about_much_cost_more_and_the_largest_is_possible() {
        let budgets = Budgets::new(CallRates::default());
        assert_eq!(taken(&budgets, "users/a", 2_001, START), 2_000 / 63);
        let one = NonZeroU32::MIN;
        let budgets = Budgets::new(CallRates { service: one, other: one });
        assert_eq!(taken(&budgets, "services/a", 2_001, START), 1, "a call that costs more than all takes all");
    }

    #[test]
    fn who_waits_as_long_as_told_may_call() {
        let budgets = Budgets::new(CallRates::default());
        let who = principal("users/a");
        taken(&budgets, "users/a", 1, START);
        let wait = budgets.take(&who, 1, START).expect_err("spent");
        assert_eq!(wait, Duration::from_millis(50));
        assert!(budgets.take(&who, 1, START + wait / 2).is_err());
        assert_eq!(budgets.take(&who, 1, START + wait), Ok(()), "asking in between costs nothing");
    }

    #[test]
    fn principals_without_number_take_no_memory_without_end() {
        let budgets = Budgets::new(CallRates::default());
        for n in 0..PRINCIPALS_MAX + 10 {
            assert_eq!(budgets.take(&principal(&format!("users/u{n}")), 1, START), Ok(()));
        }
        let count = || budgets.buckets.lock().expect("no panic before").of.len();
        assert_eq!(count(), PRINCIPALS_MAX);
        assert_eq!(budgets.take(&principal("users/new"), 1, START + TIDY_INTERVAL), Ok(()));
        assert_eq!(count(), 1, "the quiet ones made room");
    }
}
