//! HTTP/2 on each connection.
//!
//! hyper is driven here and not by tonic's server, which cannot end a single connection in good order: a connection that
//! nobody needs any more ends with GOAWAY (RFC 9113, 6.8), so that its client loses no call that it has just begun.

use std::{convert::Infallible, pin::pin};

use http::{Request, Response};
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tonic::{body::Body, transport::server::Connected as _};
use tower::{Service, ServiceExt as _};

use super::{
    HEADER_LIST_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, LOCAL_RESETS_MAX, PENDING_RESETS_MAX, STREAMS_MAX,
    connection::Connection,
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
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection failed");
    }
}
