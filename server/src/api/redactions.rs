//! `coffer.v1.Redactions`. Looking through megabytes is work for other threads than those that serve calls, and for few
//! at a time.

use std::sync::Arc;

use coffer_proto::{
    limits,
    name::Workload,
    redaction::{Matcher, Redactor},
    v1::{self, redactions_server::Redactions},
};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Request, Response, Status, Streaming};

use super::{Api, convert::name, convert::signed, open, room::Matchers, status, streams::Messages, streams::Outlet};
use crate::vault::{Call, Error, Vault};

/// Places of those that are worked on, of the whole process.
static PLACES: Semaphore = Semaphore::const_new(limits::REDACTIONS_AT_ONCE);
/// A stream is worked on in parts of so many bytes: each may become 17 times as long.
const PART_BYTES: usize = 64 * 1024;
/// Largest part of an answer, in bytes.
const ANSWER_PART_BYTES: usize = 256 * 1024;
/// What an answer takes besides the bytes of each text, at most.
const TEXT_EXTRA_BYTES: usize = 16;

#[tonic::async_trait]
impl Redactions for Api {
    async fn redact_text(
        &self,
        request: Request<v1::RedactTextRequest>,
    ) -> Result<Response<v1::RedactTextResponse>, Status> {
        let (call, request) = open(request)?;
        let workload = workload(&request.workload)?;
        let fields = match request.texts.len() <= limits::TEXTS {
            true => Ok(()),
            false => Err(Error::field("texts", "must be at most 1,000")),
        };
        let redaction = self.vault.redact(&call, workload, fields).await.map_err(status::of)?;
        let lane = self.matchers.lane(redaction.tenant());
        let matcher = work(&lane, move || redaction.matcher()).await?;
        let cleaned = clean(&lane, Arc::new(matcher), request.texts).await?;
        let stale_since = call.stale_since().map(Into::into);
        Ok(Response::new(v1::RedactTextResponse { stale_since, ..cleaned }))
    }

    type RedactStreamStream = Messages<v1::RedactStreamResponse>;

    async fn redact_stream(
        &self,
        request: Request<Streaming<v1::RedactStreamRequest>>,
    ) -> Result<Response<Self::RedactStreamStream>, Status> {
        let (call, opening, parts) = self.open_stream(request)?;
        let (vault, matchers) = (self.vault.clone(), Arc::clone(&self.matchers));
        Ok(opening.begin(move |outlet| stream(vault, matchers, call, parts, outlet)))
    }
}

fn workload(text: &str) -> Result<Option<Workload>, Status> {
    match text {
        "" => Ok(None),
        text => Ok(Some(name("workload", Workload::parse(text))?)),
    }
}

/// Does work in its turn, and to its end even if the caller goes away: its place is free only then. First in the tenant's
/// own lane, so that nobody's texts take all of the places.
async fn work<T: Send + 'static>(
    lane: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    let fault = |text: String| status::of(Error::Internal(text));
    let own = Arc::clone(lane).acquire_owned().await.map_err(|error| fault(error.to_string()))?;
    let place = PLACES.acquire().await.map_err(|error| fault(error.to_string()))?;
    let done = spawn_blocking(move || {
        let _places = (own, place);
        work()
    });
    done.await.map_err(|_| fault("a redaction ended by itself".to_owned()))?.map_err(status::of)
}

/// Cleans texts a part at a time: the places are others' in between.
async fn clean(
    lane: &Arc<Semaphore>,
    matcher: Arc<Matcher>,
    texts: Vec<Vec<u8>>,
) -> Result<v1::RedactTextResponse, Status> {
    let mut cleaning = Cleaning::new(matcher, texts);
    while !cleaning.is_done() {
        cleaning = work(lane, move || {
            cleaning.go_on()?;
            Ok(cleaning)
        })
        .await?;
    }
    Ok(v1::RedactTextResponse { texts: cleaning.cleaned, replaced: signed(cleaning.replaced), stale_since: None })
}

/// Texts that are being cleaned.
struct Cleaning {
    matcher: Arc<Matcher>,
    left: std::vec::IntoIter<Vec<u8>>,
    /// The text that is begun: its redactor, how far it has come, and what is clean of it.
    begun: Option<(Redactor, Vec<u8>, usize, Vec<u8>)>,
    cleaned: Vec<Vec<u8>>,
    replaced: u64,
    room: usize,
}

impl Cleaning {
    fn new(matcher: Arc<Matcher>, texts: Vec<Vec<u8>>) -> Self {
        let cleaned = Vec::with_capacity(texts.len());
        Self { matcher, left: texts.into_iter(), begun: None, cleaned, replaced: 0, room: limits::RESPONSE_BYTES }
    }

    fn is_done(&self) -> bool {
        self.begun.is_none() && self.left.len() == 0
    }

    /// Cleans one part: [`PART_BYTES`] of one or several texts.
    fn go_on(&mut self) -> Result<(), Error> {
        let mut part_left = PART_BYTES;
        while part_left > 0 {
            let next = || Some((Redactor::new(Arc::clone(&self.matcher)), self.left.next()?, 0, Vec::new()));
            let Some((mut redactor, text, at, mut out)) = self.begun.take().or_else(next) else { break };
            let end = text.len().min(at + part_left);
            self.replaced += redactor.push(&text[at..end], &mut out);
            // An empty text is work, too.
            part_left -= (end - at).max(1);
            if end < text.len() {
                fits(&out, self.room)?;
                self.begun = Some((redactor, text, end, out));
            } else {
                self.replaced += redactor.finish(&mut out);
                self.room = fits(&out, self.room)?;
                self.cleaned.push(out);
            }
        }
        Ok(())
    }
}

/// The room that is left after a text.
fn fits(text: &[u8], room: usize) -> Result<usize, Error> {
    let left = room.checked_sub(text.len() + TEXT_EXTRA_BYTES);
    left.ok_or_else(|| Error::field("texts", "are longer than 4 MiB once they are clean: use RedactStream"))
}

/// Cleans parts as they come, and reads the next one when the one before has been taken.
async fn stream(
    vault: Vault,
    matchers: Arc<Matchers>,
    call: Call,
    mut parts: Streaming<v1::RedactStreamRequest>,
    mut outlet: Outlet<v1::RedactStreamResponse>,
) -> Result<(), Status> {
    let ends = Instant::now() + limits::REDACT_STREAM_TTL;
    // Before anything of a part is read. Who may never redact has not come past the gate.
    let tenant = vault.redacting_tenant(&call).await.map_err(status::of)?;
    let _held = matchers.room.hold(&tenant, limits::REDACT_STREAM_KIB_MIN)?;
    let first = next(parts.message(), ends).await?;
    let first = first.ok_or_else(|| status::of(Error::field("workload", "must be said in a first message")))?;
    let redaction = vault.redact(&call, workload(&first.workload)?, Ok(())).await.map_err(status::of)?;
    let shared = matchers.share(&redaction)?;
    let lane = matchers.lane(redaction.tenant());
    let mut redactor = Redactor::new(shared.matcher(work(&lane, move || redaction.matcher())).await?);
    let mut part = first.part;
    loop {
        let (mut at, all) = (0, Arc::new(part));
        while at < all.len() {
            let (begin, part) = (at, Arc::clone(&all));
            at = part.len().min(at + PART_BYTES);
            let end = at;
            let (back, out, replaced) = work(&lane, move || {
                let mut out = Vec::new();
                let replaced = redactor.push(&part[begin..end], &mut out);
                Ok((redactor, out, replaced))
            })
            .await?;
            redactor = back;
            send(&mut outlet, out, replaced).await?;
        }
        match next(parts.message(), ends).await? {
            None => break,
            Some(next) if next.workload.is_empty() => part = next.part,
            Some(_) => return Err(status::of(Error::field("workload", "must be empty after the first message"))),
        }
    }
    let (out, replaced) = work(&lane, move || {
        let mut out = Vec::new();
        let replaced = redactor.finish(&mut out);
        Ok((out, replaced))
    })
    .await?;
    send(&mut outlet, out, replaced).await
}

/// The next part, if it comes in time.
async fn next<T>(part: impl Future<Output = Result<Option<T>, Status>>, ends: Instant) -> Result<Option<T>, Status> {
    let idle = |_| Status::deadline_exceeded("no part came for 60 seconds");
    let old = |_| Status::deadline_exceeded("a stream takes at most an hour: begin another");
    timeout_at(ends, timeout(limits::REDACT_STREAM_IDLE, part)).await.map_err(old)?.map_err(idle)?
}

async fn send(outlet: &mut Outlet<v1::RedactStreamResponse>, out: Vec<u8>, replaced: u64) -> Result<(), Status> {
    let mut replaced = signed(replaced);
    for part in out.chunks(ANSWER_PART_BYTES) {
        let message = v1::RedactStreamResponse { part: part.to_vec(), replaced: std::mem::take(&mut replaced) };
        outlet.send(message).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_gives_a_byte_now_and_then_ends_nevertheless() {
        let (began, ends) = (Instant::now(), Instant::now() + limits::REDACT_STREAM_TTL);
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(59)).await;
            Ok(Some(7))
        };
        let end = loop {
            match next(slow(), ends).await {
                Ok(part) => assert_eq!(part, Some(7)),
                Err(end) => break end,
            }
        };
        assert!(end.message().contains("an hour"), "{end}");
        assert_eq!((end.code(), began.elapsed()), (tonic::Code::DeadlineExceeded, limits::REDACT_STREAM_TTL));
        let idle = next(std::future::pending::<Result<Option<u8>, Status>>(), Instant::now() + Duration::from_secs(90));
        assert!(idle.await.expect_err("idle").message().contains("60 seconds"));
    }

    #[tokio::test]
    async fn one_tenants_redactions_leave_places_for_others() {
        let matchers = Matchers::new(1 << 30);
        let (busy, other) = (matchers.lane("projects/a"), matchers.lane("projects/b"));
        let (let_go, blocked): (Vec<_>, Vec<_>) = (0..2 * limits::REDACTIONS_AT_ONCE)
            .map(|_| {
                let (let_go, gate) = std::sync::mpsc::channel::<()>();
                let lane = Arc::clone(&busy);
                let blocked = tokio::spawn(async move {
                    work(&lane, move || {
                        let _ended = gate.recv();
                        Ok(())
                    })
                    .await
                });
                (let_go, blocked)
            })
            .unzip();
        while busy.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let done = timeout(Duration::from_secs(60), work(&other, || Ok(7))).await.expect("a place");
        assert_eq!(done.expect("done"), 7);
        drop(let_go);
        for one in blocked {
            one.await.expect("no panic").expect("done");
        }
    }

    #[test]
    fn texts_are_cleaned_a_part_at_a_time() {
        let texts = vec![vec![b'x'; 3 * PART_BYTES], Vec::new(), vec![b'y'; 10]];
        let mut cleaning = Cleaning::new(Arc::new(Matcher::new([])), texts.clone());
        let mut parts = 0;
        while !cleaning.is_done() {
            cleaning.go_on().expect("fits");
            parts += 1;
        }
        assert_eq!((cleaning.cleaned, parts), (texts, 4));
    }
}
