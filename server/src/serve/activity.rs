//! What a connection is doing, and when there has been enough of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{Limits, Stage, wait};

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    leave: Notify,
}

#[derive(Debug)]
struct State {
    has_requested: bool,
    is_authenticated: bool,
    calls: usize,
    /// When the connection began or its last call ended.
    quiet_since: Instant,
    /// When each answer began that is to be taken in time; the first is the oldest.
    answers: BTreeMap<u64, Instant>,
    next_answer: u64,
    /// When GOAWAY was due, and why.
    leaving: Option<(Instant, &'static str)>,
}

/// What comes next of a connection if nothing happens.
#[derive(Clone, Copy)]
enum Next {
    /// GOAWAY: it takes no more calls.
    Leave(&'static str),
    /// It is closed.
    End(&'static str),
}

/// One call of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenCall {
    activity: Arc<Activity>,
    answer: OnceLock<u64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        let state = Mutex::new(State {
            has_requested: false,
            is_authenticated: false,
            calls: 0,
            quiet_since: Instant::now(),
            answers: BTreeMap::new(),
            next_answer: 0,
            leaving: None,
        });
        Self { state, leave: Notify::new() }
    }

    pub(super) fn call(self: &Arc<Self>) -> OpenCall {
        let mut state = self.state();
        state.has_requested = true;
        state.calls += 1;
        OpenCall { activity: Arc::clone(self), answer: OnceLock::new() }
    }

    /// A call has authenticated. Returns true for the first one.
    pub(super) fn authenticated(&self) -> bool {
        !std::mem::replace(&mut self.state().is_authenticated, true)
    }

    /// Waits until GOAWAY is due; one task may wait.
    pub(super) async fn leaves(&self) {
        self.leave.notified().await;
    }

    /// Waits until the connection has outstayed one of `limits`, and says which. Those who [wait](Self::leaves) for GOAWAY
    /// hear of it before, unless the peer takes nothing any more.
    pub(super) async fn has_outstayed(&self, limits: &Limits, mut stage: watch::Receiver<Stage>) -> &'static str {
        let mut is_draining = false;
        loop {
            let now = Instant::now();
            let (due, soon) = {
                let state = self.state();
                (state.due(limits), state.shortest(limits))
            };
            match due {
                Some((at, Next::End(why))) if at <= now => return why,
                Some((at, Next::Leave(why))) if at <= now => {
                    self.leave(why);
                    continue;
                }
                _ => {}
            }
            // What begins from here on is due no sooner than after the shortest limit, so nothing has to wake this.
            let look_again = due.map_or(now + soon, |(at, _)| at.min(now + soon));
            tokio::select! {
                () = sleep_until(look_again) => {}
                () = wait(&mut stage, Stage::Draining), if !is_draining => {
                    is_draining = true;
                    self.leave("the server ends and no call is under way on it");
                }
            }
        }
    }

    fn leave(&self, why: &'static str) {
        self.state().leaving.get_or_insert((Instant::now(), why));
        self.leave.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When something is next to happen to the connection, and what.
    fn due(&self, limits: &Limits) -> Option<(Instant, Next)> {
        let quiet = (self.calls == 0).then(|| match self.leaving {
            Some((since, why)) => (since.max(self.quiet_since) + limits.farewell, Next::End(why)),
            None if self.is_authenticated => (self.quiet_since + limits.idle, Next::Leave("it is idle")),
            None if self.has_requested => {
                (self.quiet_since + limits.unauthenticated, Next::Leave("nobody has authenticated on it"))
            }
            None => (self.quiet_since + limits.first_request, Next::Leave("it brings no request")),
        });
        let unread = self.answers.first_key_value();
        let unread = unread.map(|(_, began)| (*began + limits.answer, Next::End("an answer is not taken")));
        quiet.into_iter().chain(unread).min_by_key(|(at, _)| *at)
    }

    /// The shortest limit of what may begin from here on.
    fn shortest(&self, limits: &Limits) -> Duration {
        let quiet = match self.leaving {
            Some(_) => limits.farewell,
            None if self.is_authenticated => limits.idle,
            None => limits.unauthenticated.min(limits.idle),
        };
        quiet.min(limits.answer)
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
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            first_request: 10 * SECOND,
            unauthenticated: 20 * SECOND,
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
        let silent = Arc::new(Activity::new());
        assert_eq!(end(&silent, &stage).await, Some(("it brings no request", 11)));
        let activity = Arc::new(Activity::new());
        let call = activity.call();
        assert!(activity.authenticated() && !activity.authenticated(), "the first one only");
        assert_eq!(end(&activity, &stage).await, None);
        drop(call);
        assert_eq!(end(&activity, &stage).await, Some(("it is idle", 901)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_authenticated_gets_seconds() {
        let (stage, _) = watch::channel(Stage::Serving);
        let activity = Arc::new(Activity::new());
        let (ended, ()) = tokio::join!(end(&activity, &stage), async {
            for _ in 0..3 {
                sleep(5 * SECOND).await;
                drop(activity.call());
            }
        });
        assert_eq!(ended, Some(("nobody has authenticated on it", 15 + 20 + 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn goaway_comes_before_the_end_and_a_call_that_crosses_it_is_finished() {
        let (stage, _) = watch::channel(Stage::Serving);
        let activity = Arc::new(Activity::new());
        drop(activity.call());
        let crossing = async {
            let began = Instant::now();
            activity.leaves().await;
            assert_eq!(began.elapsed(), 20 * SECOND);
            let call = activity.call();
            sleep(60 * SECOND).await;
            drop(call);
        };
        let (ended, ()) = tokio::join!(end(&activity, &stage), crossing);
        assert_eq!(ended, Some(("nobody has authenticated on it", 20 + 60 + 1)));
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
