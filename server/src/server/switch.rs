//! What is served: the standard services always, coffer's own once the store's key is there. Until then each of their
//! calls is told that the server is sealed, on the same sockets and connections.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use coffer_proto::reason::{DOMAIN, Reason};
use http::{Request, Response};
use tonic::{Code, Status, body::Body, service::Routes};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service;

use crate::seal::source::Cause;

/// How the path of each method of coffer's own begins.
const OWN: &str = "/coffer.v1.";

/// One service behind which routes are switched.
#[derive(Clone)]
pub(super) struct Switch {
    standard: Routes,
    own: Arc<OnceLock<Routes>>,
    cause: Arc<Mutex<Cause>>,
}

impl Switch {
    /// Sealed, for now.
    pub(super) fn new(standard: Routes) -> Self {
        Self { standard: standard.prepare(), own: Arc::default(), cause: Arc::new(Mutex::new(Cause::Unreachable)) }
    }

    /// Why it is sealed.
    pub(super) fn seal(&self, cause: Cause) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    /// From here on coffer's own calls are served.
    pub(super) fn unseal(&self, own: Routes) {
        // Twice is once: the first stays.
        let _ = self.own.set(own.prepare());
    }

    fn sealed(&self) -> Status {
        let cause = *self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = HashMap::from([("cause".to_owned(), cause.as_str().to_owned())]);
        let details = ErrorDetails::with_error_info(Reason::Sealed.as_str(), DOMAIN, metadata);
        let text = "the server is sealed: its key source does not give it the key of the store";
        Status::with_error_details(Code::Unavailable, text, details)
    }
}

impl Service<Request<Body>> for Switch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut routes = match (request.uri().path().starts_with(OWN), self.own.get()) {
            (false, _) => self.standard.clone(),
            (true, Some(own)) => own.clone(),
            (true, None) => {
                let response = self.sealed().into_http();
                return Box::pin(async { Ok(response) });
            }
        };
        // Routes are ready at any time.
        Box::pin(async move { routes.call(request).await })
    }
}
