//! Several servers of one store, as one: a call goes to the one that answered last, and from one that is out of reach to
//! the next.
//!
//! A call is sent again only when nothing can have come of it: it found no connection, or one that ended before the call
//! was sent, or was answered UNAVAILABLE, which coffer's servers say when they did nothing. A server that does not answer
//! at all costs the call that finds out: the next one goes elsewhere. If none does better, the call fails with what the
//! last server said.
//!
//! A server that cannot reach the store is to refuse, even if it could answer with what it knew: the others may reach it.
//! Only when none of them answers soon is that answer taken, from the server whose knowledge is newest. Not the answer
//! but the offer of one is kept meanwhile, so that no server notes a start that never was or hands out values for nothing.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use coffer_proto::metadata;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};
use tonic::{GrpcMethod, body::Body, codegen::Service, transport};

use crate::Address;

/// The methods whose request is a stream, which cannot be sent again; a test holds them against the contract.
const STREAMED: [&str; 1] = ["RedactStream"];
/// The header of an answer that is a status and nothing else, and UNAVAILABLE in it.
const STATUS: (&str, &str) = ("grpc-status", "14");
/// What coffer's servers give with each status. Who says UNAVAILABLE without may be a proxy that has passed the call on.
const DETAILS: &str = "grpc-status-details-bin";
/// With a stale answer in reach the other servers together have this part of a call's time: one that hangs must not
/// keep it from the caller.
const OTHERS_PART: u32 = 4;

/// Where one of them is, and the way there.
pub(crate) type Member = (Address, transport::Channel);

/// Connections to all of them.
#[derive(Clone)]
pub struct Servers {
    members: Arc<[Member]>,
    /// Which one answered last, by its number; beyond the last it begins anew.
    preferred: Arc<AtomicUsize>,
    call_timeout: Duration,
}

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Answer = Result<Response, transport::Error>;

impl Servers {
    pub(crate) fn new(members: Vec<Member>, preferred: usize, call_timeout: Duration) -> Self {
        Self { members: members.into(), preferred: Arc::new(AtomicUsize::new(preferred)), call_timeout }
    }

    /// Where the next call goes first.
    pub(crate) fn preferred(&self) -> &Address {
        &self.member(self.preferred.load(Ordering::Relaxed)).0
    }

    fn member(&self, at: usize) -> &Member {
        &self.members[at % self.members.len()]
    }

    /// A call to one of them.
    async fn send(&self, at: usize, request: Request) -> Answer {
        let mut channel = self.member(at).1.clone();
        let turn = Turn { preferred: &self.preferred, at, is_over: false };
        // A connection is made here, and whether that failed the call says.
        let answer = match std::future::poll_fn(|context| channel.poll_ready(context)).await {
            Ok(()) => channel.call(request).await,
            Err(error) => Err(error),
        };
        turn.end(is_answer(&answer));
        answer
    }

    async fn call_in_turn(self, request: Request) -> Answer {
        let first = self.preferred.load(Ordering::Relaxed);
        let method = request.extensions().get::<GrpcMethod<'static>>();
        let is_streamed = method.is_none_or(|method| STREAMED.contains(&method.method()));
        if is_streamed || self.members.len() == 1 {
            return self.send(first, request).await;
        }
        let (head, body) = request.into_parts();
        // One message, which is in memory already.
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            // The call was given up by what made it.
            Err(_) => return self.send(first, http::Request::from_parts(head, Body::empty())).await,
        };
        let again = || http::Request::from_parts(head.clone(), Body::new(http_body_util::Full::new(body.clone())));
        let of_now = || {
            let mut request = again();
            request.headers_mut().insert(metadata::STALE, HeaderValue::from_static(metadata::STALE_REFUSED));
            request
        };
        let mut told = self.send(first, of_now()).await;
        if !is_away(&told) {
            return told;
        }
        let mut offers = Offers::new(self.call_timeout / OTHERS_PART);
        offers.note(first, &told);
        for at in (1..self.members.len()).map(|turn| first.wrapping_add(turn)) {
            let Some(answer) = offers.wait(self.send(at, of_now())).await else { break };
            offers.note(at, &answer);
            // What is offered is to be read only, so that whatever else happened to the call has done no harm.
            if is_answer(&answer) || !is_away(&answer) && offers.are_none() {
                return answer;
            }
            // That a server is not there says less than what another one said.
            if answer.is_ok() || told.is_err() {
                told = answer;
            }
        }
        for at in offers.newest_first() {
            let answer = self.send(at, again()).await;
            if is_answer(&answer) {
                return answer;
            }
        }
        told
    }
}

/// Servers that would answer with what they knew.
struct Offers {
    /// Since when each knows nothing newer, and its number.
    since: Vec<(HeaderValue, usize)>,
    /// How long all others together may keep the caller from them, and from the first one on until when.
    patience: Duration,
    until: Option<Instant>,
}

impl Offers {
    fn new(patience: Duration) -> Self {
        Self { since: Vec::new(), patience, until: None }
    }

    fn are_none(&self) -> bool {
        self.since.is_empty()
    }

    fn note(&mut self, at: usize, answer: &Answer) {
        let refusal = answer.as_ref().ok().filter(|answer| is_unavailable(answer));
        if let Some(since) = refusal.and_then(|refusal| refusal.headers().get(metadata::STALE_SINCE)) {
            self.since.push((since.clone(), at));
            self.until.get_or_insert_with(|| Instant::now() + self.patience);
        }
    }

    /// What another one says; none if that takes too long.
    async fn wait<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        match self.until {
            None => Some(answer.await),
            Some(until) => timeout_at(until, answer).await.ok(),
        }
    }

    fn newest_first(mut self) -> impl Iterator<Item = usize> {
        self.since.sort_by(|one, other| other.cmp(one));
        self.since.into_iter().map(|(_, at)| at)
    }
}

/// Whether a server did what it was asked, or said why not.
fn is_answer(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(|answer| !is_unavailable(answer))
}

/// Whether nothing came of a call.
fn is_away(answer: &Answer) -> bool {
    match answer {
        Ok(answer) => is_unavailable(answer) && answer.headers().contains_key(DETAILS),
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            causes.into_iter().any(|cause| cause.is::<tonic::ConnectError>() || was_never_sent(cause))
        }
    }
}

fn is_unavailable(answer: &Response) -> bool {
    answer.headers().get(STATUS.0).is_some_and(|status| status == STATUS.1)
}

/// Whether a connection ended with the call still in its queue: of HTTP/2, hyper says "canceled" of nothing else (its
/// `client/dispatch.rs` and `client/conn/http2.rs`).
fn was_never_sent(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}

/// A call under way: if it ends without an answer, the next call goes to the next server.
struct Turn<'a> {
    preferred: &'a AtomicUsize,
    at: usize,
    is_over: bool,
}

impl Turn<'_> {
    fn end(mut self, is_good: bool) {
        self.is_over = is_good;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Whoever else found that out has moved on already.
            let next = self.at.wrapping_add(1);
            let _ = self.preferred.compare_exchange(self.at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl Service<Request> for Servers {
    type Response = Response;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        // Which of them must be ready only the call decides.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Box::pin(self.clone().call_in_turn(request))
    }
}

#[cfg(test)]
mod tests;
