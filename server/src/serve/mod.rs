//! Sockets, TLS, limits and the drain: everything between the network and the services.
//!
//! The caller owns the listeners and the end: [`serve`] takes bound [`Listener`]s and a [`Stage`] to follow. Connections
//! are accepted, counted, handshaken and driven here: tonic's own accept loop spins when descriptors run out, never
//! reloads a certificate and never ends a single connection in good order.

mod accept;
mod activity;
mod admission;
mod calls;
mod certificates;
mod connection;
mod deadline;
mod health;
mod http2;
mod listener;
mod marks;
mod methods;
mod slots;
mod taken;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::body::Body;
use tower::{Layer as _, Service};

use self::{accept::Acceptor, calls::CallsLayer, slots::ConnectionSlots};

pub use calls::UntilTaken;
pub use certificates::{Certificates, CertificatesError};
pub use connection::PeerInfo;
pub use health::{ApiService, Extent, health};
pub use listener::{BindError, Listener};
pub use marks::Marks;
pub(crate) use slots::EVICTED_MAX;
pub use taken::{ReaderTooSlow, Taken};

/// Streams at once of one connection. A client keeps further calls back without a word, until their deadline (RFC 9113,
/// 5.1.2), so this is no less than the calls that one peer may have: what bounds a caller are the limits of calls and
/// streams, of a principal and of a peer, which answer RESOURCE_EXHAUSTED. A stream without an authenticated call holds a
/// few hundred bytes until its answer is taken, and all of a connection share one window of unread bodies (1 MiB).
const STREAMS_MAX: u32 = 1_024;
/// Largest header list of one request, in bytes: a token and a few names fit in a tenth of it.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// How often an otherwise silent peer is asked whether it is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls may go on after the server was told to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Streams that a peer may open and reset before they were looked at (CVE-2023-44487); more closes the connection.
const PENDING_RESETS_MAX: usize = 20;
/// Streams of a connection that this side may have to reset for the peer's errors (CVE-2025-8671); more closes it.
const LOCAL_RESETS_MAX: usize = 100;
/// Handshaken connections that wait to be taken.
const HANDSHAKEN_QUEUE_MAX: usize = 64;
/// How long cut connections may take to notice.
const CUT_WAIT_MAX: Duration = Duration::from_secs(2);

/// Limits of serving. The first two come from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, over all listeners.
    pub connections: u32,
    /// Connections at once from one IPv4 address or one IPv6 /64 network.
    pub connections_per_peer: u32,
    /// Calls at once, over all connections; more are answered with RESOURCE_EXHAUSTED. A call counts until its answer
    /// is with the operating system. One peer may have a quarter of them, unix sockets all.
    pub calls: u32,
    /// The same for streams, over all connections: watches and redactions. One peer may have half of them.
    pub streams: u32,
    /// The same for single calls of the standard services, so that a server under load still tells how it is.
    pub health_checks: u32,
    /// The same for streams of the standard services, which need no token.
    pub health_watches: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may exist without a first request.
    pub first_request: Duration,
    /// How long a connection may be without a call while none of its calls has authenticated.
    pub unauthenticated: Duration,
    /// How long a call may take until its answer begins.
    pub call: Duration,
    /// How long the peer may take to take a single answer; the connection is closed then, because HTTP/2 can do nothing
    /// else about bytes that are not taken. The last bytes of a stream that the server ends are such an answer.
    pub answer: Duration,
    /// How long the peer may take to take one message of a stream, which ends then.
    pub slow_reader: Duration,
    /// How long a connection may be without a call, once one has authenticated.
    pub idle: Duration,
    /// How long it may be so after GOAWAY, at which well-behaved peers close it themselves.
    pub farewell: Duration,
    /// How long calls may go on after the server was told to stop.
    pub drain: Duration,
}

impl Limits {
    /// The limits of a server with these connection caps.
    pub fn new(connections: u32, connections_per_peer: u32) -> Self {
        Self {
            connections,
            connections_per_peer,
            calls: 4_096,
            streams: 20_000,
            health_checks: 1_024,
            health_watches: 1_000,
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            unauthenticated: Duration::from_secs(10),
            call: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            slow_reader: coffer_proto::limits::SLOW_READER,
            idle: Duration::from_secs(15 * 60),
            farewell: Duration::from_secs(1),
            drain: DRAIN_MAX,
        }
    }
}

/// How far the end has come; it only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No end in sight.
    Serving,
    /// No new connections; calls under way are finished.
    Draining,
    /// Everything is cut.
    Aborting,
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every call was finished.
    Drained,
    /// Calls were cut, because the drain took too long or was aborted.
    Cut,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// Serves `service` on `listeners` until `stage` says otherwise, then drains. TCP listeners speak TLS if there are
/// `certificates`; unix sockets never do.
pub async fn serve<S>(
    listeners: Vec<Listener>,
    service: S,
    limits: Limits,
    certificates: Option<Arc<Certificates>>,
    mut stage: watch::Receiver<Stage>,
) -> Result<End, ServeError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (cut, is_cut) = watch::channel(false);
    let (handshaken, incoming) = mpsc::channel(HANDSHAKEN_QUEUE_MAX);
    let acceptor = Acceptor {
        slots: ConnectionSlots::new(limits.connections, limits.connections_per_peer),
        tls: certificates.map(Certificates::acceptor).transpose()?,
        limits,
        handshaken,
        stage: stage.clone(),
        is_cut,
    };
    for listener in listeners {
        tokio::spawn(acceptor.clone().run(listener));
    }
    // Only the accepting tasks hold it from here on.
    drop(acceptor);

    let calls = CallsLayer::new(&limits);
    let mut server = Box::pin(http2::serve(incoming, calls.layer(service)));

    let patience = async {
        wait(&mut stage, Stage::Draining).await;
        tokio::select! {
            () = sleep(limits.drain) => tracing::warn!(calls = calls.under_way(), "the drain took too long; calls under way are cut"),
            () = wait(&mut stage, Stage::Aborting) => tracing::warn!(calls = calls.under_way(), "aborted; calls under way are cut"),
        }
    };
    tokio::select! {
        () = &mut server => return Ok(End::Drained),
        () = patience => {}
    }
    cut.send_replace(true);
    // Those that do not notice are left behind.
    let _ = tokio::time::timeout(CUT_WAIT_MAX, server).await;
    Ok(End::Cut)
}

/// Waits until the end has come as far as `wanted`; whoever drops the sender wants everything to end.
pub(crate) async fn wait(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    let _ = stage.wait_for(|stage| *stage >= wanted).await;
}

#[cfg(test)]
mod tests;
