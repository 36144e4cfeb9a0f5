//! Stands between the store and etcd and withholds what one of them says, as a network does that has failed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::sleep,
};

/// What becomes of the bytes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// Nothing of etcd comes back.
    LoseAnswers,
    /// Nothing of the store reaches etcd, until it is let go.
    HoldRequests,
    /// The same from the first request on that has these bytes.
    HoldNaming(&'static [u8]),
    /// The connection breaks.
    Cut,
    /// What etcd says comes so late.
    Slow(Duration),
}

/// A proxy of one etcd.
pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    /// Of the connections there are.
    mode: watch::Sender<Mode>,
    /// Of new ones.
    mode_of_new: Mutex<Mode>,
    /// How many connections there were.
    connections: watch::Sender<usize>,
    /// How many times something was held.
    held: watch::Sender<usize>,
    letting_go: Mutex<Vec<oneshot::Sender<()>>>,
    /// How many times etcd answered what was let go.
    answered: watch::Sender<usize>,
}

impl Proxy {
    pub(super) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            mode_of_new: Mutex::new(Mode::Pass),
            connections: watch::Sender::default(),
            held: watch::Sender::default(),
            letting_go: Mutex::default(),
            answered: watch::Sender::default(),
        });
        let of = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                of.connections.send_modify(|connections| *connections += 1);
                let mode = *of.mode_of_new.lock().expect("lock");
                if mode == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                // What follows is of connections that were there before.
                let modes = of.mode.subscribe();
                tokio::spawn(Arc::clone(&of).carry(client, server, mode, modes));
            }
        });
        Self { port, shared, accepting }
    }

    /// From now on, for the connections there are.
    pub(super) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// From now on, for connections to come.
    pub(super) fn set_for_new(&self, mode: Mode) {
        *self.shared.mode_of_new.lock().expect("lock") = mode;
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until something is held.
    pub(super) async fn holds(&self) {
        let _ = super::soon(self.shared.held.subscribe().wait_for(|held| *held > 0)).await;
    }

    /// Lets go what was held, without that it was cancelled since.
    pub(super) fn release(&self) {
        for gate in self.shared.letting_go.lock().expect("lock").drain(..) {
            let _ = gate.send(());
        }
    }

    /// The same, and waits until etcd has answered it.
    pub(super) async fn let_go(&self) {
        self.release();
        let _ = super::soon(self.shared.answered.subscribe().wait_for(|answered| *answered > 0)).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Mode::Cut);
    }
}

impl Shared {
    async fn carry(self: Arc<Self>, client: TcpStream, server: TcpStream, new: Mode, modes: watch::Receiver<Mode>) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mode = Arc::new(Mutex::new(new));
        let back = tokio::spawn(Arc::clone(&self).answers(from_server, to_client, Arc::clone(&mode), modes.clone()));
        self.requests(from_client, to_server, mode, modes).await;
        back.abort();
    }

    async fn answers(
        self: Arc<Self>,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mode: Arc<Mutex<Mode>>,
        mut modes: watch::Receiver<Mode>,
    ) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut bytes) => read,
                _ = modes.changed() => { *mode.lock().expect("lock") = *modes.borrow_and_update(); continue }
            };
            let Ok(read @ 1..) = read else { return };
            let mode = *mode.lock().expect("lock");
            match mode {
                Mode::Pass | Mode::HoldNaming(_) => {
                    if to.write_all(&bytes[..read]).await.is_err() {
                        return;
                    }
                }
                Mode::HoldRequests => self.answered.send_modify(|answered| *answered += 1),
                Mode::LoseAnswers => {}
                Mode::Slow(late) => {
                    sleep(late).await;
                    let mut said = bytes[..read].to_vec();
                    while let Ok(read @ 1..) = from.try_read(&mut bytes) {
                        said.extend_from_slice(&bytes[..read]);
                    }
                    if to.write_all(&said).await.is_err() {
                        return;
                    }
                }
                Mode::Cut => return,
            }
        }
    }

    async fn requests(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mode: Arc<Mutex<Mode>>,
        mut modes: watch::Receiver<Mode>,
    ) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut bytes) => read,
                _ = modes.changed() => {
                    *mode.lock().expect("lock") = *modes.borrow_and_update();
                    if *modes.borrow() == Mode::Cut { return }
                    continue
                }
            };
            let Ok(read @ 1..) = read else { return };
            let mut now = *mode.lock().expect("lock");
            if let Mode::HoldNaming(named) = now
                && bytes[..read].windows(named.len()).any(|window| window == named)
            {
                now = Mode::HoldRequests;
                *mode.lock().expect("lock") = now;
            }
            match now {
                Mode::HoldRequests => return self.hold(bytes[..read].to_vec(), from, to).await,
                Mode::Cut => return,
                Mode::Pass | Mode::LoseAnswers | Mode::HoldNaming(_) | Mode::Slow(_) => {
                    if to.write_all(&bytes[..read]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Keeps everything until it is let go, the end of the client's connection included.
    async fn hold(&self, mut held: Vec<u8>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (gate, mut opened) = oneshot::channel();
        self.letting_go.lock().expect("lock").push(gate);
        self.held.send_modify(|held| *held += 1);
        let mut bytes = vec![0; 64 * 1024];
        let mut is_open = true;
        loop {
            tokio::select! {
                _ = &mut opened => break,
                read = from.read(&mut bytes), if is_open => match read {
                    Ok(read @ 1..) => held.extend_from_slice(&bytes[..read]),
                    _ => is_open = false,
                },
            }
        }
        let _ = to.write_all(&without_cancellation(&held)).await;
        // Until the proxy ends, so that etcd does not see the client go.
        let _ = self.mode.subscribe().wait_for(|mode| *mode == Mode::Cut).await;
    }
}

/// Frames of HTTP/2 (RFC 9113, section 4.1), without those that cancel a call or close the connection.
fn without_cancellation(mut frames: &[u8]) -> Vec<u8> {
    const HEADER: usize = 9;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    let mut kept = Vec::new();
    while let Some(header) = frames.first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let (frame, rest) = frames.split_at((HEADER + length).min(frames.len()));
        if header[3] != RST_STREAM && header[3] != GOAWAY {
            kept.extend_from_slice(frame);
        }
        frames = rest;
    }
    kept
}
