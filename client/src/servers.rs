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
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tonic::{GrpcMethod, body::Body, codegen::Service, transport};

use crate::Address;

/// The methods whose request is a stream, which cannot be sent again; a test holds them against the contract.
const STREAMED: [&str; 1] = ["RedactStream"];
/// The header of an answer that is a status and nothing else.
const STATUS: &str = "grpc-status";
/// UNAVAILABLE in it.
const UNAVAILABLE: &str = "14";
/// RESOURCE_EXHAUSTED in it.
const FULL: &str = "8";
/// So much of a time in RFC 3339 tells the minute.
const MINUTE_BYTES: usize = "2026-01-01T00:00".len();
/// What coffer's servers give with each status. Who says UNAVAILABLE without may be a proxy that has passed the call on.
const DETAILS: &str = "grpc-status-details-bin";
/// With a stale answer in reach the other servers have this part of a call's time, all at once: one that hangs keeps neither
/// the others' answers from the caller nor that one.
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
        let mut offers = Offers::default();
        offers.note(first, &told);
        let mut others = (1..self.members.len()).map(|turn| first.wrapping_add(turn));
        while offers.are_none() {
            let Some(at) = others.next() else { return told };
            let answer = self.send(at, of_now()).await;
            offers.note(at, &answer);
            if is_answer(&answer) || !is_away(&answer) && offers.are_none() {
                return answer;
            }
            told = telling(told, answer);
        }
        // What is offered is to be read only, so that the others can be asked at once, and whatever else happened to the
        // call has done no harm.
        let mut asked: JoinSet<_> = others.map(|at| self.clone().send_to(at, of_now())).collect();
        let until = Instant::now() + self.call_timeout / OTHERS_PART;
        while let Ok(Some(Ok((at, answer)))) = timeout_at(until, asked.join_next()).await {
            offers.note(at, &answer);
            if is_answer(&answer) {
                self.prefer(at);
                return answer;
            }
            told = telling(told, answer);
        }
        for at in offers.newest_first() {
            let answer = self.send(at, again()).await;
            if is_answer(&answer) && !has_status(&answer, FULL) {
                self.prefer(at);
                return answer;
            }
            told = telling(told, answer);
        }
        told
    }

    async fn send_to(self, at: usize, request: Request) -> (usize, Answer) {
        let answer = self.send(at, request).await;
        (at, answer)
    }

    fn prefer(&self, at: usize) {
        self.preferred.store(at, Ordering::Relaxed);
    }
}

/// Of two calls that nothing came of the one that says more: that a server is not there says less than what another said.
fn telling(one: Answer, later: Answer) -> Answer {
    if later.is_ok() || one.is_err() { later } else { one }
}

/// Servers that would answer with what they knew: since when each knows nothing newer, and its number, as they were asked.
#[derive(Default)]
struct Offers(Vec<(HeaderValue, usize)>);

impl Offers {
    fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, at: usize, answer: &Answer) {
        let refusal = answer.as_ref().ok().filter(|_| has_status(answer, UNAVAILABLE));
        if let Some(since) = refusal.and_then(|refusal| refusal.headers().get(metadata::STALE_SINCE)) {
            self.0.push((since.clone(), at));
        }
    }

    /// By the minute, and then as they were asked: when all lose the store together, not all who call go to the same one.
    fn newest_first(mut self) -> impl Iterator<Item = usize> {
        let minute = |since: &HeaderValue| since.as_bytes().get(..MINUTE_BYTES).map(<[u8]>::to_vec);
        self.0.sort_by_key(|(since, _)| std::cmp::Reverse(minute(since)));
        self.0.into_iter().map(|(_, at)| at)
    }
}

/// Whether a server did what it was asked, or said why not.
fn is_answer(answer: &Answer) -> bool {
    answer.is_ok() && !has_status(answer, UNAVAILABLE)
}

/// Whether nothing came of a call.
fn is_away(answer: &Answer) -> bool {
    match answer {
        Ok(told) => has_status(answer, UNAVAILABLE) && told.headers().contains_key(DETAILS),
        Err(error) => {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            causes.into_iter().any(|cause| cause.is::<tonic::ConnectError>() || was_never_sent(cause))
        }
    }
}

fn has_status(answer: &Answer, code: &str) -> bool {
    answer.as_ref().is_ok_and(|answer| answer.headers().get(STATUS).is_some_and(|status| status == code))
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
