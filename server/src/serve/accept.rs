//! Accepting connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream},
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Limits, Stage,
    connection::{Bytes, Connection, PeerInfo},
    listener::{Listener, Socket},
    slots::{ConnectionSlot, ConnectionSlots},
    wait,
};

/// How long accepting rests when the process or machine has no descriptors or memory left: the pending connection
/// stays pending, so trying again at once would only spin.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);
/// Most connections that are taken while a listener is closed: what the system lets wait, unless it was told otherwise.
const BACKLOG_MAX: usize = 4_096;

/// What accepting on each listener needs.
#[derive(Clone)]
pub(super) struct Acceptor {
    pub(super) slots: ConnectionSlots,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: Limits,
    pub(super) handshaken: mpsc::Sender<Connection>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) is_cut: watch::Receiver<bool>,
}

/// A connection just accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(Box<dyn Bytes>),
}

/// Accepts; a test puts a failing one in a socket's place.
pub(super) trait Accept: Send {
    fn accept(&mut self) -> impl Future<Output = io::Result<Accepted>> + Send;
    /// Listens no more, and gives what is connected already.
    fn close(self) -> Vec<Accepted>;
}

impl Accept for Socket {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Socket::Tcp(socket) => socket.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
            Socket::Unix { socket, .. } => socket.accept().await.map(|(stream, _)| Accepted::Unix(Box::new(stream))),
        }
    }

    fn close(self) -> Vec<Accepted> {
        // The sockets themselves, which do not block, say what is there; of the runtime's one hears of it later.
        match self {
            Socket::Tcp(socket) => {
                let accept = |(stream, peer): (std::net::TcpStream, _)| {
                    stream.set_nonblocking(true)?;
                    Ok(Accepted::Tcp(TcpStream::from_std(stream)?, peer))
                };
                let socket = socket.into_std();
                socket.map_or_else(|_| Vec::new(), |socket| backlog(|| socket.accept().and_then(accept)))
            }
            Socket::Unix { socket, file } => {
                // Nobody finds it from here on.
                drop(file);
                let accept = |(stream, _): (std::os::unix::net::UnixStream, _)| {
                    stream.set_nonblocking(true)?;
                    Ok(Accepted::Unix(Box::new(UnixStream::from_std(stream)?)))
                };
                let socket = socket.into_std();
                socket.map_or_else(|_| Vec::new(), |socket| backlog(|| socket.accept().and_then(accept)))
            }
        }
    }
}

/// What waits to be accepted, up to the first error: mostly that there is nothing more.
fn backlog(accept: impl Fn() -> io::Result<Accepted>) -> Vec<Accepted> {
    std::iter::from_fn(|| accept().ok()).take(BACKLOG_MAX).collect()
}

impl Acceptor {
    /// Accepts until the drain begins, then closes the listener.
    ///
    /// What was connected before is served, too: a client that has been let in and is cut off cannot know that nothing
    /// came of its call.
    pub(super) async fn run(self, listener: Listener) {
        self.accept_from(listener.socket).await;
    }

    async fn accept_from(self, mut socket: impl Accept) {
        let mut stage = self.stage.clone();
        let mut is_exhausted = false;
        loop {
            let accepted = tokio::select! {
                () = wait(&mut stage, Stage::Draining) => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    is_exhausted = false;
                    self.admit(accepted).await;
                }
                Err(error) if is_exhaustion(&error) => {
                    if !is_exhausted {
                        tracing::error!(%error, "connections cannot be accepted; trying again");
                    }
                    is_exhausted = true;
                    sleep(EXHAUSTED_REST).await;
                }
                // The peer was gone before it was accepted: its affair.
                Err(error) => tracing::debug!(%error, "a connection was not accepted"),
            }
        }
        for accepted in socket.close() {
            self.admit(accepted).await;
        }
    }

    async fn admit(&self, accepted: Accepted) {
        let peer = match &accepted {
            Accepted::Tcp(_, peer) => Some(peer.ip()),
            Accepted::Unix(_) => None,
        };
        // Without a slot it is dropped here, which closes it.
        if let Some(slot) = self.slots.admit(peer).await {
            tokio::spawn(self.clone().hand_over(accepted, slot));
        }
    }

    /// In a task of its own, so that a slow handshake holds up nobody.
    async fn hand_over(self, accepted: Accepted, slot: Arc<ConnectionSlot>) {
        let (bytes, info): (Box<dyn Bytes>, _) = match accepted {
            Accepted::Unix(bytes) => (bytes, PeerInfo::new("unix".to_owned(), None, &slot)),
            Accepted::Tcp(stream, peer) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, %peer, "TCP_NODELAY is not set");
                }
                let info = || PeerInfo::new(peer.to_string(), Some(peer.ip()), &slot);
                match &self.tls {
                    None => (Box::new(stream), info()),
                    Some(tls) => tokio::select! {
                        accepted = tls.accept(stream) => match accepted {
                            Ok(stream) => (Box::new(stream), info()),
                            Err(error) => return tracing::debug!(%error, %peer, "the TLS handshake failed"),
                        },
                        () = self.patience() => return tracing::debug!(%peer, "the TLS handshake took too long"),
                        () = slot.evicted() => return tracing::debug!(%peer, "the TLS handshake gave way to others"),
                    },
                }
            }
        };
        let connection = Connection::new(bytes, info, slot, self.limits, self.stage, self.is_cut);
        // Somebody takes it, unless everything is cut.
        let _ = self.handshaken.send(connection).await;
    }

    /// As long as a handshake may take. The drain waits for those under way, and not for long.
    async fn patience(&self) {
        let mut stage = self.stage.clone();
        let drained = async {
            wait(&mut stage, Stage::Draining).await;
            sleep(self.limits.farewell).await;
        };
        tokio::select! {
            () = sleep(self.limits.handshake) => {}
            () = drained => {}
        }
    }
}

/// Whether trying again at once would fail again: accept(2).
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS))
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };

    use tokio::time::Instant;

    use super::*;

    fn acceptor(handshaken: mpsc::Sender<Connection>, stage: watch::Receiver<Stage>) -> Acceptor {
        let (limits, slots) = (Limits::new(10, 10), ConnectionSlots::new(10, 10));
        Acceptor { slots, tls: None, limits, handshaken, stage, is_cut: watch::channel(false).1 }
    }

    /// Fails `failures` times, then accepts once.
    struct Failing {
        failures: u32,
        error: rustix::io::Errno,
        tries: Arc<AtomicU32>,
    }

    impl Accept for Failing {
        async fn accept(&mut self) -> io::Result<Accepted> {
            match self.tries.fetch_add(1, Ordering::Relaxed) {
                tries if tries < self.failures => Err(self.error.into()),
                tries if tries == self.failures => Ok(Accepted::Unix(Box::new(tokio::io::duplex(1).0))),
                _ => pending().await,
            }
        }

        fn close(self) -> Vec<Accepted> {
            vec![Accepted::Unix(Box::new(tokio::io::duplex(1).0))]
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exhaustion_rests_and_recovers() {
        use rustix::io::Errno;
        for (error, rest) in [(Errno::MFILE, EXHAUSTED_REST), (Errno::CONNABORTED, Duration::ZERO)] {
            let (sender, mut incoming) = mpsc::channel(1);
            let (_stage, stage) = watch::channel(Stage::Serving);
            let started = Instant::now();
            let socket = Failing { failures: 3, error, tries: Arc::default() };
            tokio::spawn(acceptor(sender, stage).accept_from(socket));
            incoming.recv().await.expect("a connection");
            assert_eq!(started.elapsed().as_millis(), (rest * 3).as_millis(), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_accepting_after_what_is_connected_already() {
        let (sender, mut incoming) = mpsc::channel(1);
        let (stage, followed) = watch::channel(Stage::Serving);
        let socket = Failing { failures: 0, error: rustix::io::Errno::MFILE, tries: Arc::default() };
        let accepting = tokio::spawn(acceptor(sender, followed).accept_from(socket));
        incoming.recv().await.expect("a connection");
        stage.send_replace(Stage::Draining);
        accepting.await.expect("ends");
        incoming.recv().await.expect("what was connected");
        assert!(incoming.recv().await.is_none(), "nobody accepts any more");
    }
}
