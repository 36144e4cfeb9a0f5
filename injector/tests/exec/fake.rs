//! A server that answers as it is told and remembers what it was asked.

use std::{
    net::{Ipv4Addr, TcpListener},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use coffer_proto::v1::{
    self, FetchEnvironmentRequest, FetchEnvironmentResponse, StartReport, Variable, WatchEnvironmentRequest,
    WatchEnvironmentResponse,
    tokens_server::{Tokens, TokensServer},
    workloads_server::{Workloads, WorkloadsServer},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{Code, Request, Response, Status, transport};

/// The workload that every answer is for.
pub(crate) const WORKLOAD: &str = "projects/p/environments/e/servers/web";

/// What to answer.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// The environment.
    pub(crate) variables: Vec<(String, Option<Vec<u8>>)>,
    /// Names that manifests require and the environment lacks.
    pub(crate) missing_required: Vec<String>,
    /// So many calls succeed before the failures begin.
    pub(crate) good_first: usize,
    /// The calls after those fail like this, one after the other.
    pub(crate) failures: Vec<Code>,
    /// Calls get no answer at all.
    pub(crate) silent: bool,
    /// The workload that answers claim to be for, if not the usual one.
    pub(crate) workload: Option<&'static str>,
}

/// One call.
pub(crate) struct Call {
    /// What was asked.
    pub(crate) request: FetchEnvironmentRequest,
    /// The authorization header.
    pub(crate) authorization: String,
}

/// A server on a free port of this machine, until it is dropped.
pub(crate) struct Fake {
    /// Where it is.
    pub(crate) address: String,
    calls: Arc<Mutex<Vec<Call>>>,
    starts: Arc<Mutex<Vec<String>>>,
    now: Arc<watch::Sender<Now>>,
    runtime: Option<Runtime>,
}

/// The environment as it stands.
#[derive(Clone)]
struct Now {
    revision: u32,
    variables: Vec<(String, Option<Vec<u8>>, i64)>,
    /// Names that manifests require and the environment lacks.
    missing_required: Vec<String>,
    /// What everybody is answered instead.
    refuses: Option<Code>,
    /// Start tokens are exchanged, and nobody hears of it.
    loses_exchanges: bool,
}

#[derive(Clone)]
struct Service {
    script: Script,
    calls: Arc<Mutex<Vec<Call>>>,
    starts: Arc<Mutex<Vec<String>>>,
    now: Arc<watch::Sender<Now>>,
    exchanged: Arc<Mutex<Option<Exchanged>>>,
}

/// What a start token was exchanged with and for.
struct Exchanged {
    nonce: Vec<u8>,
    token: String,
}

impl Script {
    /// Serves these variables.
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).into()))).collect();
        Self { variables, ..Self::default() }
    }

    /// Starts a server with this script.
    pub(crate) fn start(self) -> Fake {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("set");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (calls, starts) = (Arc::default(), Arc::<Mutex<Vec<String>>>::default());
        let variables = self.variables.iter().map(|(name, value)| (name.clone(), value.clone(), 7)).collect();
        let missing_required = self.missing_required.clone();
        let now = Now { revision: 1, variables, missing_required, refuses: None, loses_exchanges: false };
        let now = Arc::new(watch::Sender::new(now));
        let service = Service {
            script: self,
            calls: Arc::clone(&calls),
            starts: Arc::clone(&starts),
            now: Arc::clone(&now),
            exchanged: Arc::default(),
        };
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let services = transport::Server::builder()
                .add_service(WorkloadsServer::new(service.clone()))
                .add_service(TokensServer::new(service));
            services.serve_with_incoming(incoming).await
        });
        Fake { address, calls, starts, now, runtime: Some(runtime) }
    }
}

impl Fake {
    /// Every call so far.
    pub(crate) fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().expect("no panic while it was held")
    }

    /// The revisions of every start that was told of.
    pub(crate) fn starts(&self) -> Vec<String> {
        self.starts.lock().expect("no panic while it was held").clone()
    }

    /// Manifests require these names from now on, which the environment lacks.
    pub(crate) fn miss(&self, names: &[&str]) {
        self.now.send_modify(|now| now.missing_required = names.iter().map(|name| (*name).to_owned()).collect());
    }

    /// Loses the answers to exchanges of start tokens from now on, or no longer.
    pub(crate) fn lose_exchanges(&self, loses: bool) {
        self.now.send_modify(|now| now.loses_exchanges = loses);
    }

    /// Changes the environment. A variable with another value gets another version.
    pub(crate) fn change(&self, variables: &[(&str, &str)]) {
        self.now.send_modify(|now| {
            now.revision += 1;
            let version = |name: &str, value: &[u8]| {
                let old = now.variables.iter().find(|(old, ..)| old == name);
                old.filter(|(_, old, _)| old.as_deref() == Some(value))
                    .map_or(i64::from(now.revision) + 100, |old| old.2)
            };
            let variables = variables.iter().map(|(name, value)| {
                ((*name).to_owned(), Some(value.as_bytes().to_vec()), version(name, value.as_bytes()))
            });
            now.variables = variables.collect();
        });
    }

    /// Answers nobody from now on, or everybody again. Watches end.
    pub(crate) fn be_away(&self, away: bool) {
        self.now.send_modify(|now| now.refuses = away.then_some(Code::Unavailable));
    }

    /// Refuses everybody from now on. Watches end.
    pub(crate) fn refuse(&self, code: Code) {
        self.now.send_modify(|now| now.refuses = Some(code));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tonic::async_trait]
impl Workloads for Service {
    type WatchEnvironmentStream = Pin<Box<dyn Stream<Item = Result<WatchEnvironmentResponse, Status>> + Send>>;

    async fn watch_environment(
        &self,
        request: Request<WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchEnvironmentStream>, Status> {
        self.here()?;
        let mut last = request.into_inner().environment_revision;
        let states = WatchStream::new(self.now.subscribe()).filter_map(move |now| {
            if let Some(code) = now.refuses {
                return Some(Err(Status::new(code, "as scripted")));
            }
            let revision = revision(&now);
            let is_news = revision != last;
            last.clone_from(&revision);
            let message =
                WatchEnvironmentResponse { environment_revision: revision, reset: true, ..Default::default() };
            is_news.then_some(Ok(message))
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn fetch_environment(
        &self,
        request: Request<FetchEnvironmentRequest>,
    ) -> Result<Response<FetchEnvironmentResponse>, Status> {
        self.here()?;
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let request = request.into_inner();
        let (dry_run, report) = (request.dry_run, request.start());
        let now = self.now.borrow().clone();
        if report == StartReport::Given {
            let unchanged = request.if_revision_not == revision(&now);
            self.start_of(unchanged.then_some(&now));
            return Ok(Response::new(FetchEnvironmentResponse { unchanged, ..Default::default() }));
        }
        let count = {
            let mut calls = self.calls.lock().expect("no panic while it was held");
            calls.push(Call { request, authorization });
            calls.len()
        };
        if self.script.silent {
            std::future::pending::<()>().await;
        }
        if let Some(code) = (count - 1).checked_sub(self.script.good_first).and_then(|at| self.script.failures.get(at))
        {
            return Err(Status::new(*code, "as scripted"));
        }
        self.start_of(Some(&now).filter(|_| report == StartReport::Unspecified && !dry_run));
        let variables = now.variables.iter().map(|(name, value, version)| Variable {
            name: name.clone(),
            value: value.clone().filter(|_| !dry_run),
            source: format!("projects/p/secrets/{name}"),
            kind: 1,
            value_version: *version,
            secret_uid: format!("uid-of-{name}"),
        });
        Ok(Response::new(FetchEnvironmentResponse {
            workload: self.script.workload.unwrap_or(WORKLOAD).to_owned(),
            variables: variables.collect(),
            environment_revision: revision(&now),
            unchanged: false,
            missing_required: now.missing_required,
            stale_since: None,
        }))
    }
}

fn revision(now: &Now) -> String {
    format!("r{}", now.revision)
}

impl Service {
    fn start_of(&self, now: Option<&Now>) {
        self.starts.lock().expect("no panic while it was held").extend(now.map(revision));
    }

    fn here(&self) -> Result<(), Status> {
        self.now.borrow().refuses.map_or(Ok(()), |code| Err(Status::new(code, "as scripted")))
    }
}

#[tonic::async_trait]
impl Tokens for Service {
    async fn exchange_start_token(
        &self,
        request: Request<v1::ExchangeStartTokenRequest>,
    ) -> Result<Response<v1::ExchangeStartTokenResponse>, Status> {
        self.here()?;
        let nonce = request.into_inner().nonce;
        let mut exchanged = self.exchanged.lock().expect("no panic while it was held");
        let exchanged =
            exchanged.get_or_insert_with(|| Exchanged { nonce: nonce.clone(), token: crate::run::token().to_owned() });
        if exchanged.nonce != nonce {
            return Err(Status::unauthenticated("used before"));
        }
        if self.now.borrow().loses_exchanges {
            return Err(Status::unavailable("lost as scripted"));
        }
        Ok(Response::new(v1::ExchangeStartTokenResponse { token: exchanged.token.clone(), metadata: None }))
    }

    async fn issue_token(&self, _: Request<v1::IssueTokenRequest>) -> Result<Response<v1::IssueTokenResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn revoke_token(
        &self,
        _: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}
