//! HTTP/2 on each connection.
//!
//! hyper is driven here and not by tonic's server, which cannot end a single connection in good order: a connection that
//! nobody needs any more ends with GOAWAY (RFC 9113, 6.8), so that its client loses no call that it has just begun.

use std::{convert::Infallible, error::Error, pin::pin};

use http::{Request, Response};
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tonic::{body::Body, transport::server::Connected as _};
use tower::{Service, ServiceExt as _};

use super::{
    connection::Connection,
    limits::{
        CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, HEADER_LIST_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
        LOCAL_RESETS_MAX, PENDING_RESETS_MAX, SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES, STREAMS_MAX,
    },
};

/// Serves connections, each in a task of its own, until nobody hands over any more and all have ended.
pub(super) async fn serve<S>(mut handshaken: mpsc::Receiver<Connection>, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let builder = builder();
    // Each connection holds a sender until it ends.
    let (open, mut all_ended) = mpsc::channel::<Infallible>(1);
    while let Some(connection) = handshaken.recv().await {
        let (builder, service, open) = (builder.clone(), service.clone(), open.clone());
        tokio::spawn(async move {
            drive(&builder, connection, service).await;
            drop(open);
        });
    }
    drop(open);
    all_ended.recv().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .adaptive_window(false)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX);
    builder
}

async fn drive<S>(builder: &Builder<TokioExecutor>, connection: Connection, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let info = connection.connect_info();
    let peer = info.peer.clone();
    let activity = info.activity.clone();
    let each = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        service.clone().oneshot(request)
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), each));
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = activity.leaves() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    let Err(error) = ended else { return };
    match refusal(&error) {
        Some(reason) => tracing::info!(
            peer,
            %reason,
            "a connection is closed, because its peer does not keep to HTTP/2 or to its limits"
        ),
        None => tracing::debug!(peer, error = &error as &dyn Error, "a connection failed"),
    }
}

/// Why HTTP/2 ended the connection, if it was HTTP/2, and not the network, a limit of time or an end from this side.
fn refusal(error: &hyper::Error) -> Option<&h2::Error> {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.filter(|cause| cause.is_library())
}
