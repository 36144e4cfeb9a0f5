//! In front of every method: who calls is known before a byte of the request's body is read, so that nobody without a
//! good token can make the server wait for a body or decode one.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use coffer_proto::{limits, metadata, name::Principal};
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{body::Body, server::NamedService};
use tower::Service;

use super::{
    answers, status,
    turns::{Lanes, Principals, Turn},
};
use crate::{
    serve::{AnswerCeiling, AnswerRoom, PeerInfo, UntilTaken},
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
    "coffer.v1.Instances/ListInstances",
    "coffer.v1.Instances/WatchInstances",
    "coffer.v1.Manifests/DeleteManifest",
    "coffer.v1.Manifests/ListManifests",
    "coffer.v1.Manifests/SetManifest",
    "coffer.v1.Operations/CreateSnapshot",
    "coffer.v1.Operations/GetStatus",
    "coffer.v1.Operations/ListSnapshots",
    "coffer.v1.Operations/RotateKeys",
    "coffer.v1.Operations/StreamBackup",
    REDACT_STREAM,
    REDACT,
    "coffer.v1.References/DeleteReference",
    "coffer.v1.References/ListReferences",
    "coffer.v1.References/SetReference",
    "coffer.v1.Scopes/DeleteScope",
    "coffer.v1.Scopes/GetScopeHealth",
    "coffer.v1.Scopes/ListScopes",
    "coffer.v1.Secrets/CloneSecrets",
    "coffer.v1.Secrets/CreateSecret",
    "coffer.v1.Secrets/DeleteSecret",
    "coffer.v1.Secrets/DescribeEnvironment",
    "coffer.v1.Secrets/GetSecret",
    "coffer.v1.Secrets/GetSecretStats",
    "coffer.v1.Secrets/ListSecrets",
    "coffer.v1.Secrets/UpdateSecret",
    "coffer.v1.Templates/RenderTemplate",
    "coffer.v1.Tokens/ExchangeStartToken",
    "coffer.v1.Tokens/IssueToken",
    "coffer.v1.Tokens/ListTokens",
    "coffer.v1.Tokens/RevokeToken",
    "coffer.v1.Workloads/FetchEnvironment",
    "coffer.v1.Workloads/WatchEnvironment",
];
pub(super) const IMPORT: &str = "coffer.v1.Imports/ImportSecrets";
pub(super) const REDACT: &str = "coffer.v1.Redactions/RedactText";
const REDACT_STREAM: &str = "coffer.v1.Redactions/RedactStream";
/// Those whose answer goes on: they are counted apart, and few of one principal.
const STREAMS: &[&str] = &[
    "coffer.v1.Instances/WatchInstances",
    "coffer.v1.Operations/CreateSnapshot",
    "coffer.v1.Operations/RotateKeys",
    "coffer.v1.Operations/StreamBackup",
    REDACT_STREAM,
    "coffer.v1.Workloads/WatchEnvironment",
];

/// What all gates share.
#[derive(Clone)]
pub(super) struct Guard {
    vault: Vault,
    principals: Arc<Principals>,
    streams: Arc<Principals>,
    /// What the answers of all may take of memory.
    answers: Arc<AnswerCeiling>,
    imports: Places,
    redactions: Places,
}

/// Places to read large messages in: so many in all, and fewer of one principal.
#[derive(Clone)]
struct Places {
    lanes: Arc<Lanes>,
    all: Arc<Semaphore>,
}

/// In the principal's own lane, and among all.
type Place = [OwnedSemaphorePermit; 2];

/// A service behind its gate.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    guard: Guard,
}

impl Guard {
    pub(super) fn new(vault: Vault) -> Self {
        Self {
            vault,
            principals: Arc::new(Principals::new(limits::PRINCIPAL_CALLS, answers::PRINCIPAL_BYTES)),
            streams: Arc::new(Principals::new(limits::PRINCIPAL_STREAMS, answers::PRINCIPAL_BYTES)),
            answers: AnswerCeiling::new(answers::ALL_BYTES),
            imports: Places::new(limits::PRINCIPAL_IMPORTS, limits::IMPORTS_AT_ONCE),
            redactions: Places::new(REDACTIONS_READ_OF_PRINCIPAL, REDACTIONS_READ_AT_ONCE),
        }
    }

    pub(super) fn before<S>(&self, inner: S) -> Gate<S> {
        Gate { inner, guard: self.clone() }
    }

    /// Who calls, and that they may call once more now.
    async fn admit(&self, method: &str, call: &Call, peer: Option<&PeerInfo>) -> Result<(Principal, Turn), Error> {
        let principal = self.vault.authenticate(call).await?;
        peer.iter().for_each(|peer| peer.authenticated());
        let (principals, most) = match STREAMS.contains(&method) {
            true => (&self.streams, "at most 8 watches and streams of one principal"),
            false => (&self.principals, "at most 256 of one principal"),
        };
        let turn = principals.take(principal.to_string());
        Ok((principal, turn.ok_or(Error::Overloaded(most))?))
    }

    /// What a call holds while it is served, and until its answer is taken.
    async fn enter(&self, method: &str, call: &Call, peer: Option<&PeerInfo>) -> Result<(Held, Option<Place>), Error> {
        let (principal, turn) = self.admit(method, call, peer).await?;
        // The place first: it is free again when the answer is made, and room only when the answer is taken.
        let place = self.place(method, call, principal).await?;
        let room = if STREAMS.contains(&method) {
            None
        } else {
            Some(answers::room(method, &[&turn.answers, &self.answers]).await?)
        };
        Ok(((turn, room), place))
    }

    /// A place for a method whose messages are large; the others need none.
    async fn place(&self, method: &str, call: &Call, principal: Principal) -> Result<Option<Place>, Error> {
        let places = match method {
            // Workloads are without number, and none may ever import: they must not take the few places there are.
            IMPORT if principal.as_workload().is_some() => return Err(self.vault.deny(call, principal).await),
            // Nor may users ever redact, of whom there may be many: they must not take the room.
            REDACT_STREAM if matches!(principal, Principal::User(_)) => {
                return Err(self.vault.deny(call, principal).await);
            }
            IMPORT => &self.imports,
            REDACT => &self.redactions,
            _ => return Ok(None),
        };
        places.take(principal).await.map(Some)
    }
}

/// What a call holds until its answer is taken.
type Held = (Turn, Option<AnswerRoom>);

/// Texts to redact that are read or worked on at once: 4 MiB each, and as much for the answer.
const REDACTIONS_READ_AT_ONCE: usize = 4 * limits::REDACTIONS_AT_ONCE;
/// Of one principal.
const REDACTIONS_READ_OF_PRINCIPAL: usize = 2;

impl Places {
    fn new(of_principal: usize, all: usize) -> Self {
        Self { lanes: Arc::new(Lanes::new(of_principal)), all: Arc::new(Semaphore::new(all)) }
    }

    /// A place, waited for within the call's own deadline: first in the principal's own lane, so that nobody has all of
    /// the places.
    async fn take(&self, principal: Principal) -> Result<Place, Error> {
        let closed = |_| Error::Internal("the places of large messages are closed".into());
        let lane = self.lanes.of(principal.to_string()).acquire_owned().await.map_err(closed)?;
        Ok([lane, self.all.clone().acquire_owned().await.map_err(closed)?])
    }
}

/// The call that a request's head makes.
fn call(method: &'static str, request: &Request<Body>) -> Result<Call, Error> {
    let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone());
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let call = Call::new(method, peer, authorization)?;
    let refuses_stale = request.headers().get(metadata::STALE).is_some_and(|value| value == metadata::STALE_REFUSED);
    Ok(if refuses_stale { call.refusing_stale() } else { call })
}

fn rfc3339(time: SystemTime) -> HeaderValue {
    let text = humantime::format_rfc3339_millis(time).to_string();
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
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
        let peer = request.extensions().get::<PeerInfo>().cloned();
        Box::pin(async move {
            // None: not one of ours, and the service says so without reading on.
            let Some(called) = called else { return inner.call(request).await };
            let (method, call) = match called {
                Ok(called) => called,
                Err(error) => return Ok(status::of(error).into_http()),
            };
            let stale = call.staleness();
            let mut response = match guard.enter(method, &call, peer.as_ref()).await {
                Ok(((turn, room), _place)) => {
                    request.extensions_mut().insert(call);
                    let mut response = inner.call(request).await?;
                    response.extensions_mut().insert(UntilTaken::hold(turn, room));
                    response
                }
                Err(error) => status::of(error).into_http(),
            };
            if let Some(since) = stale.get() {
                response.headers_mut().insert(metadata::STALE_SINCE, rfc3339(*since));
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use coffer_proto::{
        name::Permission,
        token::{Token, TokenKind},
    };
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use prost::Message as _;
    use prost_types::FileDescriptorSet;
    use tokio::time::timeout;
    use tonic::service::Routes;

    use super::*;
    use crate::{
        store::{faulty::Faulty, memory::Memory},
        vault::tests::world::{OPERATOR, World},
    };

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

    fn routes_of(vault: Vault) -> Routes {
        crate::api::routes(vault, tokio::sync::watch::channel(crate::serve::Stage::Serving).1)
    }

    /// A request whose body never comes.
    fn unfinished(path: &str, token: Option<&str>) -> Request<Body> {
        let body = Body::new(StreamBody::new(tokio_stream::pending::<Result<_, tonic::Status>>()));
        let mut request = Request::post(path).header("content-type", "application/grpc").body(body).expect("a request");
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        request
    }

    /// The code of an answer that came at once, if one did.
    async fn answered(routes: &mut Routes, request: Request<Body>) -> Option<tonic::Code> {
        let answer = timeout(Duration::from_millis(200), routes.call(request)).await.ok()?.expect("infallible");
        Some(tonic::Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code()))
    }

    #[tokio::test]
    async fn nobody_unknown_is_waited_for() {
        let world = World::new().await;
        let vault = world.vault().await;
        let known = world.issue(&vault, OPERATOR, "users/a").await.expect("issued");
        let unknown = Token::generate(TokenKind::User);
        let mut routes = routes_of(vault);
        for method in METHODS {
            let path = format!("/{method}");
            let missing = answered(&mut routes, unfinished(&path, None)).await;
            assert_eq!(missing, Some(tonic::Code::Unauthenticated), "{method}");
            let wrong = answered(&mut routes, unfinished(&path, Some(unknown.expose()))).await;
            assert_eq!(wrong, Some(tonic::Code::Unauthenticated), "{method}");
        }
        let path = format!("/{}", METHODS[0]);
        assert_eq!(answered(&mut routes, unfinished(&path, Some(known.expose()))).await, None, "a known one is");
        for path in
            ["/coffer.v1.Secrets/Reveal", "/coffer.v1.Secrets/CreateSecret/", "/coffer.v1.Secrets//CreateSecret"]
        {
            let code = answered(&mut routes, unfinished(path, Some(known.expose()))).await;
            assert_eq!(code, Some(tonic::Code::Unimplemented), "{path}");
        }
    }

    #[tokio::test]
    async fn a_call_counts_until_its_answer_is_taken() {
        let world = World::new().await;
        let vault = world.vault().await;
        let token = world.issue(&vault, OPERATOR, "users/a").await.expect("issued");
        let mut routes = routes_of(vault);
        // An empty message asks which of no permissions the caller has.
        let mut call = async || {
            let mut request = unfinished("/coffer.v1.Access/TestPermissions", Some(token.expose()));
            *request.body_mut() = Body::new(Full::from(vec![0; 5]).map_err(|never| match never {}));
            let answer = routes.call(request).await.expect("infallible");
            let code = tonic::Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code());
            (code, answer)
        };
        let mut untaken = Vec::new();
        for _ in 0..limits::PRINCIPAL_CALLS {
            let (code, answer) = call().await;
            assert_eq!(code, tonic::Code::Ok);
            untaken.push(answer);
        }
        assert_eq!(call().await.0, tonic::Code::ResourceExhausted);
        untaken.pop();
        assert_eq!(call().await.0, tonic::Code::Ok);
    }

    #[tokio::test]
    async fn large_answers_wait_for_room_until_others_are_taken() {
        let world = World::new().await;
        let vault = world.vault().await;
        world.grant(&vault, "services/s", Permission::WorkloadsIssue, "projects/p").await;
        let token = world.issue(&vault, "services/s", "projects/p/servers/s").await.expect("issued");
        let mut routes = routes_of(vault);
        let mut call = async || {
            let mut request = unfinished("/coffer.v1.Workloads/FetchEnvironment", Some(token.expose()));
            *request.body_mut() = Body::new(Full::from(vec![0; 5]).map_err(|never| match never {}));
            timeout(Duration::from_secs(1), routes.call(request)).await.ok()
        };
        let mut untaken = Vec::new();
        while untaken.len() < limits::PRINCIPAL_CALLS
            && let Some(answer) = call().await
        {
            untaken.push(answer);
        }
        assert_eq!(untaken.len(), 64, "of 512 KiB at most each, as far as is known");
        untaken.pop();
        assert!(call().await.is_some());
    }

    #[tokio::test]
    async fn what_is_not_of_now_says_so_and_is_refused_to_who_wants_nothing_else() {
        let (store, faults) = Faulty::new(Memory::new());
        let world = World::on(Arc::new(store)).await;
        let vault = world.replica(Duration::from_secs(600)).await;
        world.grant(&vault, "services/s", Permission::WorkloadsIssue, "projects/p").await;
        let token = world.issue(&vault, "services/s", "projects/p/servers/s").await.expect("issued");
        let mut routes = routes_of(vault);
        let mut call = async |path: &str, stale: Option<&str>| {
            let mut request = unfinished(path, Some(token.expose()));
            *request.body_mut() = Body::new(Full::from(vec![0; 5]).map_err(|never| match never {}));
            if let Some(stale) = stale {
                request.headers_mut().insert(metadata::STALE, stale.parse().expect("a header"));
            }
            let answer = routes.call(request).await.expect("infallible");
            let code = tonic::Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code());
            let since =
                answer.headers().get(metadata::STALE_SINCE).map(|since| since.to_str().expect("ASCII").to_owned());
            (code, since.inspect(|since| assert!(humantime::parse_rfc3339(since).is_ok(), "{since}")).is_some())
        };
        const FETCH: &str = "/coffer.v1.Workloads/FetchEnvironment";
        // On a busy machine the store may seem away for a moment.
        let begun = Instant::now();
        let mut first = call(FETCH, Some("no")).await;
        while first.0 == tonic::Code::Unavailable && begun.elapsed() < Duration::from_secs(30) {
            first = call(FETCH, Some("no")).await;
        }
        assert_eq!(first, (tonic::Code::Ok, false));
        faults.fail_reads(Some(crate::store::Error::Unavailable("away".into())));
        assert_eq!(call(FETCH, Some("no")).await, (tonic::Code::Unavailable, true));
        assert_eq!(call(FETCH, None).await, (tonic::Code::Ok, true));
        assert_eq!(call("/coffer.v1.Workloads/WatchEnvironment", Some("no")).await, (tonic::Code::Unavailable, true));
        assert_eq!(call("/coffer.v1.Templates/RenderTemplate", None).await, (tonic::Code::InvalidArgument, true));
        assert_eq!(call("/coffer.v1.Access/TestPermissions", None).await, (tonic::Code::Unavailable, false));
    }

    #[test]
    fn streams_are_what_the_contract_calls_so() {
        let descriptors = FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
        let is_streaming = |name: &str| {
            let (service, method) = name.rsplit_once('/').expect("a method");
            let mut services = descriptors.file.iter().flat_map(|file| {
                file.service.iter().filter(move |found| format!("{}.{}", file.package(), found.name()) == service)
            });
            let service = services.next().expect("its service");
            service.method.iter().any(|found| found.name() == method && found.server_streaming())
        };
        let streams: Vec<_> = METHODS.iter().filter(|method| is_streaming(method)).collect();
        assert_eq!(STREAMS.iter().collect::<Vec<_>>(), streams);
    }

    #[tokio::test]
    async fn nobody_takes_all_places_of_imports() {
        let world = World::new().await;
        let vault = world.vault().await;
        let (one, other) = (
            world.issue(&vault, OPERATOR, "users/a").await.expect("issued"),
            world.issue(&vault, OPERATOR, "users/b").await.expect("issued"),
        );
        world.grant(&vault, "services/s", Permission::WorkloadsIssue, "projects/p").await;
        let server = world.issue(&vault, "services/s", "projects/p/servers/s").await.expect("issued");
        let routes = routes_of(vault);
        let path = format!("/{IMPORT}");
        let slow: Vec<_> = (0..3 * limits::IMPORTS_AT_ONCE)
            .map(|_| {
                let (mut routes, request) = (routes.clone(), unfinished(&path, Some(one.expose())));
                tokio::spawn(async move { routes.call(request).await.map(drop) })
            })
            .collect();
        let mut routes = routes;
        let waits = answered(&mut routes, unfinished(&path, Some(one.expose()))).await;
        assert_eq!(waits, None, "for a place of its own");
        let workload = answered(&mut routes, unfinished(&path, Some(server.expose()))).await;
        assert_eq!(workload, Some(tonic::Code::PermissionDenied));
        // An import of nothing is refused once it has been read.
        let mut empty = unfinished(&path, Some(other.expose()));
        *empty.body_mut() = Body::new(Full::from(vec![0; 5]).map_err(|never| match never {}));
        assert_eq!(answered(&mut routes, empty).await, Some(tonic::Code::InvalidArgument), "others are read");
        slow.into_iter().for_each(|task| task.abort());
    }

    #[tokio::test]
    async fn nobody_takes_all_places_of_redactions() {
        let world = World::new().await;
        let vault = world.vault().await;
        let one = world.issue(&vault, OPERATOR, "users/a").await.expect("issued");
        let other = world.issue(&vault, OPERATOR, "users/b").await.expect("issued");
        let mut routes = routes_of(vault);
        let path = format!("/{REDACT}");
        let slow: Vec<_> = (0..2 * REDACTIONS_READ_AT_ONCE)
            .map(|_| {
                let (mut routes, request) = (routes.clone(), unfinished(&path, Some(one.expose())));
                tokio::spawn(async move { routes.call(request).await.map(drop) })
            })
            .collect();
        let empty = |token: &Token| {
            let mut request = unfinished(&path, Some(token.expose()));
            *request.body_mut() = Body::new(Full::from(vec![0; 5]).map_err(|never| match never {}));
            request
        };
        // By then the slow ones have begun.
        assert_eq!(answered(&mut routes, unfinished(&path, Some(one.expose()))).await, None);
        assert_eq!(answered(&mut routes, empty(&one)).await, None, "it waits for a place of its own");
        // Who is no workload must name one.
        assert_eq!(answered(&mut routes, empty(&other)).await, Some(tonic::Code::InvalidArgument), "others are read");
        slow.into_iter().for_each(|task| task.abort());
    }
}
