//! Every limit that a peer can press on before a call is one of coffer's. hyper, h2, rustls and tokio have defaults for most
//! of them; each is set here all the same, so that no layer between leaves one out.
//!
//! | what a peer sends | what bounds it |
//! |---|---|
//! | connections | [`Limits::connections`], [`Limits::connections_per_peer`]; the system's backlog (tokio asks for 1,024) |
//! | a slow or silent handshake, silence after it | [`Limits::handshake`], [`Limits::first_request`], [`Limits::unauthenticated`] |
//! | requests for new keys of TLS 1.3, early data | rustls: 32 without data between; none |
//! | streams at once | [`STREAMS_MAX`] |
//! | streams opened and reset at once (CVE-2023-44487) | [`PENDING_RESETS_MAX`] |
//! | frames that this side answers with a reset: a stream that depends on itself, a window of 0 more (CVE-2025-8671, RUSTSEC-2024-0003) | [`LOCAL_RESETS_MAX`] |
//! | PING, SETTINGS (CVE-2019-9512, -9515), streams beyond the limit | h2 reads no frame before its answer to the last one is with the system |
//! | header lists, endless CONTINUATION (CVE-2024-2758) | [`HEADER_LIST_BYTES_MAX`], and as many frames as that takes |
//! | a larger table for header compression | h2 stays at 4 KiB each way whatever a peer asks for (RFC 7541, 4.2) |
//! | bodies that nobody reads, in frames of any size | [`CONNECTION_WINDOW_BYTES`], [`STREAM_WINDOW_BYTES`]; empty and small frames are counted (h2: 100; half a window) |
//! | answers that are not taken | [`SEND_BUFFER_BYTES`] of each stream, [`super::AnswerRoom`] of each principal and of all, [`Limits::answer`], [`Limits::slow_reader`] |
//! | nothing at all | [`KEEPALIVE_INTERVAL`], [`KEEPALIVE_TIMEOUT`], [`Limits::idle`] |
//! | lines in the log | the throttle of `telemetry` |

use std::time::Duration;

/// Streams at once of one connection. A client keeps further calls back without a word, until their deadline (RFC 9113,
/// 5.1.2), so this is no less than the calls that one peer may have: what bounds a caller are the limits of calls and
/// streams, of a principal and of a peer, which answer RESOURCE_EXHAUSTED. A stream without an authenticated call holds a
/// few hundred bytes until its answer is taken, and all of a connection share one window of unread bodies (1 MiB).
pub(super) const STREAMS_MAX: u32 = 1_024;
/// Largest header list of one request, in bytes: a token and a few names fit in a tenth of it.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// How often an otherwise silent peer is asked whether it is there.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls may go on after the server was told to end.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Streams that a peer may open and reset before they were looked at (CVE-2023-44487); more closes the connection.
pub(super) const PENDING_RESETS_MAX: usize = 20;
/// Streams of a connection that this side may have to reset for the peer's errors (CVE-2025-8671); more closes it.
pub(super) const LOCAL_RESETS_MAX: usize = 100;
/// Handshaken connections that wait to be taken.
pub(super) const HANDSHAKEN_QUEUE_MAX: usize = 64;
/// How long cut connections may take to notice.
pub(super) const CUT_WAIT_MAX: Duration = Duration::from_secs(2);
/// What may be under way to this side in one stream, and in all of a connection, in bytes: what is sent and not read stays in
/// memory. 1 MiB fills a link of 100 Mbit/s and 80 ms.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// See [`STREAM_WINDOW_BYTES`].
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Largest frame that is read, in bytes: the least there is (RFC 9113, 4.2).
pub(super) const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// What of an answer is taken from its source before the peer has room for it, in bytes of each stream.
pub(super) const SEND_BUFFER_BYTES: usize = 400 * 1024;

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
