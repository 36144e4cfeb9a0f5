//! Around every call: how many at once, how long, what happens on a panic, and one line of log.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coffer_proto::reason::{DOMAIN, Reason};
use http::{Request, Response};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service};

use super::PeerInfo;

/// When an overloaded server asks to be called again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest method that is logged, in bytes: callers choose the text.
const LOGGED_METHOD_BYTES: usize = 100;

/// Puts [`Calls`] around a service.
#[derive(Clone, Debug)]
pub(super) struct CallsLayer {
    places: Arc<Semaphore>,
    duration_max: Duration,
}

/// Bounds, guards and logs every call of the process.
#[derive(Clone, Debug)]
pub(super) struct Calls<S> {
    inner: S,
    layer: CallsLayer,
}

impl CallsLayer {
    pub(super) fn new(calls_max: usize, duration_max: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(calls_max)), duration_max }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<PeerInfo>().cloned();
        if let Some(peer) = &peer {
            peer.requested();
        }
        // The service that was asked whether it is ready is the one that is called.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            let started = Instant::now();
            let method = loggable(request.uri().path()).to_owned();
            let response = layer.run(inner, request).await;
            tracing::debug!(
                method,
                code = ?code(&response),
                duration = ?started.elapsed(),
                peer = peer.as_ref().map(|peer| &*peer.peer),
                "call"
            );
            Ok(response)
        })
    }
}

impl CallsLayer {
    /// The answer, or its beginning if it is a stream: a place is held, and time is taken, until then.
    async fn run<S>(self, mut inner: S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let Ok(_place) = self.places.try_acquire() else {
            return overloaded().into_http();
        };
        // Called within the future, so that a panic of `call` itself is caught too.
        let work = pin!(async move { inner.call(request).await });
        match timeout(self.duration_max, without_panic(work)).await {
            Ok(Some(Ok(response))) => response,
            Ok(Some(Err(never))) => match never {},
            Ok(None) => internal().into_http(),
            // tonic's own timeout would answer CANCELLED, which callers do not retry.
            Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
        }
    }
}

/// The future's output, or nothing if it panicked. The panic hook has told where; nobody else learns more.
async fn without_panic<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        // What a panic leaves half done belongs to this call alone, and is dropped with it.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

fn overloaded() -> Status {
    let mut details = ErrorDetails::with_error_info(Reason::Overloaded.as_str(), DOMAIN, []);
    details.set_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(Code::ResourceExhausted, "too many calls at once; try again later", details)
}

fn internal() -> Status {
    let details = ErrorDetails::with_error_info(Reason::Internal.as_str(), DOMAIN, []);
    Status::with_error_details(Code::Internal, "internal error", details)
}

/// The status that the headers tell; a stream that has begun well tells its own at its end.
fn code(response: &Response<Body>) -> Code {
    let header = response.headers().get("grpc-status");
    header.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

fn loggable(path: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_');
    if path.len() <= LOGGED_METHOD_BYTES && path.bytes().all(is_plain) { path } else { "(no method)" }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    async fn status(layer: CallsLayer, path: &'static str) -> Status {
        let service = service_fn(|request: Request<Body>| async move {
            match request.uri().path() {
                "/panic" => panic!("a value: hunter2"),
                "/hang" => pending().await,
                _ => Ok(Status::ok("").into_http()),
            }
        });
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = layer.layer(service).oneshot(request).await.unwrap_or_else(|never| match never {});
        Status::from_header_map(response.headers()).expect("a status")
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_is_answered() {
        let started = Instant::now();
        let status = status(CallsLayer::new(1, Duration::from_secs(10)), "/hang").await;
        assert_eq!((status.code(), started.elapsed().as_secs()), (Code::DeadlineExceeded, 10));
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_its_place_is_free_again() {
        let layer = CallsLayer::new(1, Duration::from_secs(10));
        let answer = status(layer.clone(), "/panic").await;
        assert_eq!((answer.code(), answer.message()), (Code::Internal, "internal error"));
        let reason = answer.get_details_error_info().map(|info| info.reason);
        assert_eq!(reason.as_deref(), Some("INTERNAL"));
        assert_eq!(status(layer, "/good").await.code(), Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_calls_are_refused_with_a_reason() {
        let layer = CallsLayer::new(1, Duration::from_secs(10));
        let held = tokio::spawn(status(layer.clone(), "/hang"));
        tokio::task::yield_now().await;
        let answer = status(layer.clone(), "/good").await;
        assert_eq!(answer.code(), Code::ResourceExhausted);
        let details = answer.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("OVERLOADED"));
        assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(RETRY_DELAY));
        held.await.expect("ends by its timeout");
        assert_eq!(status(layer, "/good").await.code(), Code::Ok);
    }

    #[test]
    fn only_plain_methods_are_logged() {
        assert_eq!(loggable("/coffer.v1.Secrets/GetSecret"), "/coffer.v1.Secrets/GetSecret");
        for path in ["/a%20b", "/\u{1b}[31m", "/=?", &"/a".repeat(100)] {
            assert_eq!(loggable(path), "(no method)");
        }
    }
}
