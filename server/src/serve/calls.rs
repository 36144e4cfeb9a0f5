//! Around every call: how many at once, how long, what happens on a panic, and one line of log.

use std::{
    any::Any,
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coffer_proto::reason::{DOMAIN, Reason};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, body::Body, codegen::Bytes};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service};

use super::{
    Limits, PeerInfo,
    activity::OpenCall,
    admission::{Admission, Slot},
    answers::AnswerRoom,
    deadline,
    methods::{Kind, Methods},
    taken::{Taken, Untaken},
};

/// When an overloaded server asks to be called again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// One peer may have this part of all places: one of so many.
const PEER_SHARES: u32 = 4;
/// The same of streams, of which a host full of workloads has one each.
const PEER_STREAM_SHARES: u32 = 2;

/// Puts [`Calls`] around a service.
#[derive(Clone, Debug)]
pub(super) struct CallsLayer {
    own: Admission,
    streams: Admission,
    checks: Admission,
    watches: Admission,
    methods: Arc<Methods>,
    duration_max: Duration,
    slow_reader: Duration,
}

/// Bounds, guards and logs every call of the process.
#[derive(Clone, Debug)]
pub(super) struct Calls<S> {
    inner: S,
    layer: CallsLayer,
}

impl CallsLayer {
    pub(super) fn new(limits: &Limits) -> Self {
        let places = |what, total: u32| Admission::new(what, total, total.div_ceil(PEER_SHARES));
        Self {
            own: places("calls", limits.calls),
            streams: Admission::new("streams", limits.streams, limits.streams.div_ceil(PEER_STREAM_SHARES)),
            checks: places("health checks", limits.health_checks),
            watches: places("health watches", limits.health_watches),
            methods: Arc::new(Methods::new()),
            duration_max: limits.call,
            slow_reader: limits.slow_reader,
        }
    }

    /// Calls whose answer is not yet with the operating system.
    pub(super) fn under_way(&self) -> u32 {
        [&self.own, &self.streams, &self.checks, &self.watches].into_iter().map(Admission::total).sum()
    }

    fn places(&self, kind: Kind) -> &Admission {
        match kind {
            Kind::Own => &self.own,
            Kind::Stream => &self.streams,
            Kind::Check => &self.checks,
            Kind::Watch => &self.watches,
        }
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
        let call = peer.as_ref().map(|peer| peer.activity.call());
        // The service that was asked whether it is ready is the one that is called.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            let started = Instant::now();
            let method = layer.methods.name(request.uri().path()).to_owned();
            let response = layer.run(inner, request, call, peer.as_ref().and_then(|peer| peer.address)).await;
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
    /// The answer, or its beginning if it is a stream: time is taken until then, a place is held until its last byte is
    /// taken.
    async fn run<S>(
        self,
        mut inner: S,
        mut request: Request<Body>,
        call: Option<OpenCall>,
        address: Option<IpAddr>,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let kind = self.methods.kind(request.uri().path());
        let Some(place) = self.places(kind).admit(address) else {
            return overloaded().into_http();
        };
        let patience = deadline::of(request.headers()).map_or(self.duration_max, |asked| asked.min(self.duration_max));
        let call = call.map(Arc::new);
        let taken = (kind == Kind::Stream).then(|| Taken::new(self.slow_reader, call.as_ref()));
        if let Some(taken) = taken.clone() {
            request.extensions_mut().insert(taken);
        }
        let mut hold = Hold { call, _place: place, more: None };
        let is_streaming = self.methods.is_streaming(request.uri().path());
        // Called within the future, so that a panic of `call` itself is caught too.
        let work = pin!(async move { inner.call(request).await });
        let mut response = match timeout(patience, without_panic(work)).await {
            Ok(Some(Ok(response))) => response,
            Ok(Some(Err(never))) => match never {},
            Ok(None) => internal().into_http(),
            Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
        };
        hold.more = response.extensions_mut().remove::<UntilTaken>();
        if !is_streaming {
            hold.call.iter().for_each(|call| call.answers());
        }
        held(response, hold, taken)
    }
}

/// Put into a response's extensions by a service, it is dropped once the peer has taken the whole answer, or the answer is
/// given up.
#[derive(Clone)]
pub struct UntilTaken {
    #[allow(dead_code, reason = "dropping it is all that is done with it")]
    what: Arc<dyn Any + Send + Sync>,
    room: Option<Arc<AnswerRoom>>,
}

impl UntilTaken {
    /// Holds this until then. Of a single answer, also its room.
    pub fn hold(what: impl Any + Send + Sync, room: Option<AnswerRoom>) -> Self {
        Self { what: Arc::new(what), room: room.map(Arc::new) }
    }
}

/// What a call takes of the server, until its answer is gone.
struct Hold {
    call: Option<Arc<OpenCall>>,
    _place: Slot,
    more: Option<UntilTaken>,
}

impl Hold {
    fn room(&self) -> Option<&AnswerRoom> {
        self.more.as_ref().and_then(|more| more.room.as_deref())
    }
}

/// A part of an answer. It lies in HTTP/2's buffers until the peer has room for it, long after its body has ended.
struct Part {
    bytes: Bytes,
    _untaken: Option<Untaken>,
    _hold: Arc<Hold>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The answer, which holds until its body and every byte of it are dropped.
fn held(response: Response<Body>, hold: Hold, taken: Option<Taken>) -> Response<Body> {
    let hold = Arc::new(hold);
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            frame.map_data(|bytes| {
                hold.room().into_iter().for_each(|room| room.is(bytes.len() as u64));
                let _untaken = taken.as_ref().map(Taken::part);
                Bytes::from_owner(Part { bytes, _untaken, _hold: Arc::clone(&hold) })
            })
        }))
    })
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tower::{ServiceExt as _, service_fn};

    use super::{super::answers::AnswerCeiling, *};

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

    fn layer(calls: u32) -> CallsLayer {
        CallsLayer::new(&Limits { calls, ..Limits::new(1, 1) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_is_answered() {
        let started = Instant::now();
        let status = status(layer(1), "/hang").await;
        assert_eq!((status.code(), started.elapsed().as_secs()), (Code::DeadlineExceeded, 10));
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_its_place_is_free_again() {
        let layer = layer(1);
        let answer = status(layer.clone(), "/panic").await;
        assert_eq!((answer.code(), answer.message()), (Code::Internal, "internal error"));
        let reason = answer.get_details_error_info().map(|info| info.reason);
        assert_eq!(reason.as_deref(), Some("INTERNAL"));
        assert_eq!(status(layer, "/good").await.code(), Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_calls_are_refused_with_a_reason() {
        let layer = layer(1);
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

    #[tokio::test]
    async fn a_place_is_held_until_the_last_byte_of_the_answer_is_dropped() {
        let layer = layer(1);
        let answers = service_fn(|_: Request<Body>| async {
            Ok(Response::new(Body::new(http_body_util::Full::new(Bytes::from_static(b"an answer")))))
        });
        let response = layer.layer(answers).oneshot(Request::new(Body::empty())).await;
        let mut body = response.unwrap_or_else(|never| match never {}).into_body();
        let frame = body.frame().await.expect("a frame").expect("no error");
        drop(body);
        assert_eq!(status(layer.clone(), "/good").await.code(), Code::ResourceExhausted);
        drop(frame);
        assert_eq!(status(layer, "/good").await.code(), Code::Ok);
    }

    #[tokio::test]
    async fn room_of_an_answer_is_what_it_has_until_its_last_byte_is_dropped() {
        let ceiling = AnswerCeiling::new(100);
        let of_answer = ceiling.clone();
        let answers = service_fn(move |_: Request<Body>| {
            let ceiling = of_answer.clone();
            async move {
                let room = AnswerRoom::take(&[&ceiling], 60).await;
                let mut response =
                    Response::new(Body::new(http_body_util::Full::new(Bytes::from_static(b"an answer"))));
                response.extensions_mut().insert(UntilTaken::hold((), Some(room)));
                Ok(response)
            }
        });
        let response = layer(1).layer(answers).oneshot(Request::new(Body::empty())).await;
        let mut body = response.unwrap_or_else(|never| match never {}).into_body();
        let has_room = async |bytes| timeout(Duration::ZERO, AnswerRoom::take(&[&ceiling], bytes)).await.is_ok();
        assert!(has_room(40).await && !has_room(41).await, "it is not known how large it is");
        let frame = body.frame().await.expect("a frame").expect("no error");
        drop(body);
        assert!(has_room(91).await && !has_room(92).await, "it has nine bytes");
        drop(frame);
        assert!(has_room(100).await);
    }

    const STREAM: &str = "/coffer.v1.Workloads/WatchEnvironment";

    #[tokio::test]
    async fn a_stream_takes_no_place_of_a_call_and_knows_what_is_taken() {
        let layer = CallsLayer::new(&Limits { calls: 0, streams: 2, ..Limits::new(1, 1) });
        let (sender, mut known) = tokio::sync::mpsc::unbounded_channel();
        let answers = service_fn(move |request: Request<Body>| {
            let taken = request.extensions().get::<Taken>().cloned();
            let _ = sender.send(taken);
            async { Ok(Response::new(Body::new(http_body_util::Full::new(Bytes::from_static(b"a message"))))) }
        });
        let request = Request::builder().uri(STREAM).body(Body::empty()).expect("a request");
        let response = layer.layer(answers).oneshot(request).await;
        let mut body = response.unwrap_or_else(|never| match never {}).into_body();
        let taken = known.recv().await.flatten().expect("what a stream is given");
        taken.announce();
        let mut all = Box::pin(taken.all());
        assert!(timeout(Duration::ZERO, &mut all).await.is_err(), "not even sent");
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert!(timeout(Duration::ZERO, &mut all).await.is_err(), "not taken");
        drop(frame);
        assert_eq!(all.await, Ok(()));
        assert_eq!(status(layer, "/good").await.code(), Code::ResourceExhausted, "calls have places of their own");
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_has_half_of_the_streams() {
        let layer = CallsLayer::new(&Limits { streams: 4, ..Limits::new(1, 1) });
        let hang = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        let begin = |address: Option<&str>| {
            let address = address.map(|address| address.parse().expect("an address"));
            let mut request = Request::builder().uri(STREAM).body(Body::empty()).expect("a request");
            request.extensions_mut().insert(PeerInfo::alone("peer", address));
            let mut call = Box::pin(layer.layer(hang).oneshot(request));
            async move { timeout(Duration::from_secs(1), &mut call).await.is_err().then_some(call) }
        };
        let _two = [begin(Some("10.0.0.1")).await.expect("a place"), begin(Some("10.0.0.1")).await.expect("another")];
        assert!(begin(Some("10.0.0.1")).await.is_none(), "its share is used");
        let _rest = [begin(None).await.expect("a place"), begin(Some("10.0.0.2")).await.expect("another peer")];
        assert!(begin(None).await.is_none(), "all are used");
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_has_a_quarter_of_the_places_and_unix_sockets_have_all() {
        let layer = layer(4);
        let hang = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        let begin = |address: Option<&str>| {
            let address = address.map(|address| address.parse().expect("an address"));
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(PeerInfo::alone("peer", address));
            let mut call = Box::pin(layer.layer(hang).oneshot(request));
            async move { timeout(Duration::from_secs(1), &mut call).await.is_err().then_some(call) }
        };
        let _first = begin(Some("2001:db8::1")).await.expect("a place");
        assert!(begin(Some("2001:db8::2")).await.is_none(), "its network's share is used");
        let _other = begin(Some("10.0.0.1")).await.expect("another peer");
        let _unix = [begin(None).await.expect("a place"), begin(None).await.expect("another")];
        assert!(begin(None).await.is_none(), "all are used");
    }
}
