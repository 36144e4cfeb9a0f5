//! A `Workloads` service that answers as it is told and remembers what it was asked.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
};

use coffer_proto::v1::{
    FetchEnvironmentRequest, FetchEnvironmentResponse, Variable, WatchEnvironmentRequest, WatchEnvironmentResponse,
    workloads_server::{Workloads, WorkloadsServer},
};
use tokio::runtime::Runtime;
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
    runtime: Option<Runtime>,
}

struct Service {
    script: Script,
    calls: Arc<Mutex<Vec<Call>>>,
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
        let calls = Arc::default();
        let service = WorkloadsServer::new(Service { script: self, calls: Arc::clone(&calls) });
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
        });
        Fake { address, calls, runtime: Some(runtime) }
    }
}

impl Fake {
    /// Every call so far.
    pub(crate) fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().expect("no panic while it was held")
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
    type WatchEnvironmentStream = tokio_stream::Pending<Result<WatchEnvironmentResponse, Status>>;

    async fn watch_environment(
        &self,
        _: Request<WatchEnvironmentRequest>,
    ) -> Result<Response<Self::WatchEnvironmentStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn fetch_environment(
        &self,
        request: Request<FetchEnvironmentRequest>,
    ) -> Result<Response<FetchEnvironmentResponse>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let request = request.into_inner();
        let dry_run = request.dry_run;
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
        let variables = self.script.variables.iter().map(|(name, value)| Variable {
            name: name.clone(),
            value: value.clone().filter(|_| !dry_run),
            source: format!("projects/p/secrets/{name}"),
            kind: 1,
            value_version: 7,
        });
        Ok(Response::new(FetchEnvironmentResponse {
            workload: self.script.workload.unwrap_or(WORKLOAD).to_owned(),
            variables: variables.collect(),
            environment_revision: "r1".to_owned(),
            unchanged: false,
            missing_required: self.script.missing_required.clone(),
        }))
    }
}
