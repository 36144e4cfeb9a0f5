//! Waits for changes of the environment, and fetches what is new. The command runs on meanwhile, whatever happens here.

use std::{sync::Arc, time::Duration};

use coffer_client::{
    Client, Error,
    follow::{Follow, News},
    retry::Policy,
};
use coffer_proto::v1::FetchEnvironmentResponse;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{apart::at, said::Said};

use crate::{
    Args,
    cache::{self, Cache},
    fetch::Source,
};

/// Changes that never cease are acted on after so many times the debounce.
const DEBOUNCES_MAX: u32 = 10;
/// Waits after what does not pass by itself: an ended token, a lost right. Long, because nothing may ever change it.
const PATIENT: Policy = Policy { first: Duration::from_secs(1), max: Duration::from_secs(60), random };

fn random() -> f64 {
    (Policy::default().random)()
}

const LOST: &str = "changes cannot be followed, the command runs on";
const BACK: &str = "changes are followed again";

/// What the command was started with.
pub(super) struct Began {
    /// The environment revision.
    pub(super) revision: String,
    /// It is an older one that was kept: the server is to be told of the start once it is back.
    pub(super) was_kept: bool,
}

/// What became of an answer.
pub(super) enum Outcome {
    /// The command was told of it; with the revision if it now has everything that is in it.
    Taken(Option<String>),
    /// It cannot be given to the command. What is wrong may change without the environment: a manifest, a template.
    Refused,
}

/// Follows the environment from a revision on and sends what a start now would receive, for as long as anybody listens.
/// What is wrong is tried again, ever less often; what the command has is told to the server.
pub(super) async fn follow(
    mut source: Source,
    began: Began,
    args: Times,
    cache: Option<Arc<Cache>>,
    news: mpsc::Sender<FetchEnvironmentResponse>,
    mut outcomes: mpsc::Receiver<Outcome>,
) {
    let (mut said, mut said_of_fetch) = (Said::default(), Said::default());
    let Some(client) = client(&mut source, args.timeout, cache.as_ref(), &mut said).await else { return };
    let mut last = began.revision;
    let mut follow = Follow::new(client, source.asked(), &last, PATIENT);
    let (mut fetch, mut tell) = (Task::default(), Task::default());
    let mut given = last.clone();
    if began.was_kept {
        tell.within(Duration::ZERO);
    }
    loop {
        let until = || (Instant::now() + args.timeout).into_std();
        tokio::select! {
            told = follow.news() => {
                let mut told = Some(told);
                while let Some(news) = told.take() {
                    match news {
                        // What was fetched meanwhile is told once more.
                        Ok(News::Changed(change)) if change.revision == last => {}
                        Ok(News::Changed(_)) => {
                            told = settle(&mut follow, args.debounce).await;
                            fetch.within(args.splay.mul_f64(random()));
                        }
                        Ok(News::Lost(error)) => said.once([format!("{LOST}; trying again: {error}").as_str()]),
                        Ok(News::Back) => said.over(BACK),
                        Err(error) => {
                            said.once([format!("{LOST}; trying again: {error}").as_str()]);
                            heed(cache.as_ref(), error).await;
                        }
                    }
                }
            }
            outcome = outcomes.recv() => match outcome {
                None => return,
                Some(Outcome::Refused) => fetch.again(),
                Some(Outcome::Taken(revision)) => {
                    // What came since is still to be fetched.
                    fetch.failures = 0;
                    if let Some(revision) = revision {
                        given = revision;
                        tell.within(Duration::ZERO);
                    }
                }
            },
            () = at(fetch.at) => {
                fetch.at = None;
                match source.fetch_again(until()).await {
                    Ok(answer) => {
                        said_of_fetch.nothing();
                        last.clone_from(&answer.environment_revision);
                        let answer = keep(cache.as_ref(), answer).await;
                        if news.send(answer).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let what = "what changed cannot be fetched, the command runs on; trying again";
                        said_of_fetch.once([format!("{what}: {error}").as_str()]);
                        heed(cache.as_ref(), error).await;
                        fetch.again();
                    }
                }
            }
            () = at(tell.at) => {
                tell.at = None;
                match source.given(&given, until()).await {
                    Ok(()) => tell.failures = 0,
                    // Whatever it is, the watch says it too.
                    Err(_) => tell.again(),
                }
            }
        }
    }
}

/// A connection with a token that is for more than a start: at a start with what was kept it could not be exchanged yet.
async fn client(
    source: &mut Source,
    patience: Duration,
    cache: Option<&Arc<Cache>>,
    said: &mut Said,
) -> Option<Client> {
    let mut exchange = Task::default();
    loop {
        let error = match source.exchange((Instant::now() + patience).into_std()).await.and_then(|()| source.client()) {
            Ok(client) => {
                said.over(BACK);
                return Some(client);
            }
            Err(error) => error,
        };
        // A token file may be there again, but a used token never is.
        let passes = error.is_retryable() || error.is_local();
        let tries = if passes { "; trying again" } else { "" };
        said.once([format!("{LOST}{tries}: {error}").as_str()]);
        heed(cache, error).await;
        if !passes {
            return None;
        }
        exchange.again();
        at(exchange.at.take()).await;
    }
}

/// Something that is to be done at some time.
#[derive(Default)]
struct Task {
    at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

impl Task {
    /// Is to be done after so long, unless it is to be done sooner.
    fn within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        self.at = Some(self.at.map_or(at, |sooner| sooner.min(at)));
    }

    /// Did not work, and is to be done again.
    fn again(&mut self) {
        let wait = PATIENT.wait(self.failures, None);
        self.failures = self.failures.saturating_add(1);
        self.within(wait);
    }
}

/// The times of the command line that matter here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    debounce: Duration,
    splay: Duration,
    timeout: Duration,
}

impl Times {
    pub(super) fn new(args: &Args) -> Self {
        Self { debounce: args.supervise.debounce, splay: args.supervise.splay, timeout: args.timeout }
    }
}

/// Waits until nothing has changed for a while, or there is something else to tell.
async fn settle(follow: &mut Follow, debounce: Duration) -> Option<Result<News, Error>> {
    let quiet = async {
        loop {
            match timeout(debounce, follow.news()).await {
                Ok(Ok(News::Changed(_))) => {}
                told => return told.ok(),
            }
        }
    };
    timeout(debounce * DEBOUNCES_MAX, quiet).await.ok().flatten()
}

/// Keeps an answer for a start while coffer is away. On a thread that may wait for a disk.
async fn keep(cache: Option<&Arc<Cache>>, answer: FetchEnvironmentResponse) -> FetchEnvironmentResponse {
    let Some(cache) = cache.cloned() else { return answer };
    let answer = Arc::new(answer);
    let kept = Arc::clone(&answer);
    // The cache says itself what went wrong.
    let _ = spawn_blocking(move || cache.store(&kept, cache::now())).await;
    Arc::unwrap_or_clone(answer)
}

/// An error may say that nothing may be kept any more.
async fn heed(cache: Option<&Arc<Cache>>, error: Error) {
    if let Some(cache) = cache.cloned() {
        let _ = spawn_blocking(move || cache.heed(&error)).await;
    }
}
