//! Full-jitter exponential backoff under one deadline.
//!
//! Each wait is uniform between nothing and a ceiling that doubles, so that clients that failed together do not come
//! back together: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Error;

/// How long to wait between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Ceiling of the first wait; it doubles with each attempt.
    pub first: Duration,
    /// Ceiling of every wait.
    pub max: Duration,
    /// Uniform in 0..=1. Passed in, so that tests decide.
    pub random: fn() -> f64,
}

impl Default for Policy {
    /// From 100 milliseconds to 5 seconds, with randomness of the operating system.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(5), random: system_random }
    }
}

fn system_random() -> f64 {
    // Without randomness every wait is the longest, which is safe.
    getrandom::u32().map_or(1.0, |drawn| f64::from(drawn) / f64::from(u32::MAX))
}

impl Policy {
    /// The wait after the given attempt, counted from 0; not shorter than what the server asked for.
    pub fn wait(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(attempt)).min(self.max);
        let jittered = ceiling.mul_f64((self.random)().clamp(0.0, 1.0));
        asked.map_or(jittered, |asked| asked.saturating_add(jittered))
    }
}

/// Calls until it succeeds, fails for good, or the deadline passes. At least one attempt is begun.
///
/// Only errors that [may pass](Error::is_retryable) are tried again. An attempt under way is given up at the deadline;
/// a wait that would end after it is not begun. The error is the last one that an attempt gave.
pub async fn until<T, F, Fut>(deadline: Instant, policy: Policy, mut call: F) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let mut last: Option<Error> = None;
    for attempt in 0.. {
        let error = match timeout_at(deadline, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => return Err(last.unwrap_or_else(|| Error::deadline("no answer in time"))),
        };
        if !error.is_retryable() {
            return Err(error);
        }
        let resume = Instant::now().checked_add(policy.wait(attempt, error.retry_after()));
        match resume {
            Some(resume) if resume < deadline => sleep_until(resume).await,
            _ => return Err(error),
        }
        last = Some(error);
    }
    Err(Error::deadline("no answer in time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    const LONGEST: Policy = Policy { first: Duration::from_millis(100), max: Duration::from_secs(1), random: || 1.0 };

    fn unavailable() -> Error {
        Status::unavailable("starting").into()
    }

    fn in_secs(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_their_ceiling() {
        let begin = Instant::now();
        let mut times = Vec::new();
        let result: Result<(), _> = until(in_secs(4), LONGEST, || {
            times.push(begin.elapsed().as_millis());
            async { Err(unavailable()) }
        })
        .await;
        assert_eq!(result.expect_err("never up").message(), "starting");
        assert_eq!(times, [0, 100, 300, 700, 1500, 2500, 3500]);
        assert_eq!(begin.elapsed().as_millis(), 3500, "a wait beyond the deadline was begun");
    }

    #[tokio::test(start_paused = true)]
    async fn the_jitter_is_full() {
        let half = Policy { random: || 0.5, ..LONGEST };
        let begin = Instant::now();
        let calls = Cell::new(0);
        let call = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(unavailable()) } else { Ok(calls.get()) }
        };
        assert_eq!(until(in_secs(9), half, call).await.expect("up at last"), 3);
        assert_eq!(begin.elapsed().as_millis(), 50 + 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_will_not_pass_is_not_tried_again() {
        let calls = Cell::new(0);
        let call = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Status::permission_denied("no").into())
        };
        let error = until(in_secs(9), LONGEST, call).await.expect_err("denied");
        assert_eq!((error.code(), calls.get()), (Code::PermissionDenied, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_for_time_gets_it() {
        let begin = Instant::now();
        let calls = Cell::new(0);
        let call = || async {
            calls.set(calls.get() + 1);
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
            let busy = Status::with_error_details(Code::ResourceExhausted, "busy", details);
            if calls.get() < 2 { Err(busy.into()) } else { Ok(()) }
        };
        until(in_secs(9), LONGEST, call).await.expect("served");
        assert_eq!(begin.elapsed().as_millis(), 2100);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_ends_at_the_deadline() {
        let begin = Instant::now();
        let result: Result<(), _> = until(in_secs(3), LONGEST, std::future::pending).await;
        assert_eq!(result.expect_err("no answer").code(), Code::DeadlineExceeded);
        assert_eq!(begin.elapsed().as_secs(), 3);
    }

    #[test]
    fn the_system_draws_between_nothing_and_all() {
        for _ in 0..1000 {
            assert!((0.0..=1.0).contains(&system_random()));
        }
    }

    #[test]
    fn large_counts_do_not_overflow() {
        assert_eq!(LONGEST.wait(u32::MAX, None), LONGEST.max);
        assert_eq!(LONGEST.wait(u32::MAX, Some(Duration::MAX)), Duration::MAX);
    }
}
