//! Against several servers that answer what they are told to.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use coffer_proto::{
    metadata,
    reason::Reason,
    v1::{
        FetchEnvironmentRequest, FetchEnvironmentResponse, WatchEnvironmentRequest, WatchEnvironmentResponse,
        workloads_server::{Workloads, WorkloadsServer},
    },
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::STREAMED;
use crate::{Addresses, Client, Config, Error};

/// A server that refuses every call, or answers with its own number.
#[derive(Clone)]
struct Fake {
    number: usize,
    does: Does,
    /// Whether its refusals are as coffer's, which say a reason.
    is_coffer: bool,
    asked: Arc<Mutex<Vec<usize>>>,
}

/// What a server does.
#[derive(Clone, Copy)]
enum Does {
    Answer,
    Refuse(Code),
    /// It has not reached its store since then, and answers who takes that.
    Offer(&'static str),
    /// It has not, and cannot answer what it is asked.
    Regret(&'static str),
    Hang,
}

const AWAY: Does = Does::Refuse(Code::Unavailable);
const LONG_AGO: &str = "2026-01-01T00:00:00.000Z";
const LATELY: &str = "2026-01-01T00:09:00.500Z";

fn told(code: Code, is_coffer: bool) -> Status {
    let details = ErrorDetails::with_error_info("STORE_UNAVAILABLE", "coffer", HashMap::new());
    if is_coffer { Status::with_error_details(code, "as told", details) } else { Status::new(code, "as told") }
}

impl Fake {
    async fn answer<T>(&self, request: &Request<T>) -> Result<String, Status> {
        self.asked.lock().expect("no panic before").push(self.number);
        let takes_stale = request.metadata().get(metadata::STALE).is_none_or(|value| value != metadata::STALE_REFUSED);
        match self.does {
            Does::Answer => Ok(self.number.to_string()),
            Does::Offer(_) if takes_stale => Ok(self.number.to_string()),
            Does::Refuse(code) => Err(told(code, self.is_coffer)),
            Does::Hang => std::future::pending().await,
            Does::Offer(since) | Does::Regret(since) => {
                let mut status = told(Code::Unavailable, self.is_coffer);
                status.metadata_mut().insert(metadata::STALE_SINCE, since.parse().expect("ASCII"));
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl Workloads for Fake {
    type WatchEnvironmentStream = Pin<Box<dyn Stream<Item = Result<WatchEnvironmentResponse, Status>> + Send>>;

    async fn fetch_environment(
        &self,
        request: Request<FetchEnvironmentRequest>,
    ) -> Result<Response<FetchEnvironmentResponse>, Status> {
        let environment_revision = self.answer(&request).await?;
        Ok(Response::new(FetchEnvironmentResponse { environment_revision, ..Default::default() }))
    }

    async fn watch_environment(
        &self,
        request: Request<WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchEnvironmentStream>, Status> {
        let environment_revision = self.answer(&request).await?;
        let first = WatchEnvironmentResponse { environment_revision, ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)))))
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Such servers; a client of all; and who was asked, in order.
async fn servers(does: &[Does]) -> (Config, Arc<Mutex<Vec<usize>>>) {
    servers_like(does, true).await
}

async fn servers_like(does: &[Does], is_coffer: bool) -> (Config, Arc<Mutex<Vec<usize>>>) {
    let asked = Arc::<Mutex<Vec<usize>>>::default();
    let mut addresses = Vec::new();
    for (number, does) in does.iter().copied().enumerate() {
        let (listener, address) = listener().await;
        let fake = Fake { number, does, is_coffer, asked: asked.clone() };
        let server = Server::builder().add_service(WorkloadsServer::new(fake));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        addresses.push(address);
    }
    (config(&addresses), asked)
}

/// Where nobody listens.
async fn nobody() -> SocketAddr {
    listener().await.1
}

fn config(addresses: &[SocketAddr]) -> Config {
    let text = addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>().join(", ");
    Config::new(text.parse::<Addresses>().expect("addresses"))
}

async fn fetch(client: &Client) -> Result<String, Error> {
    let fetched = client.call(client.workloads().fetch_environment(FetchEnvironmentRequest::default())).await;
    fetched.map(|fetched| fetched.environment_revision)
}

#[tokio::test]
async fn a_call_goes_on_at_the_next_server_and_the_next_call_begins_there() {
    let (config, asked) = servers(&[AWAY, AWAY, Does::Answer]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    for _ in 0..2 {
        assert_eq!(fetch(&client).await.expect("an answer"), "2");
    }
    assert_eq!(*asked.lock().expect("no panic before"), [0, 1, 2, 2]);
    let watch = client.workloads().watch_environment(WatchEnvironmentRequest::default()).await.expect("a stream");
    let first = watch.into_inner().next().await.expect("a message").expect("no error");
    assert_eq!(first.environment_revision, "2");
}

#[tokio::test]
async fn what_a_proxy_may_have_passed_on_is_not_sent_again_and_the_next_call_goes_elsewhere() {
    let (config, asked) = servers_like(&[AWAY, Does::Answer], false).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect_err("of nobody knows what").code(), Code::Unavailable);
    assert_eq!(fetch(&client).await.expect("an answer"), "1");
    assert_eq!(*asked.lock().expect("no panic before"), [0, 1]);
}

#[tokio::test]
async fn where_nobody_listens_the_next_one_is_asked_also_at_once() {
    let nobody = nobody().await;
    let (good, asked) = servers(&[Does::Answer]).await;
    let text = format!("http://{nobody},{}", good.addresses);
    let config = Config::new(text.parse::<Addresses>().expect("addresses"));
    let client = Client::lazy(config.clone()).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect("an answer"), "0");
    let client = Client::connect(config).await.expect("one of them is there");
    assert_eq!(fetch(&client).await.expect("an answer"), "0");
    assert_eq!(asked.lock().expect("no panic before").len(), 2);
}

#[tokio::test]
async fn what_may_have_been_done_or_was_refused_is_not_sent_again() {
    for code in [Code::Unknown, Code::NotFound, Code::PermissionDenied, Code::DeadlineExceeded, Code::Internal] {
        let (config, asked) = servers(&[Does::Refuse(code), Does::Answer]).await;
        let client = Client::lazy(config).expect("nothing to connect to yet");
        assert_eq!(fetch(&client).await.expect_err("refused").code(), code);
        assert_eq!(*asked.lock().expect("no panic before"), [0], "{code:?}");
    }
}

#[tokio::test]
async fn when_all_are_away_the_call_says_so_and_the_next_one_asks_all_again() {
    let (config, asked) = servers(&[AWAY; 3]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    for round in 1..3 {
        assert_eq!(fetch(&client).await.expect_err("away").code(), Code::Unavailable);
        assert_eq!(asked.lock().expect("no panic before").len(), round * 3);
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_call() {
    // It accepts, and says nothing.
    let (hangs, address) = listener().await;
    let (good, _) = servers(&[Does::Answer]).await;
    let text = format!("http://{address},{}", good.addresses);
    let mut config = Config::new(text.parse::<Addresses>().expect("addresses"));
    config.call_timeout = Duration::from_secs(1);
    let client = Client::lazy(config).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect_err("no answer").code(), Code::DeadlineExceeded);
    assert_eq!(fetch(&client).await.expect("an answer"), "0");
    drop(hangs);
}

#[tokio::test]
async fn who_does_not_reach_the_store_is_asked_only_if_nobody_else_does() {
    let (config, asked) = servers(&[Does::Offer(LATELY), AWAY, Does::Answer]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    for _ in 0..2 {
        assert_eq!(fetch(&client).await.expect("an answer"), "2");
    }
    assert_eq!(*asked.lock().expect("no panic before"), [0, 1, 2, 2]);

    let (config, _) = servers(&[Does::Offer(LATELY), Does::Answer]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    let watch = client.workloads().watch_environment(WatchEnvironmentRequest::default()).await.expect("a stream");
    let first = watch.into_inner().next().await.expect("a message").expect("no error");
    assert_eq!(first.environment_revision, "1");
}

#[tokio::test]
async fn a_refusal_of_now_wins_over_an_answer_of_then() {
    for code in [Code::Unauthenticated, Code::PermissionDenied, Code::NotFound, Code::ResourceExhausted] {
        let (config, asked) = servers(&[Does::Offer(LATELY), Does::Refuse(code), Does::Offer(LATELY)]).await;
        let client = Client::lazy(config).expect("nothing to connect to yet");
        assert_eq!(fetch(&client).await.expect_err("refused").code(), code);
        let asked = asked.lock().expect("no panic before");
        assert!(asked[0] == 0 && asked.iter().skip(1).all(|later| *later != 0), "{code:?}: {asked:?}");
    }
}

#[tokio::test]
async fn of_several_answers_of_then_the_newest_is_taken() {
    let does = [Does::Offer(LONG_AGO), Does::Offer(LATELY), AWAY, Does::Regret("2026-01-01T00:10:00.000Z")];
    let (config, asked) = servers(&does).await;
    let text = format!("http://{},{}", nobody().await, config.addresses);
    let client = Client::lazy(Config::new(text.parse().expect("addresses"))).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect("an answer"), "1");
    let mut asked = asked.lock().expect("no panic before").clone();
    asked[1..4].sort_unstable();
    assert_eq!(asked, [0, 1, 2, 3, 3, 1], "the others at once, and then the newest first");
}

#[tokio::test]
async fn of_answers_that_are_nearly_as_old_the_one_of_who_was_asked_first_is_taken() {
    let (config, _) = servers(&[Does::Offer(LATELY), Does::Offer("2026-01-01T00:09:01.000Z")]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    for _ in 0..2 {
        assert_eq!(fetch(&client).await.expect("an answer"), "0");
    }
}

#[tokio::test]
async fn one_that_hangs_does_not_keep_an_answer_of_then_from_who_calls() {
    let (mut config, asked) = servers(&[Does::Offer(LATELY), Does::Hang, Does::Hang]).await;
    config.call_timeout = Duration::from_secs(8);
    let client = Client::lazy(config).expect("nothing to connect to yet");
    for _ in 0..2 {
        assert_eq!(fetch(&client).await.expect("in time"), "0");
        let mut asked = std::mem::take(&mut *asked.lock().expect("no panic before"));
        asked[1..3].sort_unstable();
        assert_eq!(asked, [0, 1, 2, 0]);
    }
}

#[tokio::test]
async fn one_that_hangs_does_not_keep_an_answer_of_now_from_who_calls() {
    let (config, _) = servers(&[Does::Offer(LATELY), Does::Hang, Does::Answer]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    for _ in 0..2 {
        assert_eq!(fetch(&client).await.expect("in time"), "2");
    }
}

#[tokio::test]
async fn of_one_server_alone_an_answer_of_then_is_taken_at_once() {
    let (config, asked) = servers(&[Does::Offer(LATELY)]).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect("an answer"), "0");
    assert_eq!(*asked.lock().expect("no panic before"), [0]);
}

#[tokio::test]
async fn what_a_server_says_is_told_rather_than_that_another_is_not_there() {
    let (said, _) = servers(&[AWAY]).await;
    let (first, last) = (nobody().await, nobody().await);
    let text = format!("http://{first},{},http://{last}", said.addresses);
    let client = Client::lazy(Config::new(text.parse().expect("addresses"))).expect("nothing to connect to yet");
    for _ in 0..3 {
        let error = fetch(&client).await.expect_err("away");
        assert_eq!((error.reason(), error.message()), (Some(Reason::StoreUnavailable), "as told"));
    }
}

#[test]
fn requests_that_are_streams_are_known() {
    let descriptors = prost_types::FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
    let methods = descriptors.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let streamed: Vec<_> = methods.filter(|method| method.client_streaming()).map(|method| method.name()).collect();
    assert_eq!(streamed, STREAMED);
}
