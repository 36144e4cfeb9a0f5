//! The task that writes the history: it goes on with the newest run where etcd still tells what follows, and begins another
//! where not.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    super::{Etcd, follow::Follower, head::Head},
    State,
};
use crate::store::{
    Change, Commit, Error, Load as _, Millis, Position, Store as _,
    embedded::{Begin, BeginError, Logged, OpenError, Options, Recorded, Run, Runs, Unrecorded},
};

/// Before what failed is tried again, the first time. It doubles.
const AGAIN_WAIT: Duration = Duration::from_secs(1);
/// And at most.
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most transactions written at once.
const BATCH_COMMITS_MAX: usize = 512;
/// And no more bytes than this, unless one transaction alone has them.
const BATCH_BYTES: usize = 1 << 20;
/// How often it is looked what is too old.
const RETAIN_EVERY: Duration = Duration::from_secs(60);

/// How far a time may be ahead of this server's clock. What is later is taken for this: one clock that is wrong must not put
/// all that comes after it into the future.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// What the task owns.
pub(super) struct Recorder {
    store: Etcd,
    directory: PathBuf,
    options: Options,
    state: watch::Sender<State>,
    stopped: watch::Receiver<bool>,
    /// What blocks looks at this.
    cancelled: Arc<AtomicBool>,
}

/// Why nothing is recorded for now.
struct Trouble(String);

/// Where what was recorded before ends.
#[derive(Clone, Copy)]
struct Before {
    position: Position,
    time: Millis,
    instance: Option<[u8; 16]>,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl From<OpenError> for Trouble {
    fn from(error: OpenError) -> Self {
        Self(error.to_string())
    }
}

impl Recorder {
    pub(super) fn new(
        store: Etcd,
        directory: PathBuf,
        options: Options,
        state: watch::Sender<State>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self { store, directory, options, state, stopped, cancelled: Arc::default() }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        let mut wait = AGAIN_WAIT;
        loop {
            let began = Instant::now();
            let Err(Trouble(why)) = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                ended = self.record() => ended,
            };
            self.close().await;
            self.say(Some(why));
            wait = if began.elapsed() > AGAIN_WAIT_MAX { AGAIN_WAIT } else { (wait * 2).min(AGAIN_WAIT_MAX) };
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = sleep(wait) => {}
            }
        }
        self.cancelled.store(true, Ordering::Relaxed);
        self.close().await;
        self.state.send_modify(|state| state.runs = None);
    }

    /// Records as long as it can.
    async fn record(&mut self) -> Result<Infallible, Trouble> {
        let runs = self.open().await?;
        let (mut newest, mut before) = self.newest(&runs).await?;
        loop {
            let run = match newest.take() {
                Some(run) => run,
                None => self.begin(&runs, before).await?,
            };
            self.follow(&runs, &run).await?;
            before = Some(Before { position: run.position(), time: run.time(), instance: Some(run.instance()) });
            self.close().await;
        }
    }

    /// The directory, which stays open.
    async fn open(&self) -> Result<Arc<Runs>, Trouble> {
        if let Some(runs) = &self.state.borrow().runs {
            return Ok(Arc::clone(runs));
        }
        let (directory, options) = (self.directory.clone(), self.options);
        let runs = Arc::new(blocking(move || Runs::open(&directory, options)).await??);
        self.state.send_modify(|state| state.runs = Some(Arc::clone(&runs)));
        Ok(runs)
    }

    /// The newest run, if it is one of this store, and where it ends.
    async fn newest(&self, runs: &Arc<Runs>) -> Result<(Option<Arc<Run>>, Option<Before>), Trouble> {
        let of = Arc::clone(runs);
        let opened = blocking(move || {
            let Some(listed) = of.list()?.pop() else { return Ok(None) };
            let run = of.run(&listed);
            Ok::<_, OpenError>(Some((listed, run)))
        });
        let opened = opened.await??;
        self.state.send_modify(|state| state.is_read = true);
        let Some((listed, run)) = opened else { return Ok((None, None)) };
        let run = match run {
            Ok(run) => Arc::new(run),
            Err(error @ (OpenError::InUse(_) | OpenError::Io { .. })) => return Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "the history cannot go on here; another run begins, and this one is left as it is");
                return Ok((
                    None,
                    Some(Before { position: listed.position, time: Millis(0), instance: Runs::instance(&listed) }),
                ));
            }
        };
        let before = Before { position: run.position(), time: run.time(), instance: Some(run.instance()) };
        if Some(run.instance()) != self.store.instance() {
            blocking(move || run.close()).await?;
            return Ok((None, Some(before)));
        }
        // An etcd that has not come so far was put back to an earlier state, which whoever loads next says to everybody.
        self.store.reached(before.position);
        Ok((Some(run), Some(before)))
    }

    /// Begins a run where the store stands.
    async fn begin(&self, runs: &Arc<Runs>, before: Option<Before>) -> Result<Arc<Run>, Trouble> {
        let mut pages = self.store.pages().await?;
        let position = pages.position();
        if let Some(before) = before.filter(|before| {
            // A restore raises the epoch; what else has another instance is another store.
            let is_foreign = before.instance.is_some_and(|instance| instance != pages.stored.instance);
            before.position > position || is_foreign && before.position.epoch >= position.epoch
        }) {
            return Err(Trouble(format!(
                "{}: it goes on to {}, and the store stands at {position}: this is another store's history, so give \
                 `etcd.history` another directory",
                self.directory.display(),
                before.position
            )));
        }
        let time = before.map_or(Millis(0), |before| before.time).max(self.no_later(pages.head.time));
        let begin = Begin { instance: pages.stored.instance, position, time };
        let (runs, cancelled, runtime) = (Arc::clone(runs), Arc::clone(&self.cancelled), Handle::current());
        let begun = blocking(move || {
            runs.begin(begin, &mut || match cancelled.load(Ordering::Relaxed) {
                true => Err(Error::Unavailable("it is closed".into())),
                false => runtime.block_on(pages.page()),
            })
        });
        let run = begun.await?.map_err(|error| match error {
            BeginError::Disk(error) => Trouble::from(error),
            BeginError::Source(error) => Trouble::from(error),
        })?;
        tracing::info!(%position, directory = %self.directory.display(), "the history begins here");
        Ok(Arc::new(run))
    }

    /// Writes what follows a run until that is not told any more.
    async fn follow(&self, runs: &Arc<Runs>, run: &Arc<Run>) -> Result<(), Trouble> {
        self.state.send_modify(|state| state.run = Some((Arc::clone(run), run.position())));
        let mut follower = Follower::new(self.store.clone(), run.position(), run.last_id());
        let mut looks = interval(RETAIN_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut told = tokio::select! {
                biased;
                _ = looks.tick() => {
                    let runs = Arc::clone(runs);
                    if let Err(error) = blocking(move || runs.retain()).await? {
                        tracing::warn!(%error, "what is too old of the history is not removed; trying again later");
                    }
                    continue;
                }
                // A run that could be opened is none yet that can be written.
                () = self.caught_up(run), if self.state.borrow().problem.is_some() => {
                    self.say(None);
                    continue;
                }
                told = follower.told() => Some(told),
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(Ok(Some((commit, head)))) = told {
                bytes += commit.changes.iter().map(Change::bytes).sum::<usize>();
                batch.push(self.recorded(commit, &head));
                told = match batch.len() < BATCH_COMMITS_MAX && bytes < BATCH_BYTES {
                    // What has come already, without waiting for more.
                    true => timeout(Duration::ZERO, follower.told()).await.ok(),
                    false => None,
                };
            }
            if !batch.is_empty() && !self.write(run, batch).await? {
                tracing::error!("a transaction is larger than what the history can hold, which goes on behind it");
                return Ok(());
            }
            match told {
                None => {}
                Some(told) => {
                    told?;
                    tracing::warn!(position = %run.position(), "etcd does not tell what follows; the history has a gap");
                    return Ok(());
                }
            }
        }
    }

    /// Waits until there is nothing that is not recorded.
    async fn caught_up(&self, run: &Run) {
        while !self.store.latest().await.is_ok_and(|latest| latest <= run.position()) {
            sleep(AGAIN_WAIT).await;
        }
    }

    /// Writes commits, however long it takes until there is room; `false`: the last one is larger than what a run can hold.
    async fn write(&self, run: &Arc<Run>, mut batch: Vec<Recorded>) -> Result<bool, Trouble> {
        let mut fits = true;
        loop {
            let to = Arc::clone(run);
            let (outcome, given) = blocking(move || (to.record(&batch), batch)).await?;
            batch = given;
            match outcome {
                Ok(()) => {
                    let position = run.position();
                    self.state.send_modify(|state| state.run.iter_mut().for_each(|run| run.1 = position));
                    self.say(None);
                    return Ok(fits);
                }
                Err(Unrecorded::Full(why)) => {
                    self.say(Some(why));
                    sleep(AGAIN_WAIT).await;
                }
                Err(Unrecorded::Failed(why)) => return Err(Trouble(why)),
                // Those before it are not.
                Err(Unrecorded::TooLarge) => {
                    drop(batch.pop());
                    fits = false;
                }
            }
        }
    }

    /// Lets go of the run.
    async fn close(&self) {
        let mut run = None;
        self.state.send_modify(|state| run = state.run.take());
        if let Some((run, _)) = run {
            // What a panic left is repaired by the next opening.
            let _ = blocking(move || run.close()).await;
        }
    }

    fn recorded(&self, commit: Commit, head: &Head) -> Recorded {
        let Commit { position, changes } = commit;
        let commit = Logged { id: head.id, revision: position.revision, changes };
        Recorded { time: self.no_later(head.time), commit }
    }

    /// A time of somebody's clock, as far as this server's bears it out.
    fn no_later(&self, time: Millis) -> Millis {
        let now = self.store.0.clock.now();
        time.min(now.checked_add(AHEAD_MAX).unwrap_or(now).into())
    }

    /// Says what is wrong, once; or that nothing is any more.
    fn say(&self, problem: Option<String>) {
        let directory = self.directory.display();
        self.state.send_if_modified(|state| {
            let is_news = state.problem != problem;
            match &problem {
                Some(why) if is_news => tracing::error!(why, %directory, "the history is not recorded; trying again"),
                None if is_news => tracing::info!(%directory, "the history is recorded again"),
                _ => {}
            }
            state.problem = problem;
            is_news
        });
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if thread::panicking() {
            self.say(Some("recording ended by itself; restart the server to go on".into()));
        }
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    spawn_blocking(run).await.map_err(|error| Trouble(format!("recording ended by itself: {error}")))
}
