//! What a connection is doing, and when there has been enough of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Limits, Stage, wait};

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    has_requested: bool,
    calls: usize,
    /// When the connection began or its last call ended.
    quiet_since: Instant,
    /// When each answer began that is to be taken in time; the first is the oldest.
    answers: BTreeMap<u64, Instant>,
    next_answer: u64,
}

/// One call of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenCall {
    activity: Arc<Activity>,
    answer: OnceLock<u64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            has_requested: false,
            calls: 0,
            quiet_since: Instant::now(),
            answers: BTreeMap::new(),
            next_answer: 0,
        }))
    }

    pub(super) fn call(self: &Arc<Self>) -> OpenCall {
        let mut state = self.state();
        state.has_requested = true;
        state.calls += 1;
        OpenCall { activity: Arc::clone(self), answer: OnceLock::new() }
    }

    /// Waits until the connection has outstayed one of `limits`, and says which.
    pub(super) async fn has_outstayed(&self, limits: &Limits, mut stage: watch::Receiver<Stage>) -> &'static str {
        let mut draining_since = None;
        loop {
            let now = Instant::now();
            let due = self.state().due(limits, draining_since);
            match due {
                Some((at, why)) if at <= now => return why,
                _ => {}
            }
            // What begins from here on is due no sooner than after the shortest limit, so nothing has to wake this.
            let mut look_again = now + limits.idle.min(limits.answer);
            if draining_since.is_some() {
                look_again = look_again.min(now + limits.farewell);
            }
            if let Some((at, _)) = due {
                look_again = look_again.min(at);
            }
            tokio::select! {
                () = sleep_until(look_again) => {}
                () = wait(&mut stage, Stage::Draining), if draining_since.is_none() => {
                    draining_since = Some(Instant::now());
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When the connection ends if nothing happens, and why.
    fn due(&self, limits: &Limits, draining_since: Option<Instant>) -> Option<(Instant, &'static str)> {
        let quiet = (self.calls == 0).then(|| {
            if let Some(began) = draining_since {
                (began.max(self.quiet_since) + limits.farewell, "the server ends and no call is under way on it")
            } else if self.has_requested {
                (self.quiet_since + limits.idle, "it is idle")
            } else {
                (self.quiet_since + limits.first_request, "it brings no request")
            }
        });
        let unread =
            self.answers.first_key_value().map(|(_, began)| (*began + limits.answer, "an answer is not taken"));
        quiet.into_iter().chain(unread).min_by_key(|(at, _)| *at)
    }
}

impl OpenCall {
    /// The answer has begun, or if it is a stream it ends, and must be taken in time from here on.
    pub(super) fn answers(&self) {
        let mut state = self.activity.state();
        let answer = state.next_answer;
        if self.answer.set(answer).is_ok() {
            state.next_answer += 1;
            state.answers.insert(answer, Instant::now());
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.calls -= 1;
        state.quiet_since = Instant::now();
        if let Some(answer) = self.answer.get() {
            state.answers.remove(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            first_request: 10 * SECOND,
            answer: 30 * SECOND,
            idle: 900 * SECOND,
            farewell: SECOND,
            ..Limits::new(1, 1)
        }
    }

    /// Why the connection ends, and after how many seconds; nothing if it is kept for a day.
    async fn end(activity: &Activity, stage: &watch::Sender<Stage>) -> Option<(&'static str, u64)> {
        let began = Instant::now();
        let why = timeout(86_400 * SECOND, activity.has_outstayed(&limits(), stage.subscribe())).await.ok()?;
        Some((why, began.elapsed().as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_calls_ends_and_one_with_is_kept() {
        let (stage, _) = watch::channel(Stage::Serving);
        let activity = Arc::new(Activity::new());
        assert_eq!(end(&activity, &stage).await, Some(("it brings no request", 10)));
        let call = activity.call();
        assert_eq!(end(&activity, &stage).await, None);
        drop(call);
        assert_eq!(end(&activity, &stage).await, Some(("it is idle", 900)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_unread_answer_ends_it() {
        let (stage, _) = watch::channel(Stage::Serving);
        let activity = Arc::new(Activity::new());
        let mut calls: Vec<_> = (0..3).map(|_| activity.call()).collect();
        for call in &calls {
            call.answers();
            sleep(5 * SECOND).await;
        }
        drop(calls.remove(0));
        assert_eq!(end(&activity, &stage).await, Some(("an answer is not taken", 20)), "the second's, 10 s old by now");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_begins_later_is_seen_in_time() {
        let (stage, _) = watch::channel(Stage::Serving);
        let activity = Arc::new(Activity::new());
        let call = activity.call();
        let later = async {
            sleep(47 * SECOND).await;
            call.answers();
        };
        let (ended, ()) = tokio::join!(end(&activity, &stage), later);
        assert_eq!(ended, Some(("an answer is not taken", 77)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_it_soon_after_its_last_call() {
        let (stage, _) = watch::channel(Stage::Draining);
        let why = "the server ends and no call is under way on it";
        let activity = Arc::new(Activity::new());
        assert_eq!(end(&activity, &stage).await, Some((why, 1)));
        let call = activity.call();
        let later = async {
            sleep(5 * SECOND).await;
            drop(call);
        };
        let (ended, ()) = tokio::join!(end(&activity, &stage), later);
        assert_eq!(ended, Some((why, 6)));
    }
}
