//! Follows a workload's environment: from what the caller has to the newest, for as long as the caller likes.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use coffer_proto::v1::{WatchEnvironmentRequest, WatchEnvironmentResponse};
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use crate::{Client, Error, retry::Policy};

/// A watch that lived so long was no failure, even if nothing happened in it.
const LIVED: Duration = Duration::from_secs(30);
/// What cannot be followed for so long is told. Servers that are started anew are away for less.
const OUTAGE: Duration = Duration::from_secs(5);

/// A new state of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The environment revision now. Given to [`Follow::new`], it goes on from here.
    pub revision: String,
    /// The names that were added, removed or given another value since the state before. Empty if `reset`.
    pub changed: Vec<String>,
    /// What changed is not known: anything may have.
    pub reset: bool,
}

/// What there is to tell of an environment, and of following it.
#[derive(Clone, Debug)]
pub enum News {
    /// A new state.
    Changed(Change),
    /// It cannot be followed for this reason, and could not be for 5 seconds. Told once; it is tried again.
    Lost(Error),
    /// After `Lost` or an error: it is followed again.
    Back,
}

/// Follows one environment. Dropping it ends the watch and frees what it takes here and on the server.
///
/// ```no_run
/// # async fn run(client: coffer_client::Client) {
/// use coffer_client::{follow::Follow, retry::Policy};
///
/// let mut follow = Follow::new(client, "projects/p/servers/web", "", Policy::default());
/// loop {
///     match follow.next().await {
///         Ok(change) => println!("{}: {:?}", change.revision, change.changed),
///         // The right or the token is gone. Asked again, it tries again, no quicker than the policy allows.
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # }
/// ```
pub struct Follow {
    client: Client,
    workload: String,
    revision: String,
    policy: Policy,
    stream: Option<Open>,
    /// Failures in a row.
    failures: u32,
    /// Not to be tried again before.
    resume: Option<Instant>,
    /// It cannot be followed.
    outage: Option<Outage>,
    outage_min: Duration,
}

/// Since when, and whether the caller knows.
struct Outage {
    since: Instant,
    is_told: bool,
}

struct Open {
    messages: Streaming<WatchEnvironmentResponse>,
    since: Instant,
}

impl Follow {
    /// Follows the environment of `workload`; empty means the caller's own, with a workload's token. `revision` is the
    /// environment revision that the caller has; empty for none. Nothing happens before [`Follow::next`].
    pub fn new(client: Client, workload: &str, revision: &str, policy: Policy) -> Self {
        let (workload, revision) = (workload.to_owned(), revision.to_owned());
        let (stream, failures, resume, outage) = (None, 0, None, None);
        Self { client, workload, revision, policy, stream, failures, resume, outage, outage_min: OUTAGE }
    }

    /// The newest state, once it differs from the one given last. States between are left out, their changed names are
    /// not. Reconnects by itself after whatever [may pass](Error::is_retryable), from the revision given last, so that no
    /// change is missed.
    ///
    /// Cancel-safe: dropped before it is done, it has lost nothing.
    ///
    /// # Errors
    /// What does not pass by itself: the right or the token is gone. Called again, it tries again after a while.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let News::Changed(change) = self.news().await? {
                return Ok(change);
            }
        }
    }

    /// The same for whoever wants to hear also of outages that pass, which [`Follow::next`] is silent about.
    ///
    /// # Errors
    /// As [`Follow::next`].
    pub async fn news(&mut self) -> Result<News, Error> {
        loop {
            let Some(open) = &mut self.stream else {
                match self.connect().await? {
                    Some(news) => return Ok(news),
                    None => continue,
                }
            };
            match open.messages.message().await {
                Ok(Some(message)) => return Ok(News::Changed(self.newest(message).await)),
                Ok(None) => self.lost(None),
                Err(status) => {
                    let error = Error::from(status);
                    self.lost(error.retry_after());
                    if !error.is_retryable() {
                        self.outage().is_told = true;
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Option<News>, Error> {
        if let Some(resume) = self.resume {
            sleep_until(resume).await;
        }
        let request =
            WatchEnvironmentRequest { workload: self.workload.clone(), environment_revision: self.revision.clone() };
        let mut workloads = self.client.workloads();
        match self.client.call(workloads.watch_environment(request)).await {
            Ok(messages) => {
                self.stream = Some(Open { messages, since: Instant::now() });
                self.resume = None;
                Ok(self.outage.take().filter(|outage| outage.is_told).map(|_| News::Back))
            }
            Err(error) => {
                self.lost(error.retry_after());
                let outage_min = self.outage_min;
                let outage = self.outage();
                if !error.is_retryable() {
                    outage.is_told = true;
                    return Err(error);
                }
                let is_news = !outage.is_told && outage.since.elapsed() >= outage_min;
                outage.is_told |= is_news;
                Ok(is_news.then_some(News::Lost(error)))
            }
        }
    }

    fn outage(&mut self) -> &mut Outage {
        self.outage.get_or_insert_with(|| Outage { since: Instant::now(), is_told: false })
    }

    /// Merges what is there already.
    async fn newest(&mut self, first: WatchEnvironmentResponse) -> Change {
        self.failures = 0;
        let mut change = first;
        while let Some(open) = &mut self.stream {
            // Polled once and never left waiting: a caller that gave up here would lose what was taken already.
            let polled = poll_fn(|context| Poll::Ready(pin!(open.messages.message()).poll(context))).await;
            match polled {
                Poll::Ready(Ok(Some(next))) => {
                    change.reset |= next.reset;
                    change.changed_names.extend(next.changed_names);
                    change.environment_revision = next.environment_revision;
                }
                Poll::Ready(Ok(None) | Err(_)) => self.lost(None),
                Poll::Pending => break,
            }
        }
        self.revision.clone_from(&change.environment_revision);
        let mut changed = if change.reset { Vec::new() } else { change.changed_names };
        changed.sort_unstable();
        changed.dedup();
        Change { revision: change.environment_revision, changed, reset: change.reset }
    }

    /// The watch is over: when to try again.
    fn lost(&mut self, asked: Option<Duration>) {
        if self.stream.take().is_some_and(|open| open.since.elapsed() >= LIVED) {
            self.failures = 0;
        }
        let wait = self.policy.wait(self.failures, asked);
        self.failures = self.failures.saturating_add(1);
        self.resume = Instant::now().checked_add(wait);
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("workload", &self.workload)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
