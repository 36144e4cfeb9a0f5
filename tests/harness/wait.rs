//! Waiting for events, never for luck: what is awaited is asked for again and again until a deadline that a healthy
//! machine never meets.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(2);

/// Asks until there is an answer; panics with `what` at the deadline.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask)
}

/// The same with another deadline, for what compiles.
pub(crate) fn until_within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < patience, "gave up waiting for {what}");
        #[allow(clippy::disallowed_methods, reason = "the interval of a poll with a deadline")]
        std::thread::sleep(INTERVAL);
    }
}

/// The same for asynchronous questions.
pub(crate) async fn until_async<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting for {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
