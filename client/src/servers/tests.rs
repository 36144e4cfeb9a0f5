//! Against several servers that answer what they are told to.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use coffer_proto::v1::{
    FetchEnvironmentRequest, FetchEnvironmentResponse, WatchEnvironmentRequest, WatchEnvironmentResponse,
    workloads_server::{Workloads, WorkloadsServer},
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
    refuses: Option<Code>,
    /// Whether its refusals are as coffer's, which say a reason.
    is_coffer: bool,
    asked: Arc<Mutex<Vec<usize>>>,
}

fn told(code: Code, is_coffer: bool) -> Status {
    let details = ErrorDetails::with_error_info("STORE_UNAVAILABLE", "coffer", HashMap::new());
    if is_coffer { Status::with_error_details(code, "as told", details) } else { Status::new(code, "as told") }
}

impl Fake {
    fn answer(&self) -> Result<String, Status> {
        self.asked.lock().expect("no panic before").push(self.number);
        self.refuses.map_or_else(|| Ok(self.number.to_string()), |code| Err(told(code, self.is_coffer)))
    }
}

#[tonic::async_trait]
impl Workloads for Fake {
    type WatchEnvironmentStream = Pin<Box<dyn Stream<Item = Result<WatchEnvironmentResponse, Status>> + Send>>;

    async fn fetch_environment(
        &self,
        _: Request<FetchEnvironmentRequest>,
    ) -> Result<Response<FetchEnvironmentResponse>, Status> {
        let environment_revision = self.answer()?;
        Ok(Response::new(FetchEnvironmentResponse { environment_revision, ..Default::default() }))
    }

    async fn watch_environment(
        &self,
        _: Request<WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchEnvironmentStream>, Status> {
        let environment_revision = self.answer()?;
        let first = WatchEnvironmentResponse { environment_revision, ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)))))
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Servers that refuse so, or answer; a client of all; and who was asked, in order.
async fn servers(refuse: &[Option<Code>]) -> (Config, Arc<Mutex<Vec<usize>>>) {
    servers_like(refuse, true).await
}

async fn servers_like(refuse: &[Option<Code>], is_coffer: bool) -> (Config, Arc<Mutex<Vec<usize>>>) {
    let asked = Arc::<Mutex<Vec<usize>>>::default();
    let mut addresses = Vec::new();
    for (number, refuses) in refuse.iter().copied().enumerate() {
        let (listener, address) = listener().await;
        let fake = Fake { number, refuses, is_coffer, asked: asked.clone() };
        let server = Server::builder().add_service(WorkloadsServer::new(fake));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        addresses.push(address);
    }
    (config(&addresses), asked)
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
    let (config, asked) = servers(&[Some(Code::Unavailable), Some(Code::Unavailable), None]).await;
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
    let (config, asked) = servers_like(&[Some(Code::Unavailable), None], false).await;
    let client = Client::lazy(config).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect_err("of nobody knows what").code(), Code::Unavailable);
    assert_eq!(fetch(&client).await.expect("an answer"), "1");
    assert_eq!(*asked.lock().expect("no panic before"), [0, 1]);
}

#[tokio::test]
async fn where_nobody_listens_the_next_one_is_asked_also_at_once() {
    let (free, nobody) = listener().await;
    drop(free);
    let (good, asked) = servers(&[None]).await;
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
        let (config, asked) = servers(&[Some(code), None]).await;
        let client = Client::lazy(config).expect("nothing to connect to yet");
        assert_eq!(fetch(&client).await.expect_err("refused").code(), code);
        assert_eq!(*asked.lock().expect("no panic before"), [0], "{code:?}");
    }
}

#[tokio::test]
async fn when_all_are_away_the_call_says_so_and_the_next_one_asks_all_again() {
    let (config, asked) = servers(&[Some(Code::Unavailable); 3]).await;
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
    let (good, _) = servers(&[None]).await;
    let text = format!("http://{address},{}", good.addresses);
    let mut config = Config::new(text.parse::<Addresses>().expect("addresses"));
    config.call_timeout = Duration::from_millis(300);
    let client = Client::lazy(config).expect("nothing to connect to yet");
    assert_eq!(fetch(&client).await.expect_err("no answer").code(), Code::DeadlineExceeded);
    assert_eq!(fetch(&client).await.expect("an answer"), "0");
    drop(hangs);
}

#[test]
fn requests_that_are_streams_are_known() {
    let descriptors = prost_types::FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
    let methods = descriptors.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let streamed: Vec<_> = methods.filter(|method| method.client_streaming()).map(|method| method.name()).collect();
    assert_eq!(streamed, STREAMED);
}
