//! Against a server that says what it is told to.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use coffer_proto::v1::{
    FetchEnvironmentRequest, FetchEnvironmentResponse,
    workloads_server::{Workloads, WorkloadsServer},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};

use super::*;
use crate::Config;

/// How long anything may take here.
const SOON: Duration = Duration::from_secs(10);
/// Messages and watches that wait to be looked at.
const MESSAGES: usize = 16;
const QUICK: Policy = Policy { first: Duration::from_millis(10), max: Duration::from_millis(20), random: || 1.0 };

type Message = Result<WatchEnvironmentResponse, Status>;

/// A watch that arrived: what it asked, and how to answer it.
struct Arrived {
    revision: String,
    messages: mpsc::Sender<Message>,
}

struct Fake {
    arrived: mpsc::Sender<Arrived>,
    live: Arc<AtomicUsize>,
    refusals: std::sync::Mutex<Vec<Status>>,
}

/// A stream that counts while it lives.
struct Counted {
    messages: mpsc::Receiver<Message>,
    live: Arc<AtomicUsize>,
}

impl Stream for Counted {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.messages.poll_recv(context)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Workloads for Fake {
    type WatchEnvironmentStream = Counted;

    async fn fetch_environment(
        &self,
        _request: Request<FetchEnvironmentRequest>,
    ) -> Result<Response<FetchEnvironmentResponse>, Status> {
        Ok(Response::new(FetchEnvironmentResponse::default()))
    }

    async fn watch_environment(&self, request: Request<WatchEnvironmentRequest>) -> Result<Response<Counted>, Status> {
        if let Some(refusal) = self.refusals.lock().expect("no panic before").pop() {
            return Err(refusal);
        }
        let (messages, receiver) = mpsc::channel(MESSAGES);
        self.live.fetch_add(1, Ordering::SeqCst);
        let revision = request.into_inner().environment_revision;
        self.arrived.try_send(Arrived { revision, messages }).expect("the test listens");
        Ok(Response::new(Counted { messages: receiver, live: self.live.clone() }))
    }
}

struct Scene {
    client: Client,
    arrived: mpsc::Receiver<Arrived>,
    live: Arc<AtomicUsize>,
}

async fn scene(refusals: Vec<Status>) -> Scene {
    scene_with(refusals, SOON).await
}

async fn scene_with(refusals: Vec<Status>, call_timeout: Duration) -> Scene {
    let (sender, arrived) = mpsc::channel(MESSAGES);
    let live = Arc::<AtomicUsize>::default();
    let fake = Fake { arrived: sender, live: live.clone(), refusals: refusals.into() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let server = Server::builder().add_service(WorkloadsServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = Client::lazy(Config { call_timeout, ..Config::new(address) }).expect("a client");
    Scene { client, arrived, live }
}

impl Scene {
    fn follow(&self, revision: &str) -> Follow {
        Follow::new(self.client.clone(), "projects/p/servers/s", revision, QUICK)
    }

    async fn watch(&mut self) -> Arrived {
        timeout(SOON, self.arrived.recv()).await.expect("in time").expect("a watch")
    }
}

fn message(revision: &str, changed: &[&str], reset: bool) -> Message {
    let changed_names = changed.iter().map(|name| (*name).to_owned()).collect();
    Ok(WatchEnvironmentResponse { environment_revision: revision.to_owned(), changed_names, reset })
}

/// Follows in a task, so that the test can answer meanwhile.
fn next(mut follow: Follow) -> tokio::task::JoinHandle<(Follow, Result<Change, Error>)> {
    tokio::spawn(async move {
        let result = timeout(SOON, follow.next()).await.expect("in time");
        (follow, result)
    })
}

#[tokio::test]
async fn what_waits_is_one_change() {
    let mut scene = scene(Vec::new()).await;
    let task = next(scene.follow("r0"));
    let watch = scene.watch().await;
    assert_eq!(watch.revision, "r0");
    watch.messages.try_send(message("r1", &["B", "A"], false)).expect("open");
    let (follow, change) = task.await.expect("no panic");
    let expected = Change { revision: "r1".into(), changed: vec!["A".into(), "B".into()], reset: false };
    assert_eq!(change.expect("a change"), expected);

    // The first wakes it; by the time it is asked again the others are there.
    for sent in [message("r2", &["C"], false), message("r3", &["A"], false), message("r4", &["C"], false)] {
        watch.messages.try_send(sent).expect("open");
    }
    let mut names = std::collections::BTreeSet::new();
    let (mut follow, mut revision) = (follow, String::new());
    while revision != "r4" {
        let (back, change) = next(follow).await.expect("no panic");
        let change = change.expect("a change");
        names.extend(change.changed);
        (follow, revision) = (back, change.revision);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["A", "C"], "no name is lost");
}

#[tokio::test]
async fn a_reset_wins() {
    let mut scene = scene(Vec::new()).await;
    let task = next(scene.follow(""));
    let watch = scene.watch().await;
    watch.messages.try_send(message("r1", &[], true)).expect("open");
    let (_, change) = task.await.expect("no panic");
    assert_eq!(change.expect("a change"), Change { revision: "r1".into(), changed: Vec::new(), reset: true });
}

#[tokio::test]
async fn it_reconnects_from_the_revision_given_last() {
    let mut scene = scene(vec![Status::unavailable("not yet"), Status::resource_exhausted("busy")]).await;
    let task = next(scene.follow("r0"));
    let watch = scene.watch().await;
    watch.messages.try_send(message("r1", &["A"], false)).expect("open");
    let (follow, change) = task.await.expect("no panic");
    assert_eq!(change.expect("a change").revision, "r1");
    for end in [Some(Status::unavailable("going away")), Some(Status::resource_exhausted("too slow")), None] {
        let task = next(scene.follow("x"));
        let watch = scene.watch().await;
        match end {
            Some(status) => watch.messages.try_send(Err(status)).expect("open"),
            None => drop(watch),
        }
        let again = scene.watch().await;
        assert_eq!(again.revision, "x");
        again.messages.try_send(message("y", &[], true)).expect("open");
        assert_eq!(task.await.expect("no panic").1.expect("a change").revision, "y");
    }
    drop(watch);
    let task = next(follow);
    let watch = scene.watch().await;
    assert_eq!(watch.revision, "r1");
    watch.messages.try_send(message("r2", &[], false)).expect("open");
    assert_eq!(task.await.expect("no panic").1.expect("a change").revision, "r2");
}

#[tokio::test]
async fn what_will_not_pass_is_told_and_can_be_asked_again() {
    let mut scene = scene(vec![Status::permission_denied("no")]).await;
    let (follow, denied) = next(scene.follow("")).await.expect("no panic");
    assert_eq!(denied.expect_err("denied").code(), Code::PermissionDenied);
    let task = next(follow);
    let watch = scene.watch().await;
    watch.messages.try_send(Err(Status::unauthenticated("revoked"))).expect("open");
    let (follow, revoked) = task.await.expect("no panic");
    assert_eq!(revoked.expect_err("revoked").code(), Code::Unauthenticated);
    let task = next(follow);
    scene.watch().await.messages.try_send(message("r1", &[], true)).expect("open");
    assert_eq!(task.await.expect("no panic").1.expect("a change").revision, "r1");
}

/// Follows in a task, with all that is told.
fn news(mut follow: Follow) -> tokio::task::JoinHandle<(Follow, Result<News, Error>)> {
    tokio::spawn(async move {
        let result = timeout(SOON, follow.news()).await.expect("in time");
        (follow, result)
    })
}

#[tokio::test]
async fn an_outage_is_told_once_and_that_it_is_over() {
    let busy = || Status::resource_exhausted("busy");
    let mut scene = scene(vec![busy(), busy(), busy(), busy()]).await;
    let mut follow = scene.follow("r0");
    follow.outage_min = Duration::from_millis(15);
    let (follow, told) = news(follow).await.expect("no panic");
    assert!(matches!(&told, Ok(News::Lost(error)) if error.message() == "busy"), "{told:?}");
    let (follow, told) = news(follow).await.expect("no panic");
    assert!(matches!(told, Ok(News::Back)), "{told:?}");
    let task = news(follow);
    let watch = scene.watch().await;
    watch.messages.try_send(message("r1", &["A"], false)).expect("open");
    let (_, told) = task.await.expect("no panic");
    assert!(matches!(&told, Ok(News::Changed(change)) if change.revision == "r1"), "{told:?}");
}

#[tokio::test]
async fn a_short_outage_is_not_told() {
    let mut scene = scene(vec![Status::unavailable("not yet"); 3]).await;
    let task = news(scene.follow("r0"));
    scene.watch().await.messages.try_send(message("r1", &["A"], false)).expect("open");
    let (_, told) = task.await.expect("no panic");
    assert!(matches!(told, Ok(News::Changed(_))), "{told:?}");
}

#[tokio::test]
async fn that_it_is_over_is_told_after_an_error_too() {
    let mut scene = scene(vec![Status::permission_denied("no")]).await;
    let (follow, denied) = news(scene.follow("r0")).await.expect("no panic");
    assert_eq!(denied.expect_err("denied").code(), Code::PermissionDenied);
    let (follow, told) = news(follow).await.expect("no panic");
    assert!(matches!(told, Ok(News::Back)), "{told:?}");
    scene.watch().await.messages.try_send(Err(Status::unauthenticated("revoked"))).expect("open");
    let (follow, revoked) = news(follow).await.expect("no panic");
    assert_eq!(revoked.expect_err("revoked").code(), Code::Unauthenticated);
    assert!(matches!(news(follow).await.expect("no panic").1, Ok(News::Back)));
}

#[tokio::test]
async fn cancelled_it_has_lost_nothing_and_dropped_it_frees_the_server() {
    let mut scene = scene(Vec::new()).await;
    let mut follow = scene.follow("r0");
    for _ in 0..20 {
        let _ = timeout(Duration::from_millis(5), follow.next()).await;
    }
    let watch = scene.watch().await;
    watch.messages.try_send(message("r1", &["A"], false)).expect("open");
    // Any of the calls before may have made the watch; it is one.
    let change = timeout(SOON, follow.next()).await.expect("in time").expect("a change");
    assert_eq!((change.revision.as_str(), scene.live.load(Ordering::SeqCst)), ("r1", 1));
    drop(follow);
    let freed = async {
        while scene.live.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, freed).await.expect("the server's stream ends");
}

/// Polls once, and gives up if that was not enough.
async fn once(follow: &mut Follow) -> Option<Result<Change, Error>> {
    let mut next = pin!(follow.next());
    poll_fn(|context| match next.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_caller_that_always_gives_up_still_gets_the_change() {
    let mut scene = scene(Vec::new()).await;
    let task = next(scene.follow("r0"));
    let watch = scene.watch().await;
    watch.messages.try_send(message("r1", &["A"], false)).expect("open");
    let mut follow = task.await.expect("no panic").0;
    watch.messages.try_send(message("r2", &["B"], false)).expect("open");
    let polled = async {
        loop {
            if let Some(change) = once(&mut follow).await {
                break change.expect("a change");
            }
            tokio::task::yield_now().await;
        }
    };
    let change = timeout(SOON, polled).await.expect("a message taken was lost with its caller");
    assert_eq!((change.revision.as_str(), change.changed), ("r2", vec!["B".to_owned()]));
}

#[tokio::test]
async fn a_watch_lives_longer_than_a_call_may_take() {
    let mut scene = scene_with(Vec::new(), Duration::from_millis(300)).await;
    let task = next(scene.follow("r0"));
    let watch = scene.watch().await;
    // Three times what a call may take: nothing tells that no deadline comes but its not coming.
    tokio::time::sleep(Duration::from_millis(900)).await;
    watch.messages.try_send(message("r1", &[], false)).expect("open");
    assert_eq!(task.await.expect("no panic").1.expect("a change").revision, "r1");
    assert!(scene.arrived.try_recv().is_err(), "it is the first watch still");
}
