//! Gives the newcomer of `dev` what the documents' examples need, through coffer's own services, without a socket.

use coffer_proto::{
    token::Token,
    v1::{CreateGrantRequest, IssueTokenRequest, access_client::AccessClient, tokens_client::TokensClient},
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Routes,
};
use zeroize::Zeroizing;

use super::{Failure, token};

/// Who may start workloads without tokens of their own.
pub(super) const INJECTOR: &str = "services/dev";
/// Who gives workloads their tokens.
const STARTER: &str = "services/starter";
/// The kind of scope that has no workloads.
const WITHOUT_WORKLOADS: &str = "organizations/-";
/// Every other kind.
const WITH_WORKLOADS: &[&str] =
    &["accounts/-", "accounts/-/plugins/-", "organizations/-/workspaces/-", "projects/-", "projects/-/environments/-"];

/// Tokens of who was set up.
pub(super) struct Tokens {
    pub(super) injector: Zeroizing<String>,
    pub(super) starter: Zeroizing<String>,
}

/// `owner` may do everything with secrets everywhere but read encrypted ones; [`INJECTOR`] may hand them to workloads,
/// and [`STARTER`] gives workloads the tokens to fetch them with.
pub(super) async fn provision(routes: Routes, operator: &Token, owner: &str) -> Result<Tokens, Failure> {
    let mut authorization: MetadataValue<Ascii> =
        token::authorization(operator).parse().map_err(|_| Failure::new("the new token is no header"))?;
    authorization.set_sensitive(true);
    let mut access = AccessClient::new(routes.clone());
    let everywhere = || WITH_WORKLOADS.iter().chain([&WITHOUT_WORKLOADS]);
    let grants = everywhere()
        .flat_map(|pattern| [(owner, "secrets:manage", pattern), (owner, "access:manage", pattern)])
        .chain(WITH_WORKLOADS.iter().map(|pattern| (INJECTOR, "secrets:inject", pattern)))
        .chain(WITH_WORKLOADS.iter().map(|pattern| (STARTER, "workloads:issue", pattern)));
    for (principal, permission, pattern) in grants {
        let grant = CreateGrantRequest {
            principal: principal.to_owned(),
            permission: permission.to_owned(),
            pattern: (*pattern).to_owned(),
        };
        access.create_grant(with(grant, &authorization)).await.map_err(failed)?;
    }
    let mut tokens = TokensClient::new(routes);
    let mut issue = async |principal: &str| {
        let request = IssueTokenRequest { principal: principal.to_owned(), ..IssueTokenRequest::default() };
        let issued = tokens.issue_token(with(request, &authorization)).await.map_err(failed)?;
        Ok::<_, Failure>(Zeroizing::new(issued.into_inner().token))
    };
    Ok(Tokens { injector: issue(INJECTOR).await?, starter: issue(STARTER).await? })
}

fn with<T>(message: T, authorization: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.clone());
    request
}

fn failed(status: Status) -> Failure {
    Failure::new(format!("the new server cannot be set up: {}", status.message()))
}
