//! Strangers who press on HTTP/2 itself, frame by frame, and take no answer: the server's memory and log stay small, and
//! others are served.

use std::{fs, time::Duration};

use coffer_proto::v1;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        version,
    },
};

use crate::harness::{Authority, Server, client_at, until};

/// What one stranger sends, in bytes, unless the server ends it: without limits each of these made it hold fifty times that.
const SENT_BYTES_MAX: usize = 8 << 20;
/// What the server's memory may grow by, in KiB, over all that is pressed on.
const GROWTH_KIB_MAX: usize = 64 * 1024;
/// What the server may say of it all.
const LOG_BYTES_MAX: usize = 64 * 1024;
/// A write that waits for so long waits for good: the server reads no more.
const STALL: Duration = Duration::from_secs(1);
/// RFC 9113, 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A health check's header list (RFC 7541), without its end of stream: a body is to come.
fn request(stream: u32) -> Vec<u8> {
    let literal = |index: u8, value: &str| [&[index, value.len() as u8], value.as_bytes()].concat();
    let list = [
        vec![0x83, 0x86],
        literal(0x44, "/grpc.health.v1.Health/Watch"),
        literal(0x41, "x"),
        literal(0x5f, "application/grpc"),
    ];
    frame(HEADERS, END_HEADERS, stream, &list.concat())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The server ends the connection with GOAWAY and this error.
    GoAway(u32),
    /// It reads no more, or ends the connection.
    NoMore,
    /// It may read all of it: nothing is kept.
    Any,
}

struct Press {
    name: &'static str,
    /// The frames of the `n`th time.
    frames: fn(u32) -> Vec<u8>,
    end: End,
}

/// Streams are the client's: odd, and each higher than the last.
fn odd(n: u32) -> u32 {
    2 * n + 1
}

const PRESSES: [Press; 13] = [
    Press {
        name: "streams that depend on themselves",
        frames: |n| frame(PRIORITY, 0, odd(n), &[&odd(n).to_be_bytes()[..], &[0]].concat()),
        end: End::GoAway(ENHANCE_YOUR_CALM),
    },
    Press {
        name: "streams that are made to be reset",
        frames: |n| [request(odd(n)), frame(WINDOW_UPDATE, 0, odd(n), &[0x7f, 0xff, 0xff, 0xff])].concat(),
        end: End::GoAway(ENHANCE_YOUR_CALM),
    },
    Press {
        name: "streams that are reset at once",
        frames: |n| [request(odd(n)), frame(RST_STREAM, 0, odd(n), &[0, 0, 0, 8])].concat(),
        end: End::GoAway(ENHANCE_YOUR_CALM),
    },
    Press { name: "streams that stay open", frames: |n| request(odd(n)), end: End::NoMore },
    Press { name: "pings", frames: |_| frame(PING, 0, 0, &[7; 8]), end: End::NoMore },
    Press { name: "settings", frames: |_| frame(SETTINGS, 0, 0, &[]), end: End::NoMore },
    Press { name: "answers to pings that nobody sent", frames: |_| frame(PING, ACK, 0, &[7; 8]), end: End::Any },
    Press {
        name: "a header list without end",
        frames: |n| match n {
            0 => frame(HEADERS, 0, 1, &[0x83, 0x86]),
            _ => frame(CONTINUATION, 0, 1, &[&[0x40, 1, b'a', 100][..], &[b'b'; 100]].concat()),
        },
        end: End::NoMore,
    },
    Press {
        name: "empty bodies",
        frames: |n| if n == 0 { request(1) } else { frame(DATA, 0, 1, &[]) },
        end: End::NoMore,
    },
    Press {
        name: "bodies in single bytes",
        frames: |n| if n == 0 { request(1) } else { frame(DATA, 0, 1, &[0]) },
        end: End::NoMore,
    },
    Press { name: "priorities", frames: |n| frame(PRIORITY, 0, odd(n), &[0, 0, 0, 0, 9]), end: End::Any },
    Press { name: "windows", frames: |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), end: End::Any },
    Press { name: "frames of an unknown kind", frames: |_| frame(0x77, 0, 0, &[9; 100]), end: End::Any },
];

/// Sends until the server ends it, reads no more, or it is enough. Then reads what the server had to say.
async fn press(mut stream: impl AsyncRead + AsyncWrite + Unpin, press: &Press) -> (usize, bool, Option<u32>) {
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    let mut sent = 0;
    let mut takes_more = stream.write_all(&opening).await.is_ok();
    let mut times = 0..;
    while takes_more && sent < SENT_BYTES_MAX {
        let mut batch = Vec::new();
        while batch.len() < 16 * 1024 {
            batch.extend((press.frames)(times.next().expect("a number")));
        }
        takes_more = matches!(timeout(STALL, stream.write_all(&batch)).await, Ok(Ok(())));
        sent += batch.len();
    }
    let mut said = Vec::new();
    let mut part = vec![0; 64 * 1024];
    while let Ok(Ok(count @ 1..)) = timeout(STALL, stream.read(&mut part)).await {
        said.extend_from_slice(&part[..count]);
    }
    (sent, takes_more, goaway(&said))
}

/// The error of the last GOAWAY among frames, of which the last one may be cut off.
fn goaway(mut frames: &[u8]) -> Option<u32> {
    let mut error = None;
    while let Some((head, rest)) = frames.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = rest.get(..length)?;
        if head[3] == GOAWAY {
            error = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")));
        }
        frames = &rest[length..];
    }
    error
}

fn memory_kib(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The system takes little of what the server says for somebody who does not read.
async fn connect(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let address = address.split("://").last().expect("an address").parse().expect("an address");
    socket.connect(address).await.expect("connected")
}

fn connector(authority: &Authority) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.ca).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(std::sync::Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frames_of_a_stranger_take_memory_disk_or_the_service_of_others() {
    let home = TempDir::new().expect("a directory");
    let authority = Authority::write_to(&home, "good");
    let tls =
        ["--tls-cert".as_ref(), authority.certificate.as_os_str(), "--tls-key".as_ref(), authority.key.as_os_str()];
    let (plain, encrypted) = (Server::start(), Server::builder().args(tls).start_in(home));
    let connector = connector(&authority);
    for server in [&plain, &encrypted] {
        let is_encrypted = server.address().starts_with("https");
        let ca = is_encrypted.then(|| authority.ca.clone());
        let other = client_at(&server.address(), &server.operator_token(), ca);
        other.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect("served");
        let (before, said) = (memory_kib(server), server.log().len());
        let pressed = PRESSES.iter().map(|case| {
            let (address, connector) = (server.address(), connector.clone());
            tokio::spawn(async move {
                let stream = connect(&address).await;
                if is_encrypted {
                    let name = ServerName::try_from("127.0.0.1").expect("a name");
                    press(connector.connect(name, stream).await.expect("TLS"), case).await
                } else {
                    press(stream, case).await
                }
            })
        });
        for (case, pressed) in PRESSES.iter().zip(pressed.collect::<Vec<_>>()) {
            let (sent, takes_more, error) = pressed.await.expect("pressed");
            let name = case.name;
            match case.end {
                End::GoAway(expected) => assert_eq!((takes_more, error), (false, Some(expected)), "{name}: {sent}"),
                End::NoMore => assert!(!takes_more, "{name}: {sent} bytes taken"),
                End::Any => {}
            }
            let grown = memory_kib(server).saturating_sub(before);
            assert!(grown < GROWTH_KIB_MAX, "{name}: {grown} KiB more after {sent} bytes");
            other.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect(name);
        }
        until("the end is told", || server.log().contains("does not keep to HTTP/2").then_some(()));
        let log = server.log();
        assert!(log.len() - said < LOG_BYTES_MAX, "{} bytes of log: {}", log.len() - said, &log[log.len() - 2_000..]);
    }
}
