//! Whether the view is as new as the store, and what is answered while that cannot be known.
//!
//! A call waits until the view has reached what a look at the store showed that began after the call came; calls that come
//! together share a look. Of a store that others write to and that may be out of reach, a look that fails opens a breaker:
//! from then on nobody waits for the store. Calls of workloads are answered from the view and say so, as long as it was not
//! long ago that the view was known to be new; all others are refused. Looks go on and close it.

use std::{
    future,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{Call, Error, Inner, Vault};

/// Longest a look may take that calls wait for.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// How often it is looked when no call does, so that it is known how old the view is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often while the breaker is open.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Longest a look may take that nobody waits for: a view that has much to catch up with needs more than a call may wait.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// A server that has not reached its store for so long is cut off: etcd may elect a leader in less.
const CUT_OFF_MIN: Duration = Duration::from_secs(10);

/// Most causes of one outage that are logged.
const CAUSES_TOLD_MAX: usize = 3;

/// Services whose calls are answered from the view while the store is out of reach: those of workloads.
const FROM_VIEW: [&str; 3] = ["coffer.v1.Workloads/", "coffer.v1.Templates/", "coffer.v1.Redactions/"];

/// How much a vault can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Nothing: the view has failed, or is too old.
    Nothing,
    /// Calls of workloads, from the view.
    Workloads,
    /// Everything.
    Everything,
}

/// Whether the calls of a service, `package.Name`, are answered from the view while the store is out of reach.
pub fn is_served_from_view(service: &str) -> bool {
    FROM_VIEW.iter().any(|served| served.trim_end_matches('/') == service)
}

/// Whose the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// This process's alone, and always within reach.
    Own,
    /// Other servers' too, beyond a network.
    Shared {
        /// How long after the last good look the calls of workloads are still answered from the view.
        max_stale: Duration,
    },
}

/// What is known of the store.
pub(super) struct Freshness {
    max_stale: Duration,
    /// One look at a time, so that those who come meanwhile share the next.
    turn: tokio::sync::Mutex<()>,
    /// The look that has not begun.
    next: Mutex<Option<Round>>,
    known: watch::Sender<Known>,
}

/// A look that many wait for; `None` until it is done.
type Round = watch::Receiver<Option<Result<(), Error>>>;

struct Known {
    /// When the last good look began, since the machine's start and as a date.
    good: (Duration, SystemTime),
    /// Why the breaker is open.
    broken: Option<Error>,
    /// What was said of that in the log.
    told: Vec<String>,
}

impl Freshness {
    pub(super) fn new(max_stale: Duration, now: (Duration, SystemTime)) -> Self {
        Self {
            max_stale,
            turn: tokio::sync::Mutex::default(),
            next: Mutex::default(),
            known: watch::Sender::new(Known { good: now, broken: None, told: Vec::new() }),
        }
    }

    fn broken(&self) -> Option<Error> {
        self.known.borrow().broken.clone()
    }

    /// Waits until the breaker is open.
    async fn breaks(&self) -> Error {
        let mut known = self.known.subscribe();
        let broken = known.wait_for(|known| known.broken.is_some()).await.ok().and_then(|known| known.broken.clone());
        match broken {
            Some(broken) => broken,
            // The sender lives as long as this.
            None => future::pending().await,
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<Round>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the view was known to be new.
    fn age(&self, uptime: Duration) -> Duration {
        uptime.saturating_sub(self.known.borrow().good.0)
    }

    /// Learns from a look that began then and took so long.
    fn learn(&self, began: (Duration, SystemTime), took: Duration, result: &Result<(), Error>) {
        self.known.send_modify(|known| match result {
            Ok(()) => {
                known.good = known.good.max(began);
                // Closed after a look that took longer than calls may wait, the breaker would open at the next call.
                if took <= LOOK_MAX && known.broken.take().is_some() {
                    known.told.clear();
                    tracing::info!("the store is within reach again");
                }
            }
            Err(Error::StoreUnavailable(why)) => {
                // A look that was given up says less than the next one that fails by itself.
                if known.told.len() < CAUSES_TOLD_MAX && !known.told.contains(why) {
                    known.told.push(why.clone());
                    tracing::warn!(why, max_stale = ?self.max_stale, "the store is out of reach");
                }
                known.broken = Some(Error::StoreUnavailable(why.clone()));
            }
            // The view or the store has failed for good, which is told elsewhere.
            Err(_) => {}
        });
    }
}

impl Vault {
    /// Waits until the view shows everything acknowledged before now, by any server of the store. A call that may be
    /// answered without is marked as stale, also if its caller wants no such answer and is refused.
    pub(super) async fn fresh(&self, call: &Call) -> Result<(), Error> {
        let error = match self.current().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let Some(freshness) = &self.0.freshness else { return Err(error) };
        let is_workloads = FROM_VIEW.iter().any(|service| call.method.starts_with(service));
        if matches!(error, Error::StoreUnavailable(_)) && is_workloads && !self.is_too_stale(freshness) {
            call.mark_stale(freshness.known.borrow().good.1);
            return if call.refuses_stale { Err(error) } else { Ok(()) };
        }
        Err(error)
    }

    /// The same for what must not be answered otherwise.
    pub(super) async fn current(&self) -> Result<(), Error> {
        let Some(freshness) = &self.0.freshness else { return self.look().await };
        if let Some(broken) = freshness.broken() {
            return Err(broken);
        }
        let mut round = self.join(freshness);
        let done = round.wait_for(Option::is_some).await.ok().and_then(|done| done.clone());
        done.unwrap_or_else(|| Err(Error::Internal("a look at the store ended in a panic".into())))
    }

    /// Waits until the store is out of reach, for who waits for something else and would wait in vain.
    pub(super) async fn out_of_reach(&self) -> Error {
        match &self.0.freshness {
            Some(freshness) => freshness.breaks().await,
            None => future::pending().await,
        }
    }

    /// The look that begins next.
    fn join(&self, freshness: &Freshness) -> Round {
        let mut next = freshness.next();
        if let Some(round) = next.as_ref() {
            return round.clone();
        }
        let (done, round) = watch::channel(None);
        *next = Some(round.clone());
        drop(next);
        let vault = self.clone();
        // A task of its own: whoever began it may go away while others wait.
        tokio::spawn(async move {
            let result = vault.take_turn().await;
            done.send_replace(Some(result));
        });
        round
    }

    async fn take_turn(&self) -> Result<(), Error> {
        let Some(freshness) = &self.0.freshness else { return self.look().await };
        let _turn = freshness.turn.lock().await;
        // Whoever comes from here on waits for another one.
        freshness.next().take();
        match freshness.broken() {
            Some(broken) => Err(broken),
            None => self.look_within(freshness, LOOK_MAX).await,
        }
    }

    async fn look_within(&self, freshness: &Freshness, max: Duration) -> Result<(), Error> {
        let began = (self.0.clock.uptime(), self.now());
        let start = Instant::now();
        let late = |_| Err(Error::StoreUnavailable(format!("it did not answer within {} ms", max.as_millis())));
        let result = timeout(max, self.look()).await.unwrap_or_else(late);
        freshness.learn(began, start.elapsed(), &result);
        result
    }

    async fn look(&self) -> Result<(), Error> {
        let latest = self.0.store.latest().await?;
        Ok(self.0.view.reached(latest).await?)
    }

    /// Why what goes on here had better go on at another server of the store.
    pub(super) fn cut_off(&self) -> Option<Error> {
        let freshness = self.0.freshness.as_ref()?;
        freshness.broken().filter(|_| freshness.age(self.0.clock.uptime()) >= CUT_OFF_MIN)
    }

    /// Whether others write to the store.
    pub(super) fn is_shared(&self) -> bool {
        self.0.freshness.is_some()
    }

    fn is_too_stale(&self, freshness: &Freshness) -> bool {
        freshness.age(self.0.clock.uptime()) > freshness.max_stale
    }

    /// Looks when no call does, and says whether anybody can be served.
    async fn probe(&self, freshness: &Freshness) {
        let is_broken = freshness.broken().is_some();
        // A call's look may have opened the breaker, and this one's own may take seconds.
        self.say(freshness);
        if is_broken || freshness.age(self.0.clock.uptime()) >= LOOK_EVERY {
            // What went wrong is learnt.
            let _ = self.look_within(freshness, if is_broken { PROBE_MAX } else { LOOK_MAX }).await;
        }
        self.say(freshness);
    }

    fn say(&self, freshness: &Freshness) {
        let serves = match (self.0.view.error(), freshness.broken()) {
            (None, None) => Serves::Everything,
            (None, Some(_)) if !self.is_too_stale(freshness) => Serves::Workloads,
            _ => Serves::Nothing,
        };
        self.0.serves.send_if_modified(|served| std::mem::replace(served, serves) != serves);
    }
}

/// Goes on looking until the vault is gone.
pub(super) async fn keep_looking(vault: Weak<Inner>) {
    loop {
        let Some(inner) = vault.upgrade() else { return };
        let wait = match &inner.freshness {
            None => return,
            Some(freshness) if freshness.broken().is_some() => PROBE_EVERY,
            // When the last one is so old, and not a whole turn after that.
            Some(freshness) => LOOK_EVERY.saturating_sub(freshness.age(inner.clock.uptime())).max(PROBE_EVERY),
        };
        drop(inner);
        sleep(wait).await;
        let Some(vault) = vault.upgrade().map(Vault) else { return };
        if let Some(freshness) = &vault.0.freshness {
            vault.probe(freshness).await;
        }
    }
}

impl Sharing {
    pub(super) fn freshness(self, now: (Duration, SystemTime)) -> Option<Freshness> {
        match self {
            Sharing::Own => None,
            Sharing::Shared { max_stale } => Some(Freshness::new(max_stale, now)),
        }
    }
}
