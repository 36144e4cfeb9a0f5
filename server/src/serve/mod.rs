//! Sockets, TLS, limits and the drain: everything between the network and the services.
//!
//! The caller owns the listeners and the end: [`serve`] takes bound [`Listener`]s and a [`Stage`] to follow. Connections
//! are accepted, counted, handshaken and driven here: tonic's own accept loop spins when descriptors run out, never
//! reloads a certificate and never ends a single connection in good order.

mod accept;
mod activity;
mod admission;
mod answers;
mod calls;
mod certificates;
mod connection;
mod deadline;
mod health;
mod http2;
mod limits;
mod listener;
mod marks;
mod methods;
mod pair;
mod slots;
mod taken;

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response};

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::body::Body;
use tower::{Layer as _, Service};

use self::{
    accept::Acceptor,
    calls::CallsLayer,
    limits::{CUT_WAIT_MAX, HANDSHAKEN_QUEUE_MAX},
    slots::ConnectionSlots,
};

pub use answers::{AnswerCeiling, AnswerRoom};
pub use calls::UntilTaken;
pub use certificates::{Certificates, CertificatesError};
pub use connection::PeerInfo;
pub use health::{ApiService, Extent, health};
pub use limits::{DRAIN_MAX, Limits};
pub use listener::{BindError, Listener};
pub use marks::{Daily, Marks};
pub use pair::Unusable;
pub(crate) use pair::{Of, Pair};
pub(crate) use slots::EVICTED_MAX;
pub use taken::{ReaderTooSlow, Taken};

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
