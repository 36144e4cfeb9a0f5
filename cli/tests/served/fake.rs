//! A server in which `A` and `B` exist, every grant is given, and nobody gets a token.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
};

use super::operations::{self, Ending};
use coffer_client::health::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use coffer_proto::{
    reason,
    v1::{
        CreateGrantRequest, DeleteGrantRequest, DeleteGrantResponse, ExchangeStartTokenRequest,
        ExchangeStartTokenResponse, Grant, ImportResult, ImportSecretsRequest, ImportSecretsResponse,
        IssueTokenRequest, IssueTokenResponse, ListEffectiveAccessRequest, ListEffectiveAccessResponse,
        ListGrantsRequest, ListGrantsResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest,
        RevokeTokenResponse, TestPermissionsRequest, TestPermissionsResponse,
        access_server::{Access, AccessServer},
        import_result::Action,
        import_secrets_request::Conflict,
        imports_server::{Imports, ImportsServer},
        operations_server::OperationsServer,
        tokens_server::{Tokens, TokensServer},
    },
};
use tokio::runtime::Runtime;
use tonic::{Code, Request, Response, Status, transport};
use tonic_types::{ErrorDetails, StatusExt as _};

/// A server on a free port of this machine, until it is dropped.
pub(crate) struct Fake {
    /// Where it is.
    pub(crate) address: String,
    /// The imports that were asked for.
    pub(crate) imports: Arc<Mutex<Vec<ImportSecretsRequest>>>,
    runtime: Option<Runtime>,
}

#[derive(Clone, Default)]
struct Service {
    imports: Arc<Mutex<Vec<ImportSecretsRequest>>>,
}

impl Fake {
    /// Starts one.
    pub(crate) fn start() -> Self {
        Self::ending(Ending::Whole)
    }

    /// Starts one whose streams end so.
    pub(crate) fn ending(ending: Ending) -> Self {
        Self::with(ending, Said { any: ServingStatus::Serving, each: ServingStatus::Serving })
    }

    /// Starts one that says so of itself as a whole, and of each of its services.
    pub(crate) fn saying(any: ServingStatus, each: ServingStatus) -> Self {
        Self::with(Ending::Whole, Said { any, each })
    }

    fn with(ending: Ending, said: Said) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("set");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let service = Service::default();
        let imports = Arc::clone(&service.imports);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            transport::Server::builder()
                .add_service(AccessServer::new(service.clone()))
                .add_service(ImportsServer::new(service.clone()))
                .add_service(TokensServer::new(service))
                .add_service(OperationsServer::new(operations::Service(ending)))
                .add_service(HealthServer::new(said))
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
                .await
        });
        Self { address, imports, runtime: Some(runtime) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn refused<T>(code: Code, reason: &str) -> Result<Response<T>, Status> {
    let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::new());
    Err(Status::with_error_details(code, "refused", details))
}

pub(crate) fn unasked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test asks for it"))
}

#[tonic::async_trait]
impl Imports for Service {
    async fn import_secrets(
        &self,
        request: Request<ImportSecretsRequest>,
    ) -> Result<Response<ImportSecretsResponse>, Status> {
        let request = request.into_inner();
        self.imports.lock().expect("no panic while it was held").push(request.clone());
        let conflict = request.conflict();
        let exists = |name: &str| ["A", "B"].contains(&name);
        if conflict == Conflict::Fail && request.entries.iter().any(|entry| exists(&entry.secret_id)) {
            return refused(Code::AlreadyExists, "SECRET_EXISTS");
        }
        let results = request.entries.iter().map(|entry| {
            let action = match (exists(&entry.secret_id), conflict) {
                (false, _) => Action::Created,
                (true, Conflict::Skip) => Action::Skipped,
                (true, _) => Action::Replaced,
            };
            ImportResult { name: format!("{}/secrets/{}", request.parent, entry.secret_id), action: action.into() }
        });
        Ok(Response::new(ImportSecretsResponse { results: results.collect() }))
    }
}

#[tonic::async_trait]
impl Access for Service {
    async fn create_grant(&self, request: Request<CreateGrantRequest>) -> Result<Response<Grant>, Status> {
        let CreateGrantRequest { principal, permission, pattern } = request.into_inner();
        Ok(Response::new(Grant { principal, permission, pattern, ..Grant::default() }))
    }

    async fn delete_grant(&self, _: Request<DeleteGrantRequest>) -> Result<Response<DeleteGrantResponse>, Status> {
        unasked()
    }

    async fn list_grants(&self, _: Request<ListGrantsRequest>) -> Result<Response<ListGrantsResponse>, Status> {
        unasked()
    }

    async fn list_effective_access(
        &self,
        _: Request<ListEffectiveAccessRequest>,
    ) -> Result<Response<ListEffectiveAccessResponse>, Status> {
        unasked()
    }

    async fn test_permissions(
        &self,
        _: Request<TestPermissionsRequest>,
    ) -> Result<Response<TestPermissionsResponse>, Status> {
        unasked()
    }
}

#[tonic::async_trait]
impl Tokens for Service {
    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<IssueTokenResponse>, Status> {
        refused(Code::PermissionDenied, "PERMISSION_DENIED")
    }

    async fn exchange_start_token(
        &self,
        _: Request<ExchangeStartTokenRequest>,
    ) -> Result<Response<ExchangeStartTokenResponse>, Status> {
        unasked()
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        unasked()
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        unasked()
    }
}

struct Said {
    any: ServingStatus,
    each: ServingStatus,
}

#[tonic::async_trait]
impl Health for Said {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = if request.get_ref().service.is_empty() { self.any } else { self.each };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        unasked()
    }
}
