//! An accepted connection as tonic sees it: bytes that can be cut, and a peer.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::sleep,
};
use tonic::transport::server::Connected;

use super::admission::Slot;

/// Bytes both ways: TCP, TLS over it, or a unix socket.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// An address with its port, or `unix`.
    pub peer: String,
    has_requested: Arc<AtomicBool>,
}

impl PeerInfo {
    pub(super) fn new(peer: String) -> Self {
        Self { peer, has_requested: Arc::default() }
    }

    /// The connection has shown what it is for.
    pub(super) fn requested(&self) {
        self.has_requested.store(true, Ordering::Relaxed);
    }
}

/// A connection that ends when it is cut, or when it brings no first request in time.
pub(super) struct Connection {
    bytes: Box<dyn Bytes>,
    info: PeerInfo,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
    _slot: Slot,
}

impl Connection {
    pub(super) fn new(
        bytes: Box<dyn Bytes>,
        info: PeerInfo,
        slot: Slot,
        first_request: Duration,
        mut is_cut: watch::Receiver<bool>,
    ) -> Self {
        let has_requested = Arc::clone(&info.has_requested);
        let end = Box::pin(async move {
            let idle = async {
                sleep(first_request).await;
                if has_requested.load(Ordering::Relaxed) {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                () = idle => tracing::debug!("a connection without a request is closed"),
                _ = is_cut.wait_for(|cut| *cut) => {}
            }
        });
        Self { bytes, info, end, has_ended: false, _slot: slot }
    }

    fn check_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.has_ended = self.has_ended || self.end.as_mut().poll(context).is_ready();
        if self.has_ended { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        Pin::new(&mut self.bytes).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_end(context)?;
        Pin::new(&mut self.bytes).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_end(context)?;
        Pin::new(&mut self.bytes).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        Pin::new(&mut self.bytes).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }
}
