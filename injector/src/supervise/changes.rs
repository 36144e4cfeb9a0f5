//! Waits for changes of the environment, and fetches what is new. The command runs on meanwhile, whatever happens here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coffer_client::{Error, follow::Follow, retry::Policy};
use coffer_proto::v1::FetchEnvironmentResponse;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    Args,
    cache::{self, Cache},
    fetch::Source,
    report,
};

/// Changes that never cease are acted on after so many times the debounce.
const DEBOUNCES_MAX: u32 = 10;
/// Waits after what does not pass by itself: an ended token, a lost right. Long, because nothing may ever change it.
const PATIENT: Policy = Policy { first: Duration::from_secs(1), max: Duration::from_secs(60), random };

fn random() -> f64 {
    (Policy::default().random)()
}

/// Follows the environment from a revision on and sends what a start now would receive, for as long as anybody listens.
pub(super) async fn follow(
    source: Source,
    revision: String,
    args: Times,
    cache: Option<Arc<Cache>>,
    news: mpsc::Sender<FetchEnvironmentResponse>,
) {
    let client = match source.client() {
        Ok(client) => client,
        Err(error) => return report::line(&format!("changes cannot be followed: {error}")),
    };
    let mut last = revision;
    let mut follow = Follow::new(client, source.asked(), &last, PATIENT);
    let mut said = Said::default();
    loop {
        match follow.next().await {
            // What was fetched meanwhile is told once more.
            Ok(change) if change.revision == last => said.nothing(),
            Ok(_) => {
                said.nothing();
                settle(&mut follow, args.debounce).await;
                sleep(args.splay.mul_f64(random())).await;
                let answer = fetch(&source, args.timeout, cache.as_ref(), &mut said).await;
                let Some(answer) = answer else { continue };
                last.clone_from(&answer.environment_revision);
                if news.send(answer).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                said.once(format!("changes cannot be followed, the command runs on: {error}"));
                heed(cache.as_ref(), error).await;
            }
        }
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

/// Waits until nothing has changed for a while.
async fn settle(follow: &mut Follow, debounce: Duration) {
    let quiet = async { while matches!(timeout(debounce, follow.next()).await, Ok(Ok(_))) {} };
    let _ = timeout(debounce * DEBOUNCES_MAX, quiet).await;
}

/// Asks until there is an answer, or one that says no. The cache is told either, in the order in which they came.
async fn fetch(
    source: &Source,
    patience: Duration,
    cache: Option<&Arc<Cache>>,
    said: &mut Said,
) -> Option<FetchEnvironmentResponse> {
    loop {
        match source.fetch(false, Instant::now() + patience).await {
            Ok(answer) => {
                said.nothing();
                return Some(keep(cache, answer).await);
            }
            Err(error) => {
                let passes = error.is_retryable();
                said.once(what(&error, passes));
                if !passes {
                    heed(cache, error).await;
                    return None;
                }
            }
        }
        sleep(PATIENT.max.mul_f64(random())).await;
    }
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

fn what(error: &Error, passes: bool) -> String {
    let then = if passes { "trying again" } else { "waiting for the next change" };
    format!("what changed cannot be fetched, the command runs on; {then}: {error}")
}

/// What was said last, so that it is not said again and again.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    fn once(&mut self, text: String) {
        if self.0.as_ref() != Some(&text) {
            report::line(&text);
            self.0 = Some(text);
        }
    }

    fn nothing(&mut self) {
        self.0 = None;
    }
}
