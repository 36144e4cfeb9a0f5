//! In front of every method: who calls is known before a byte of the request's body is read, so that nobody without a
//! good token can make the server wait for a body or decode one.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use coffer_proto::limits;
use http::{Request, Response, header::AUTHORIZATION};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{body::Body, server::NamedService};
use tower::Service;

use super::status;
use crate::{
    serve::PeerInfo,
    vault::{Call, Error, Vault},
};

/// Every method, as the audit log names it. A test holds it against the descriptor.
pub(super) const METHODS: &[&str] = &[
    "coffer.v1.Access/CreateGrant",
    "coffer.v1.Access/DeleteGrant",
    "coffer.v1.Access/ListEffectiveAccess",
    "coffer.v1.Access/ListGrants",
    "coffer.v1.Access/TestPermissions",
    IMPORT,
    "coffer.v1.Scopes/DeleteScope",
    "coffer.v1.Scopes/ListScopes",
    "coffer.v1.Secrets/CloneSecrets",
    "coffer.v1.Secrets/CreateSecret",
    "coffer.v1.Secrets/DeleteSecret",
    "coffer.v1.Secrets/DescribeEnvironment",
    "coffer.v1.Secrets/GetSecret",
    "coffer.v1.Secrets/GetSecretStats",
    "coffer.v1.Secrets/ListSecrets",
    "coffer.v1.Secrets/UpdateSecret",
    "coffer.v1.Tokens/IssueToken",
    "coffer.v1.Tokens/ListTokens",
    "coffer.v1.Tokens/RevokeToken",
    "coffer.v1.Workloads/FetchEnvironment",
];
const IMPORT: &str = "coffer.v1.Imports/ImportSecrets";

/// What all gates share.
#[derive(Clone)]
pub(super) struct Guard {
    vault: Vault,
    principals: Arc<Principals>,
    importers: Arc<Principals>,
    imports: Arc<Semaphore>,
}

/// A service behind its gate.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    guard: Guard,
}

/// How many calls each principal has under way, and may have.
#[derive(Debug)]
struct Principals {
    counts: Mutex<HashMap<String, usize>>,
    most: usize,
}

/// What a call holds while it is under way.
#[derive(Debug)]
struct Admitted {
    _turn: Turn,
    _import: Option<(Turn, OwnedSemaphorePermit)>,
}

/// One call of a principal; ends when dropped.
#[derive(Debug)]
struct Turn {
    principals: Arc<Principals>,
    principal: String,
}

impl Guard {
    pub(super) fn new(vault: Vault) -> Self {
        Self {
            vault,
            principals: Arc::new(Principals::new(limits::PRINCIPAL_CALLS)),
            importers: Arc::new(Principals::new(limits::PRINCIPAL_IMPORTS)),
            imports: Arc::new(Semaphore::new(limits::IMPORTS_AT_ONCE)),
        }
    }

    pub(super) fn before<S>(&self, inner: S) -> Gate<S> {
        Gate { inner, guard: self.clone() }
    }

    /// That somebody known calls, who may call once more now.
    async fn admit(&self, method: &str, call: &Call) -> Result<Admitted, Error> {
        let principal = self.vault.authenticate(call).await?.to_string();
        let turn = self.principals.take(principal.clone()).ok_or(Error::Overloaded("at most 256 of one principal"))?;
        if method != IMPORT {
            return Ok(Admitted { _turn: turn, _import: None });
        }
        // Large requests are read some at a time, and nobody has all of those places.
        let share = self.importers.take(principal).ok_or(Error::Overloaded("at most 2 imports of one principal"))?;
        let place = self.imports.clone().acquire_owned().await;
        let place = place.map_err(|_| Error::Internal("the places of imports are closed".into()))?;
        Ok(Admitted { _turn: turn, _import: Some((share, place)) })
    }
}

/// The call that a request's head makes.
fn call(method: &'static str, request: &Request<Body>) -> Result<Call, Error> {
    let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone());
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    Call::new(method, peer, authorization)
}

impl Principals {
    fn new(most: usize) -> Self {
        Self { counts: Mutex::default(), most }
    }

    fn take(self: &Arc<Self>, principal: String) -> Option<Turn> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(principal.clone()).or_default();
        if *count == self.most {
            return None;
        }
        *count += 1;
        Some(Turn { principals: self.clone(), principal })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.principals.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.principal) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.principal);
            }
        }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was asked whether it is ready is the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let guard = self.guard.clone();
        let path = request.uri().path().trim_start_matches('/');
        let method = METHODS.iter().find(|method| **method == path);
        let called = method.map(|method| call(method, &request).map(|call| (*method, call)));
        Box::pin(async move {
            // None: not one of ours, and the service says so without reading on.
            let Some(called) = called else { return inner.call(request).await };
            let (method, call) = match called {
                Ok(called) => called,
                Err(error) => return Ok(status::of(error).into_http()),
            };
            let _admitted = match guard.admit(method, &call).await {
                Ok(admitted) => admitted,
                Err(error) => return Ok(status::of(error).into_http()),
            };
            request.extensions_mut().insert(call);
            inner.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_contract_is_known() {
        let descriptors = FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
        let mut methods: Vec<String> = descriptors
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
            .flat_map(|(package, service)| {
                service.method.iter().map(move |method| format!("{package}.{}/{}", service.name(), method.name()))
            })
            .collect();
        methods.sort();
        assert_eq!(METHODS, methods);
    }

    #[test]
    fn a_principal_has_so_many_calls_at_once_and_no_more() {
        let principals = Arc::new(Principals::new(3));
        let take = |name: &str| principals.take(name.to_owned());
        let mut turns: Vec<_> = (0..3).map(|_| take("users/a").expect("a turn")).collect();
        assert!(take("users/a").is_none());
        assert!(take("users/b").is_some(), "others are not held up");
        turns.pop();
        assert!(take("users/a").is_some());
        turns.clear();
        assert!(principals.counts.lock().expect("no panic before").is_empty(), "nobody is remembered");
    }
}
