//! Follows the store by one watch. It is begun when the first commit is asked for, and begun again after the last commit
//! that was told whenever it ends or falls silent.

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use coffer_proto::etcd::{
    TxnRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Etcd,
    assemble::{Assembler, Told},
    connect::{ANSWER_BYTES_MAX, Cluster, SHORT, txn},
    error::{Failure, unauthenticated},
    head::Head,
    transaction::{first, get, malformed},
};
use crate::store::{Commit, Error, Follow, Next, Position, TransactionId};

/// After so long without a word etcd is asked for one.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// After so long without the answer the watch is dead.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long beginning a watch may take.
const BEGIN_MAX: Duration = Duration::from_secs(5);
/// Before a watch is begun again.
const AGAIN_WAIT: Duration = Duration::from_millis(100);
/// Requests that wait to be sent on a watch's stream.
const REQUESTS_MAX: usize = 4;

/// A follower.
pub(super) struct Follower {
    store: Etcd,
    after: Position,
    /// The transaction at `after`, once it is known: whether it is still the same after an interruption.
    id: Option<TransactionId>,
    watch: Option<Watching>,
    ready: VecDeque<(Commit, TransactionId)>,
}

/// A watch under way.
struct Watching {
    answers: Streaming<WatchResponse>,
    requests: mpsc::Sender<WatchRequest>,
    /// Its member's name.
    member: String,
    assembler: Assembler,
    /// When etcd is asked for a word, or must have answered.
    due: Instant,
    is_asked: bool,
}

/// Why there is no watch.
enum Ended {
    /// The history that it would tell is not the one that was told.
    Gap,
    /// For now.
    Broken(String),
    Failed(Error),
}

impl Follower {
    pub(super) fn new(store: Etcd, after: Position) -> Self {
        Self { store, after, id: None, watch: None, ready: VecDeque::new() }
    }
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<Next, Error> {
        loop {
            if let Some((commit, id)) = self.ready.pop_front() {
                (self.after, self.id) = (commit.position, Some(id));
                self.store.reached(commit.position);
                return Ok(Next::Commit(commit));
            }
            let ended = match &mut self.watch {
                Some(watch) => watch.listen(&mut self.ready).await,
                None => self.begin().await,
            };
            match ended {
                Ok(()) => {}
                Err(Ended::Gap) => return Ok(Next::Gap),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Broken(why)) => {
                    tracing::warn!(why, "following etcd was interrupted; going on");
                    self.watch = None;
                    sleep(AGAIN_WAIT).await;
                }
            }
        }
    }
}

impl Follower {
    /// Begins a watch after the last commit that was told, if the store's history still has it.
    async fn begin(&mut self) -> Result<(), Ended> {
        self.check().await?;
        let cluster = &self.store.0.cluster;
        let member = cluster.preferred();
        let begun = timeout(BEGIN_MAX, self.watch()).await;
        let begun = begun.unwrap_or_else(|_| Err(Ended::Broken(format!("no watch within {} s", BEGIN_MAX.as_secs()))));
        if let Err(Ended::Broken(_)) = &begun {
            cluster.avoid(member);
        }
        self.watch = Some(begun?);
        Ok(())
    }

    async fn check(&mut self) -> Result<(), Ended> {
        let Ok(revision) = i64::try_from(self.after.revision.0) else { return Err(Ended::Gap) };
        let head = self.store.0.keys.head();
        let look = TxnRequest { success: vec![get(head.clone(), 0), get(head, revision)], ..TxnRequest::default() };
        let answer = match self.store.0.cluster.ask_any(SHORT, &look, txn).await {
            Ok(answer) => answer,
            // Compacted, or ahead of the store.
            Err(Failure::OutOfRange) => return Err(Ended::Gap),
            Err(failure) => {
                return Err(match failure.of_read() {
                    Ok(text) | Err(Error::Unavailable(text)) => Ended::Broken(text),
                    Err(error) => Ended::Failed(error),
                });
            }
        };
        let mut heads = answer.responses.iter().filter_map(first);
        let (Some(now), Some(then)) = (heads.next(), heads.next()) else { return Err(Ended::Failed(malformed())) };
        let Some(now) = now else { return Err(Ended::Failed(self.store.absent())) };
        let (_, now) = Head::of(now).map_err(Ended::Failed)?;
        let then = then.and_then(|then| Head::of(then).ok());
        let Some((head, _)) = then.filter(|(_, then)| *then == self.after) else {
            if self.id.is_some() {
                self.store.replaced(self.after.epoch);
            }
            return Err(Ended::Gap);
        };
        if self.id.is_some_and(|id| id != head.id) {
            self.store.replaced(self.after.epoch);
            return Err(Ended::Gap);
        }
        if now.epoch != self.after.epoch {
            return Err(Ended::Gap);
        }
        self.id = Some(head.id);
        Ok(())
    }

    async fn watch(&self) -> Result<Watching, Ended> {
        let cluster = &self.store.0.cluster;
        // Of its own, since what is not read of it must not hold up other answers.
        let (channel, member) = cluster.connection();
        let broken = |failure: Failure| match failure {
            Failure::Unauthenticated => Ended::Broken(unauthenticated().to_string()),
            failure => Ended::Broken(failure.of_read().unwrap_or_else(|error| error.to_string())),
        };
        let token = cluster.token(&channel).await.map_err(broken)?;
        let range = self.store.0.keys.watched();
        let create = WatchCreateRequest {
            key: range.from,
            range_end: range.end,
            start_revision: i64::try_from(self.after.revision.0).map_or(i64::MAX, |revision| revision + 1),
            fragment: true,
        };
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(first).map_err(|_| Ended::Failed(malformed()))?;
        let request = Cluster::request(ReceiverStream::new(queue), token.as_ref());
        let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answers = match client.watch(request).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                let failure = Failure::of(member, &status);
                if matches!(failure, Failure::Unauthenticated) {
                    cluster.forget_token().await;
                }
                return Err(broken(failure));
            }
        };
        Ok(Watching {
            answers,
            requests,
            member: member.to_owned(),
            assembler: Assembler::new(self.store.0.keys.clone(), self.after),
            due: Instant::now() + SILENCE_MAX,
            is_asked: false,
        })
    }
}

impl Watching {
    /// Waits for the next answer and takes in what it tells.
    async fn listen(&mut self, ready: &mut VecDeque<(Commit, TransactionId)>) -> Result<(), Ended> {
        let answer = tokio::select! {
            biased;
            answer = self.answers.message() => answer,
            () = sleep_until(self.due) => return self.ask(),
        };
        let broken = |why: String| Ended::Broken(format!("{}: {why}", self.member));
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(broken("the watch has ended".into())),
            Err(status) => {
                return Err(match Failure::of(&self.member, &status) {
                    Failure::OutOfRange => Ended::Gap,
                    failure => Ended::Broken(failure.of_read().unwrap_or_else(|error| error.to_string())),
                });
            }
        };
        (self.due, self.is_asked) = (Instant::now() + SILENCE_MAX, false);
        if answer.compact_revision > 0 {
            return Err(Ended::Gap);
        }
        if answer.canceled {
            return Err(broken(format!("the watch was ended: {}", answer.cancel_reason)));
        }
        for event in answer.events {
            match self.assembler.take(event).map_err(Ended::Failed)? {
                Told::Nothing => {}
                Told::Commit(commit, id) => ready.push_back((commit, id)),
                Told::Gap => return Err(Ended::Gap),
            }
        }
        Ok(())
    }

    /// Asks for a word, or gives up waiting for it.
    fn ask(&mut self) -> Result<(), Ended> {
        if self.is_asked {
            return Err(Ended::Broken(format!(
                "{}: silent for {} s",
                self.member,
                (SILENCE_MAX + ANSWER_MAX).as_secs()
            )));
        }
        let request = WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
        // A queue that is full holds a request for a word that was not sent yet.
        let _ = self.requests.try_send(request);
        (self.due, self.is_asked) = (Instant::now() + ANSWER_MAX, true);
        Ok(())
    }
}
