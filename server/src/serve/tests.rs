//! A whole server over real sockets, with short limits.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, version},
};
use tonic::{Request, Response, Status, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

use super::*;
use crate::config::ListenAddress;

const SHORT: Duration = Duration::from_millis(200);
/// Far more than anything here takes; only a broken server waits so long.
const LONG: Duration = Duration::from_secs(20);

/// A service whose `check` waits until it is released, answers at once, takes the caller for authenticated, or tells the
/// peer's address as a status message, and whose `watch` never ends.
#[derive(Clone, Default)]
struct Slow {
    begun: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl Health for Slow {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let info = request.extensions().get::<PeerInfo>();
        let peer = info.map(|info| info.peer.clone());
        if request.get_ref().service == "authenticated" {
            info.expect("a peer").authenticated();
            return Ok(Response::new(HealthCheckResponse::default()));
        }
        if request.get_ref().service == "peer" {
            return Err(Status::aborted(peer.unwrap_or_default()));
        }
        if request.get_ref().service != "at once" {
            self.begun.notify_one();
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.release.notified().await;
        }
        Ok(Response::new(HealthCheckResponse::default()))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let _ = sender.send(Ok(HealthCheckResponse::default())).await;
            sender.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Running {
    address: SocketAddr,
    slow: Slow,
    stage: watch::Sender<Stage>,
    server: JoinHandle<Result<End, ServeError>>,
}

async fn start(limits: Limits, certificates: Option<Arc<Certificates>>) -> Running {
    let listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("binds");
    let ListenAddress::Tcp(address) = *listener.address() else { panic!("a TCP address") };
    let slow = Slow::default();
    let routes = Routes::new(HealthServer::new(slow.clone()));
    let (stage, followed) = watch::channel(Stage::Serving);
    let server = tokio::spawn(serve(vec![listener], routes, limits, certificates, followed));
    Running { address, slow, stage, server }
}

impl Running {
    async fn client(&self) -> HealthClient<tonic::transport::Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("a URI");
        HealthClient::new(endpoint.connect().await.expect("connects"))
    }

    /// A client that has no room for a single byte of an answer.
    async fn stingy_client(&self) -> HealthClient<tonic::transport::Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("a URI");
        HealthClient::new(endpoint.initial_stream_window_size(0).connect().await.expect("connects"))
    }

    async fn end(self) -> End {
        timeout(LONG, self.server).await.expect("ends").expect("no panic").expect("no error")
    }
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.is_ok()
}

/// The client's half of HTTP/2's opening.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The types of the frames that come until the end.
async fn frames(stream: &mut TcpStream) -> Vec<u8> {
    let mut types = Vec::new();
    let all = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let [_, a, b, kind, ..] = head;
            types.push(kind);
            let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
            stream.read_exact(&mut payload).await.expect("a whole frame");
        }
    };
    timeout(LONG, all).await.expect("an end");
    types
}

#[tokio::test]
async fn a_call_under_way_is_finished_before_the_end() {
    let running = start(Limits::new(10, 10), None).await;
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.check(ask("")).await });
    running.slow.begun.notified().await;
    running.stage.send_replace(Stage::Draining);
    // The listener is closed: the next connection is refused, or reset if it was still in the backlog.
    while let Ok(mut stream) = TcpStream::connect(running.address).await {
        assert!(is_closed(&mut stream).await);
    }
    running.slow.release.notify_one();
    call.await.expect("a task").expect("an answer");
    assert_eq!(running.end().await, End::Drained);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut() {
    let running = start(Limits { drain: SHORT, ..Limits::new(10, 10) }, None).await;
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.check(ask("")).await });
    running.slow.begun.notified().await;
    let started = Instant::now();
    running.stage.send_replace(Stage::Draining);
    assert_eq!(running.end().await, End::Cut);
    assert!(started.elapsed() >= SHORT);
    call.await.expect("a task").expect_err("no answer");
}

#[tokio::test]
async fn an_abort_does_not_wait() {
    let running = start(Limits { drain: LONG * 100, ..Limits::new(10, 10) }, None).await;
    let mut client = running.client().await;
    let call = tokio::spawn(async move { client.check(ask("")).await });
    running.slow.begun.notified().await;
    running.stage.send_replace(Stage::Draining);
    running.stage.send_replace(Stage::Aborting);
    assert_eq!(running.end().await, End::Cut);
    call.await.expect("a task").expect_err("no answer");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_with_is_kept() {
    let running = start(Limits { first_request: SHORT, ..Limits::new(10, 10) }, None).await;
    let mut used = running.client().await;
    used.check(ask("peer")).await.expect_err("its answer is a status");
    let started = Instant::now();
    let mut silent = TcpStream::connect(running.address).await.expect("connects");
    let mut preface_only = TcpStream::connect(running.address).await.expect("connects");
    preface_only.write_all(PREFACE).await.expect("written");
    assert!(is_closed(&mut silent).await && is_closed(&mut preface_only).await);
    assert!(started.elapsed() >= SHORT);
    let answer = used.check(ask("peer")).await.expect_err("its answer is a status");
    assert_eq!(answer.code(), tonic::Code::Aborted, "the same connection still serves");
}

/// Asks until the answer is good.
async fn until_served(running: &Running) {
    let served = async {
        loop {
            let endpoint = Endpoint::from_shared(format!("http://{}", running.address)).expect("a URI");
            if let Ok(channel) = endpoint.connect().await
                && HealthClient::new(channel).check(ask("at once")).await.is_ok()
            {
                return;
            }
        }
    };
    timeout(LONG, served).await.expect("served at last");
}

#[tokio::test]
async fn a_connection_that_has_been_idle_is_closed() {
    let running = start(Limits { idle: SHORT, ..Limits::new(10, 1) }, None).await;
    let mut client = running.client().await;
    client.check(ask("authenticated")).await.expect("an answer");
    // It has the only slot, and keeps it as long as it is open.
    until_served(&running).await;
}

#[tokio::test]
async fn a_connection_that_is_no_longer_needed_ends_with_goaway() {
    const GOAWAY: u8 = 7;
    let running = start(Limits { first_request: SHORT, farewell: SHORT, ..Limits::new(10, 10) }, None).await;
    let mut silent = TcpStream::connect(running.address).await.expect("connects");
    silent.write_all(PREFACE).await.expect("written");
    assert!(frames(&mut silent).await.contains(&GOAWAY));
}

#[tokio::test]
async fn strangers_without_a_call_lock_out_nobody_of_their_address() {
    let forever = LONG * 100;
    let limits = Limits { first_request: forever, unauthenticated: forever, ..Limits::new(100, 4) };
    let running = start(limits, None).await;
    let mut good = running.client().await;
    good.check(ask("authenticated")).await.expect("an answer");
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = running.client().await;
        client.check(ask("at once")).await.expect("an answer, and no more calls");
        idle.push(client);
    }
    // Each newer one, of strangers and of others, is let in for an older one of strangers.
    let mut first = TcpStream::connect(running.address).await.expect("connects");
    let mut strangers = Vec::new();
    for _ in 0..8 {
        let mut stranger = TcpStream::connect(running.address).await.expect("connects");
        stranger.write_all(PREFACE).await.expect("written");
        stranger.read_u8().await.expect("it is served");
        strangers.push(stranger);
        let mut another = running.client().await;
        another.check(ask("at once")).await.expect("an answer");
    }
    assert!(is_closed(&mut first).await, "the oldest is closed");
    good.check(ask("peer")).await.expect_err("a status, over the same connection");
    let same = good.check(ask("peer")).await.expect_err("a status").message().to_owned();
    assert_eq!(good.check(ask("peer")).await.expect_err("a status").message(), same, "never closed");
}

#[tokio::test]
async fn more_calls_than_one_peer_may_have_are_refused_and_do_not_hang() {
    // A quarter of them may be one peer's; before, 128 of one connection began and the rest waited for their deadline.
    let running = start(Limits { health_checks: 4 * 300, ..Limits::new(10, 10) }, None).await;
    let client = running.client().await;
    let ask_often = |count| {
        let calls = (0..count).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.check(ask("")).await })
        });
        calls.collect::<Vec<_>>()
    };
    let served = ask_often(300);
    let all_wait = async {
        while running.slow.waiting.load(Ordering::Relaxed) < 300 {
            running.slow.begun.notified().await;
        }
    };
    timeout(LONG, all_wait).await.expect("every one of them has begun");
    for refused in ask_often(100) {
        let refused = timeout(LONG, refused).await.expect("at once").expect("a task").expect_err("one too many");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }
    served.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn an_answer_that_is_not_taken_holds_its_place() {
    let limits = Limits { answer: LONG * 100, health_checks: 1, ..Limits::new(10, 10) };
    let running = start(limits, None).await;
    let mut stingy = running.stingy_client().await;
    let unread = tokio::spawn(async move { stingy.check(ask("")).await });
    running.slow.begun.notified().await;
    running.slow.release.notify_one();
    let mut other = running.client().await;
    for _ in 0..20 {
        let refused = other.check(ask("at once")).await.expect_err("no place");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }
    unread.abort();
    until_served(&running).await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_in_time_ends_its_connection_and_a_stream_does_not() {
    let limits = Limits { answer: SHORT, health_checks: 1, health_watches: 1, ..Limits::new(10, 10) };
    let running = start(limits, None).await;
    let mut watcher = running.stingy_client().await;
    let _watch = watcher.watch(ask("")).await.expect("a stream that is not read");
    for _ in 0..2 {
        let mut stingy = running.stingy_client().await;
        let cut = timeout(LONG, stingy.check(ask("at once"))).await.expect("an end");
        assert_ne!(cut.expect_err("cut").code(), tonic::Code::ResourceExhausted);
        until_served(&running).await;
    }
    let second = running.client().await.watch(ask("")).await.expect_err("the first one has the place");
    assert_eq!(second.code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn health_needs_no_place_among_the_calls_and_its_streams_are_counted_apart() {
    let running = start(Limits { calls: 0, health_watches: 1, ..Limits::new(10, 10) }, None).await;
    let mut client = running.client().await;
    let watch = client.watch(ask("")).await.expect("a stream");
    let refused = client.watch(ask("")).await.expect_err("one too many");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    client.check(ask("at once")).await.expect("an answer");
    drop(watch);
    let freed = async { while client.watch(ask("")).await.is_err() {} };
    timeout(LONG, freed).await.expect("the place is given back");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_silent_connection() {
    let limits = Limits { drain: LONG * 100, first_request: LONG * 100, farewell: SHORT, ..Limits::new(10, 10) };
    let running = start(limits, None).await;
    let mut silent = TcpStream::connect(running.address).await.expect("connects");
    // The client's half of HTTP/2's opening, and never a word more: no answer to the PING that asks for its last call.
    silent.write_all(PREFACE).await.expect("written");
    silent.read_u8().await.expect("the server's half");
    running.stage.send_replace(Stage::Draining);
    assert_eq!(running.end().await, End::Drained);
}

#[tokio::test]
async fn a_request_knows_its_peer() {
    let running = start(Limits::new(10, 10), None).await;
    let answer = running.client().await.check(ask("peer")).await.expect_err("its answer is a status");
    assert!(answer.message().starts_with("127.0.0.1:"), "{answer}");
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listener = Listener::bind(&ListenAddress::Unix(path.clone())).await.expect("binds");
    let (stage, followed) = watch::channel(Stage::Serving);
    let routes = Routes::new(HealthServer::new(Slow::default()));
    let server = tokio::spawn(serve(vec![listener], routes, Limits::new(10, 10), None, followed));
    let channel = Endpoint::from_shared(format!("unix://{}", path.display())).expect("a URI").connect().await;
    let answer = HealthClient::new(channel.expect("connects")).check(ask("peer")).await.expect_err("a status");
    assert_eq!(answer.message(), "unix");
    stage.send_replace(Stage::Draining);
    server.await.expect("a task").expect("ends");
    assert!(!path.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn connections_beyond_a_peers_share_are_closed_at_once() {
    let running = start(Limits::new(10, 2), None).await;
    let (mut first, mut second) = (running.client().await, running.client().await);
    for client in [&mut first, &mut second] {
        client.check(ask("authenticated")).await.expect("an answer");
    }
    let mut third = TcpStream::connect(running.address).await.expect("connects");
    assert!(is_closed(&mut third).await);
    drop(second);
    // The slot is free as soon as the server has seen the second one go.
    until_served(&running).await;
}

mod tls {
    use rustls_pki_types::{CertificateDer, ServerName};

    use super::{
        super::certificates::tests::{load, write_pair},
        *,
    };

    fn connector(
        trusted: &CertificateDer<'static>,
        versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn handshake(running: &Running, connector: &TlsConnector) -> std::io::Result<Option<Vec<u8>>> {
        let stream = TcpStream::connect(running.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = timeout(LONG, connector.connect(name, stream)).await.expect("an outcome")?;
        // The server's refusal may come after the client's half of the handshake.
        stream.write_all(PREFACE).await?;
        stream.read_u8().await?;
        Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[tokio::test]
    async fn new_connections_get_the_new_certificate() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(directory.path());
        let certificates = Arc::new(load(files).expect("a pair"));
        let running = start(Limits::new(10, 10), Some(Arc::clone(&certificates))).await;
        // A connector of its own each time: with an old one's ticket no certificate would be shown at all.
        let trusts_first = || connector(&first, &[&version::TLS13]);
        assert_eq!(handshake(&running, &trusts_first()).await.expect("TLS 1.3").as_deref(), Some(&b"h2"[..]));
        handshake(&running, &connector(&first, &[&version::TLS12])).await.expect_err("TLS 1.2 is refused");

        let (_, second) = write_pair(directory.path());
        certificates.reload();
        handshake(&running, &trusts_first()).await.expect_err("the old certificate is gone");
        handshake(&running, &connector(&second, &[&version::TLS13])).await.expect("the new one is served");
    }

    #[tokio::test]
    async fn handshakes_that_never_end_lock_out_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, trusted) = write_pair(directory.path());
        let certificates = Arc::new(load(files).expect("a pair"));
        let running = start(Limits { handshake: LONG * 100, ..Limits::new(100, 4) }, Some(certificates)).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            silent.push(TcpStream::connect(running.address).await.expect("connects"));
        }
        handshake(&running, &connector(&trusted, &[&version::TLS13])).await.expect("others are served");
        assert!(is_closed(&mut silent[0]).await, "the oldest gives way");
    }

    #[tokio::test]
    async fn a_slow_handshake_is_closed_and_holds_up_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, trusted) = write_pair(directory.path());
        let certificates = Arc::new(load(files).expect("a pair"));
        let limits = Limits { handshake: SHORT, ..Limits::new(10, 10) };
        let running = start(limits, Some(certificates)).await;
        let mut silent = TcpStream::connect(running.address).await.expect("connects");
        let started = Instant::now();
        handshake(&running, &connector(&trusted, &[&version::TLS13])).await.expect("others are served");
        assert!(is_closed(&mut silent).await);
        assert!(started.elapsed() < limits.first_request, "closed by the handshake's limit");
    }
}
