//! Gives the newcomer of `dev` what the documents' examples need, through coffer's own services, without a socket.

use coffer_proto::{
    token::Token,
    v1::{CreateGrantRequest, IssueTokenRequest, access_client::AccessClient, tokens_client::TokensClient},
};
use tonic::{
    Code, Request, Status,
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
        match access.create_grant(with(grant, &authorization)).await {
            // Given by an earlier start.
            Err(status) if status.code() == Code::AlreadyExists => {}
            given => drop(given.map_err(failed)?),
        }
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use coffer_proto::name::Principal;

    use super::*;
    use crate::{
        command::init::{NewKey, NewStore},
        config::{self, Flags},
        server::Server,
    };

    #[tokio::test]
    async fn the_starter_gives_tokens_to_workloads_and_to_nobody_else() {
        let home = tempfile::tempdir().expect("a directory");
        let (data, key_file) = (home.path().join("data"), home.path().join("key"));
        let new = NewStore { data: &data, key: NewKey::Generated(&key_file), audit_file: None };
        let operator = new.create(&Principal::parse("users/dev").expect("a principal")).await.expect("a store");
        let text = |path: &std::path::Path| path.to_str().map(str::to_owned);
        let flags = Flags { data: text(&data), key_file: text(&key_file), ..Flags::default() };
        let config = config::load(&flags, std::iter::empty::<(OsString, OsString)>()).expect("good");
        let server = Server::open(config).await.expect("opens");
        provision(server.routes(), &operator, "users/dev").await.map(drop).expect("set up");
        let tokens = provision(server.routes(), &operator, "users/dev").await.expect("set up again");
        let issue = async |token: &str, principal: &str| {
            let authorization = format!("Bearer {token}").parse().expect("a header");
            let request = IssueTokenRequest { principal: principal.to_owned(), ..IssueTokenRequest::default() };
            TokensClient::new(server.routes()).issue_token(with(request, &authorization)).await.map(drop)
        };
        for scope in WITH_WORKLOADS {
            let workload = format!("{}/servers/web", scope.replace('-', "demo"));
            issue(&tokens.starter, &workload).await.expect("a token");
            issue(&tokens.injector, &workload).await.expect_err("it fetches, and issues nothing");
        }
        issue(&tokens.starter, "users/dev").await.expect_err("no workload");
    }
}
