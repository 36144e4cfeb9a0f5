//! Follows the store by one watch. It is begun when the first commit is asked for, and begun again after the last commit
//! that was told whenever it ends or falls silent.

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use coffer_proto::etcd::{
    KeyValue, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse, watch_client::WatchClient, watch_request::RequestUnion,
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
    connect::{ANSWER_BYTES_MAX, Cluster, SHORT},
    error::{Failure, cut, unauthenticated},
    head::Head,
    transaction::{first, get, malformed},
};
use crate::store::{Change, Commit, Error, Follow, Next, Position, TransactionId};

/// After so long without a word etcd is asked for one.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// After so long without the answer the watch is dead.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often it is compared with how far the store is known to be.
const COMPARE_EVERY: Duration = Duration::from_millis(250);
/// A watch that tells nothing for so long, although the store is known to be further, is dead: its member is stopped, or
/// cut off, while the others go on. What others have to tell must not wait for that to be found by silence.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// How long beginning a watch may take.
const BEGIN_MAX: Duration = Duration::from_secs(5);
/// Before a watch is begun again.
const AGAIN_WAIT: Duration = Duration::from_millis(100);
/// The same after what makes no sense, until somebody has put it right.
const SENSELESS_WAIT: Duration = Duration::from_secs(1);
/// Requests that wait to be sent on a watch's stream.
const REQUESTS_MAX: usize = 4;

/// A follower.
pub(super) struct Follower {
    store: Etcd,
    after: Position,
    /// The transaction at `after`, once it is known: whether it is still the same after an interruption.
    id: Option<TransactionId>,
    watch: Option<Watching>,
    /// Whether it was said that it is interrupted.
    is_broken: bool,
    /// What was told and is still to be told on.
    ready: VecDeque<(Commit, Head)>,
    /// Nothing is missing of what is ready up to here.
    whole: Position,
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
    /// Since when the store is known to be further than it told.
    behind: Option<Instant>,
}

/// Why there is no watch.
enum Ended {
    /// The history that it would tell is not the one that was told.
    Gap,
    /// For now.
    Broken(String),
    /// What etcd has there is not coffer's.
    Senseless(Error),
    Failed(Error),
}

impl Follower {
    /// After a position, at which the transaction of this name stands, if that is known.
    pub(super) fn new(store: Etcd, after: Position, id: Option<TransactionId>) -> Self {
        Self { store, after, id, watch: None, is_broken: false, ready: VecDeque::new(), whole: after }
    }

    /// The next transaction and what it left of itself; `None` is a gap. Cancel-safe.
    pub(super) async fn told(&mut self) -> Result<Option<(Commit, Head)>, Error> {
        loop {
            match self.step().await {
                Ok(None) => {}
                Ok(told) => return Ok(told),
                Err(Ended::Gap) => return Ok(None),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Senseless(error)) => {
                    if !std::mem::replace(&mut self.is_broken, true) {
                        tracing::error!(%error, "etcd cannot be followed as long as that is so; trying again");
                    }
                    self.stop();
                    sleep(SENSELESS_WAIT).await;
                }
                Err(Ended::Broken(why)) => {
                    // Once, until it goes on.
                    if !std::mem::replace(&mut self.is_broken, true) {
                        tracing::warn!(why, "following etcd was interrupted; trying to go on");
                    }
                    self.stop();
                    sleep(AGAIN_WAIT).await;
                }
            }
        }
    }
}

#[async_trait]
impl Follow for Follower {
    async fn next(&mut self) -> Result<Next, Error> {
        Ok(self.told().await?.map_or(Next::Gap, |(commit, _)| Next::Commit(commit)))
    }
}

impl Follower {
    /// The next transaction, if one is ready; otherwise one thing is done so that one will be. Cancel-safe.
    async fn step(&mut self) -> Result<Option<(Commit, Head)>, Ended> {
        if !self.ready.is_empty() {
            self.check_deletes().await?;
            let told = self.ready.pop_front();
            if let Some((commit, head)) = &told {
                (self.after, self.id) = (commit.position, Some(head.id));
                self.store.reached(commit.position);
            }
            return Ok(told);
        }
        let Some(watch) = &mut self.watch else { return self.begin().await.map(|()| None) };
        watch.listen(&self.store, self.after, &mut self.ready).await?;
        if std::mem::take(&mut self.is_broken) {
            tracing::info!("following etcd goes on");
        }
        Ok(None)
    }

    /// Begins a watch after the last commit that was told, if the store's history still has it.
    async fn begin(&mut self) -> Result<(), Ended> {
        let from = self.check().await?;
        let cluster = &self.store.0.cluster;
        let member = cluster.preferred();
        let begun = timeout(BEGIN_MAX, self.watch(from)).await;
        let begun = begun.unwrap_or_else(|_| Err(Ended::Broken(format!("no watch within {} s", BEGIN_MAX.as_secs()))));
        if let Err(Ended::Broken(_)) = &begun {
            cluster.avoid(member);
        }
        self.watch = Some(begun?);
        Ok(())
    }

    /// Ends the watch; the next one tells again what was not told on.
    fn stop(&mut self) {
        self.watch = None;
        self.ready.clear();
        self.whole = self.after;
    }

    /// A transaction of which fewer deletes were told than it had to make had less to delete, or etcd has forgotten them: of
    /// the first revision that a compaction keeps it keeps the puts, and some or none of the deletes, and tells no more to a
    /// watch that is begun then, or that it serves late (etcd-io/etcd#18089 and #19179, until 3.5.18; while a compaction is
    /// under way, batch by batch). So if the revision before is forgotten, nobody knows. If it is not, nor was it when what
    /// is ready by now was told.
    async fn check_deletes(&mut self) -> Result<(), Ended> {
        let (Some((commit, head)), Some((last, _))) = (self.ready.front(), self.ready.back()) else { return Ok(()) };
        let (first, last) = (commit.position, last.position);
        let told = commit.changes.iter().filter(|change| matches!(change, Change::Delete(_))).count();
        if first <= self.whole || u32::try_from(told).is_ok_and(|told| told >= head.deletes) {
            return Ok(());
        }
        let before = i64::try_from(first.revision.0).map_or(0, |revision| revision - 1);
        self.look(vec![get(self.store.0.keys.head(), before)]).await?.ok_or(Ended::Gap)?;
        self.whole = last;
        Ok(())
    }

    /// The revision of etcd that a watch begins with to tell what follows, if the history still is the one that was told.
    async fn check(&mut self) -> Result<i64, Ended> {
        let Ok(revision) = i64::try_from(self.after.revision.0) else { return Err(Ended::Gap) };
        let head = self.store.0.keys.head();
        let (answer, is_kept) = match self.look(vec![get(head.clone(), 0), get(head.clone(), revision)]).await? {
            Some(answer) => (answer, true),
            // Compacted, or ahead of the store.
            None => (self.look(vec![get(head, 0)]).await?.ok_or(Ended::Gap)?, false),
        };
        let mut heads = answer.responses.iter().filter_map(first);
        let Some(now) = heads.next() else { return Err(Ended::Senseless(malformed())) };
        let Some(now) = now else { return Err(Ended::Senseless(self.store.absent())) };
        let (of_now, now) = Head::of(now).map_err(Ended::Senseless)?;
        let is_now = now == self.after;
        // Whatever else etcd has forgotten, nothing is missing if nothing was written to the store since.
        if !is_kept && !is_now {
            return Err(Ended::Gap);
        }
        let then = if is_now { Some(of_now) } else { heads.next().flatten().and_then(|then| self.at(then)) };
        let Some(then) = then.filter(|then| self.id.is_none_or(|id| id == then.id)) else {
            if self.id.is_some() {
                self.store.replaced(self.after.epoch);
            }
            return Err(Ended::Gap);
        };
        if now.epoch != self.after.epoch {
            return Err(Ended::Gap);
        }
        self.id = Some(then.id);
        let seen = answer.header.as_ref().ok_or_else(|| Ended::Senseless(malformed()))?.revision;
        Ok(1 + if is_now { seen } else { revision })
    }

    /// Looks at etcd; `None` if a revision is not kept any more, or still to come.
    async fn look(&self, success: Vec<RequestOp>) -> Result<Option<TxnResponse>, Ended> {
        let look = TxnRequest { success, ..TxnRequest::default() };
        match self.store.ask_ours(SHORT, look).await {
            Ok(answer) => Ok(Some(answer)),
            Err(Failure::OutOfRange) => Ok(None),
            Err(failure) => Err(match failure.of_read() {
                Ok(text) | Err(Error::Unavailable(text)) => Ended::Broken(text),
                Err(error) => Ended::Failed(error),
            }),
        }
    }

    /// The head, if it is of the last commit that was told.
    fn at(&self, then: &KeyValue) -> Option<Head> {
        Head::of(then).ok().filter(|(_, then)| *then == self.after).map(|(head, _)| head)
    }

    async fn watch(&self, from: i64) -> Result<Watching, Ended> {
        let cluster = &self.store.0.cluster;
        // Of its own, since what is not read of it must not hold up other answers.
        let (channel, member) = cluster.connection();
        let broken = |failure: Failure| match failure {
            Failure::Unauthenticated => Ended::Broken(unauthenticated().to_string()),
            failure => Ended::Broken(failure.of_read().unwrap_or_else(|error| error.to_string())),
        };
        let token = cluster.token(&channel, member).await.map_err(broken)?;
        let range = self.store.0.keys.watched();
        let create = WatchCreateRequest { key: range.from, range_end: range.end, start_revision: from, fragment: true };
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(first).map_err(|_| Ended::Broken("the watch cannot be asked for".into()))?;
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
            assembler: Assembler::new(self.store.0.keys.clone(), self.store.instance(), self.after),
            due: Instant::now() + SILENCE_MAX,
            is_asked: false,
            behind: None,
        })
    }
}

impl Watching {
    /// Waits for the next answer and takes in what it tells, after what was told already.
    async fn listen(
        &mut self,
        store: &Etcd,
        told: Position,
        ready: &mut VecDeque<(Commit, Head)>,
    ) -> Result<(), Ended> {
        let answer = tokio::select! {
            biased;
            answer = self.answers.message() => Some(answer),
            () = sleep_until(self.due.min(Instant::now() + COMPARE_EVERY)) => None,
        };
        let broken = |why: String| Ended::Broken(format!("{}: {why}", self.member));
        let answer = match answer {
            None if Instant::now() >= self.due => return self.ask(),
            None => return self.compare(store.floor(), told),
            Some(answer) => answer,
        };
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
        self.behind = None;
        if answer.compact_revision > 0 {
            return Err(Ended::Gap);
        }
        if answer.canceled {
            return Err(broken(format!("the watch was ended: {}", cut(answer.cancel_reason))));
        }
        for event in answer.events {
            match self.assembler.take(event) {
                Told::Nothing => {}
                Told::Commit(commit, head) => ready.push_back((commit, head)),
                Told::Gap => return Err(Ended::Gap),
            }
        }
        Ok(())
    }

    /// Gives up a watch that is behind for too long.
    fn compare(&mut self, known: Position, told: Position) -> Result<(), Ended> {
        if known <= told {
            self.behind = None;
        } else if self.behind.get_or_insert_with(Instant::now).elapsed() >= BEHIND_MAX {
            return Err(Ended::Broken(format!("{}: it does not tell what others know", self.member)));
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
