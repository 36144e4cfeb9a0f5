//! An accepted connection as HTTP/2 sees it: bytes that can be cut, and a peer.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};
use tonic::transport::server::Connected;

use super::{Limits, Stage, activity::Activity, slots::ConnectionSlot};

/// Bytes both ways: TCP, TLS over it, or a unix socket.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// An address with its port, or `unix`.
    pub peer: String,
    /// Whose share its calls take; a unix socket has no address.
    pub(super) address: Option<IpAddr>,
    pub(super) activity: Arc<Activity>,
    /// The connection's, and gone with it.
    slot: Weak<ConnectionSlot>,
}

impl PeerInfo {
    pub(super) fn new(peer: String, address: Option<IpAddr>, slot: &Arc<ConnectionSlot>) -> Self {
        Self { peer, address, activity: Arc::new(Activity::new()), slot: Arc::downgrade(slot) }
    }

    /// Of a connection that nobody counts.
    #[cfg(test)]
    pub(super) fn alone(peer: &str, address: Option<IpAddr>) -> Self {
        Self { peer: peer.to_owned(), address, activity: Arc::new(Activity::new()), slot: Weak::new() }
    }

    /// To be told of each call that has authenticated: from the first one on the connection keeps its slot, and may be idle
    /// for longer.
    pub fn authenticated(&self) {
        if self.activity.authenticated()
            && let Some(slot) = self.slot.upgrade()
        {
            slot.authenticated();
        }
    }
}

/// A connection that ends when it is cut, has to give way to another, or has outstayed a limit. HTTP/2 has gentler ends,
/// but a peer that takes no bytes would never see them.
pub(super) struct Connection {
    bytes: Box<dyn Bytes>,
    info: PeerInfo,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    has_ended: bool,
    _slot: Arc<ConnectionSlot>,
}

impl Connection {
    pub(super) fn new(
        bytes: Box<dyn Bytes>,
        info: PeerInfo,
        slot: Arc<ConnectionSlot>,
        limits: Limits,
        stage: watch::Receiver<Stage>,
        mut is_cut: watch::Receiver<bool>,
    ) -> Self {
        let PeerInfo { peer, activity, .. } = info.clone();
        let own = Arc::clone(&slot);
        let end = Box::pin(async move {
            tokio::select! {
                () = own.evicted() => tracing::debug!(peer, "a connection gives way to others"),
                why = activity.has_outstayed(&limits, stage) => tracing::debug!(peer, why, "a connection is closed"),
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
