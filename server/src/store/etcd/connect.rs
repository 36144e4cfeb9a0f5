//! The members of a cluster, and calls to them: one is asked until it fails, then the next.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use coffer_proto::etcd::{
    AlarmRequest, AlarmResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
    kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Request, Response, Status,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{EtcdOptions, Tls, User, advice::OF_FILES, auth::Access, error::Failure};
use crate::store::Error;

/// How long connecting may take, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Between two pings on a connection with calls under way. etcd closes connections that ping more than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// A call unanswered for this long ends the connection: it may be dead without a word. Sooner, an etcd that is slow
/// would be asked for new ones all the time.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// A ping unanswered for this long ends the connection.
const PING_MAX: Duration = Duration::from_secs(4);
/// What etcd may send on a stream before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// What etcd may send on a connection before it is read, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Largest answer, in bytes. Pages of records are the largest; see `load`.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Before the members are asked again that all did not answer.
pub(super) const ROUND_WAIT: Duration = Duration::from_millis(50);

/// How long to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// For one member's.
    pub(super) member_max: Duration,
    /// For any member's.
    pub(super) total_max: Duration,
}

impl Wait {
    /// The same within what is left of a longer one.
    pub(super) fn within(self, left: Duration) -> Self {
        Self { total_max: self.total_max.min(left), ..self }
    }
}

/// A small read or write.
pub(super) const SHORT: Wait = Wait { member_max: Duration::from_millis(500), total_max: Duration::from_secs(2) };

/// Nobody is asked with less time than this left: it would say nothing of the member.
pub(super) const LEAST_WAIT: Duration = Duration::from_millis(50);

/// The members of a cluster.
pub(super) struct Cluster {
    members: Vec<Member>,
    /// The one that answered last.
    preferred: AtomicUsize,
    access: Access,
}

struct Member {
    name: String,
    way: Mutex<Way>,
}

/// How a member is reached.
struct Way {
    endpoint: Endpoint,
    channel: Channel,
}

impl Way {
    fn new(endpoint: Endpoint) -> Self {
        Self { channel: endpoint.connect_lazy(), endpoint }
    }
}

impl Member {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Connects when first asked.
    pub(super) fn new(options: EtcdOptions) -> Result<Self, Error> {
        if options.endpoints.is_empty() {
            return Err(Error::Invalid("no address of etcd is given".into()));
        }
        let member = |name: String| {
            let way = Mutex::new(Way::new(endpoint(&name, options.tls.as_ref())?));
            Ok(Member { name, way })
        };
        let members = options.endpoints.iter().cloned().map(member).collect::<Result<_, Error>>()?;
        Ok(Self { members, preferred: AtomicUsize::new(0), access: Access::new(options.user) })
    }

    /// From now on connects by these certificates and as this user. What is under way goes on as it began.
    pub(super) async fn renew(&self, tls: Option<&Tls>, user: Option<User>) -> Result<(), Error> {
        let endpoints = self.members.iter().map(|member| endpoint(&member.name, tls)).collect::<Result<Vec<_>, _>>()?;
        self.access.renew(user).await;
        for (member, endpoint) in self.members.iter().zip(endpoints) {
            *member.way() = Way::new(endpoint);
        }
        Ok(())
    }

    /// The member to ask first.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// From now on this member is asked first.
    pub(super) fn prefer(&self, member: usize) {
        self.preferred.store(member, Ordering::Relaxed);
    }

    /// All members, the preferred one first.
    pub(super) fn in_order(&self) -> impl ExactSizeIterator<Item = usize> + use<> {
        let (first, count) = (self.preferred(), self.members.len());
        (0..count).map(move |at| (first + at) % count)
    }

    /// A connection of its own to the preferred member, for what is long under way, and the member's name.
    pub(super) fn connection(&self) -> (Channel, &str) {
        let member = &self.members[self.preferred()];
        (member.way().endpoint.connect_lazy(), &member.name)
    }

    /// From now on another member is asked first, unless somebody has seen to it already.
    pub(super) fn avoid(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.preferred.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A request as etcd wants it: with the token, and only for a member that knows a leader, so that one that was cut
    /// off says so.
    pub(super) fn request<T>(message: T, token: Option<&AsciiMetadataValue>) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// The token for a connection to a member of this name.
    pub(super) async fn token(&self, channel: &Channel, name: &str) -> Result<Option<AsciiMetadataValue>, Failure> {
        self.access.token((channel, name), None).await
    }

    /// Forgets a token that etcd does not know.
    pub(super) async fn forget_token(&self) {
        self.access.forget().await;
    }

    /// One call to one member.
    pub(super) async fn ask<Q: Clone, A, F>(
        &self,
        member: usize,
        max: Duration,
        message: &Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let at = &self.members[member];
        let channel = at.way().channel.clone();
        let is_sent = AtomicBool::new(false);
        let answer = async {
            let token = self.access.token((&channel, &at.name), None).await?;
            is_sent.store(true, Ordering::Relaxed);
            match self.send(at, &channel, message, token.as_ref(), &send).await {
                // Tokens end, and a member that was started anew knows none.
                Err(Failure::Unauthenticated) if token.is_some() => {
                    let token = self.access.token((&channel, &at.name), token.as_ref()).await?;
                    self.send(at, &channel, message, token.as_ref(), &send).await
                }
                answer => answer,
            }
        };
        let answer = timeout(max, answer).await.unwrap_or_else(|_| {
            if max >= SILENCE_MAX {
                let mut way = at.way();
                way.channel = way.endpoint.connect_lazy();
            }
            self.access.doubt();
            let text = format!("{}: no answer within {} ms", at.name, max.as_millis());
            Err(if is_sent.load(Ordering::Relaxed) { Failure::Lost(text) } else { Failure::Elsewhere(text) })
        });
        if matches!(answer, Err(Failure::Lost(_) | Failure::Elsewhere(_))) {
            self.avoid(member);
        }
        answer
    }

    async fn send<Q: Clone, A, F>(
        &self,
        member: &Member,
        channel: &Channel,
        message: &Q,
        token: Option<&AsciiMetadataValue>,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let sent = send(channel.clone(), Self::request(message.clone(), token)).await;
        sent.map(Response::into_inner).map_err(|status| Failure::of(&member.name, &status))
    }

    /// Asks one member after the other. For calls that may be done twice.
    pub(super) async fn ask_any<Q: Clone, A, F>(
        &self,
        wait: Wait,
        message: &Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + wait.total_max;
        let mut asked = 0;
        let mut earlier = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let failure = match self.ask(self.preferred(), wait.member_max.min(left), message, &send).await {
                Err(failure @ (Failure::Lost(_) | Failure::Elsewhere(_))) if left < wait.member_max => {
                    failure.after(earlier)
                }
                Err(failure @ (Failure::Lost(_) | Failure::Elsewhere(_))) => failure,
                answer => return answer,
            };
            asked += 1;
            if asked % self.members.len() == 0 {
                sleep(ROUND_WAIT).await;
            }
            if Instant::now() + LEAST_WAIT >= deadline {
                return Err(failure);
            }
            earlier = Some(failure);
        }
    }

    /// The same for what changes nothing.
    pub(super) async fn read<Q: Clone, A, F>(
        &self,
        wait: Wait,
        message: &Q,
        send: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.ask_any(wait, message, send).await.map_err(Failure::unread)
    }
}

/// Where a member is, and by which certificates it is reached.
fn endpoint(name: &str, tls: Option<&Tls>) -> Result<Endpoint, Error> {
    // Not repeated: it may hold a password.
    if name.contains('@') {
        return Err(Error::Invalid("an address of etcd has no user in it".into()));
    }
    let invalid = |why: &dyn std::fmt::Display| Error::Invalid(format!("etcd's address {name}: {why}"));
    let endpoint = Endpoint::from_shared(name.to_owned()).map_err(|error| invalid(&error))?;
    let is_tls = match endpoint.uri().scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(invalid(&"it begins with https:// or http://")),
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    match tls {
        Some(tls) if is_tls => endpoint
            .tls_config(client_tls(tls))
            .map_err(|error| Error::Invalid(format!("{OF_FILES}: {}", innermost(&error)))),
        None if !is_tls => Ok(endpoint),
        Some(_) => Err(invalid(&"certificates are given, so it begins with https://")),
        None => Err(invalid(&"it needs the certificates of those who may sign etcd's")),
    }
}

/// What is at the root of it: the outer texts of tonic say less.
fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

fn client_tls(tls: &Tls) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca)).timeout(CONNECT_MAX);
    if let Some(own) = &tls.identity {
        config = config.identity(Identity::from_pem(&own.certificate, own.key.as_slice()));
    }
    if let Some(name) = &tls.name {
        config = config.domain_name(name);
    }
    config
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

pub(super) async fn range(channel: Channel, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
    kv(channel).range(request).await
}

pub(super) async fn txn(channel: Channel, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
    kv(channel).txn(request).await
}

pub(super) async fn alarm(channel: Channel, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
    MaintenanceClient::new(channel).alarm(request).await
}

pub(super) async fn status(
    channel: Channel,
    request: Request<StatusRequest>,
) -> Result<Response<StatusResponse>, Status> {
    MaintenanceClient::new(channel).status(request).await
}
