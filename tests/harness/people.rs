//! Who calls: tokens, grants and clients for them.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use coffer_client::{Client, Config, Credential};
use coffer_proto::{token::Token, v1};
use tonic::{Code, Status};

use super::{Raw, Server, Tool, until_async};

/// A request for a new encrypted secret with nothing special about it.
pub(crate) fn secret(parent: &str, name: &str, value: &str) -> v1::CreateSecretRequest {
    v1::CreateSecretRequest {
        parent: parent.to_owned(),
        secret_id: name.to_owned(),
        value: value.as_bytes().to_vec(),
        ..Default::default()
    }
}

/// Writes a file that only its owner can read, as tokens must be kept.
pub(crate) fn write_private(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a private file");
}

/// Longer than anything takes on a busy machine, where servers are not optimised.
const CALL_MAX: Duration = Duration::from_secs(60);

/// A client that trusts the authorities of `ca_file`, or the system's.
pub(crate) fn client_at(address: &str, token: &str, ca_file: Option<PathBuf>) -> Client {
    let credential = Some(Credential::Token(Token::parse(token).expect("a good token")));
    let address = address.parse().expect("the server's own address");
    Client::lazy(Config { credential, ca_file, call_timeout: CALL_MAX, ..Config::new(address) }).expect("a client")
}

/// Calls until it is no matter of waiting any more: a store beyond a network may be slow on a busy machine, and whoever is
/// told that has changed nothing.
pub(crate) async fn again<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Status> {
    until_async("an answer", async || {
        Some(call().await).filter(|answer| !answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable))
    })
    .await
}

impl Server {
    /// A client with this token.
    pub(crate) fn client(&self, token: &str) -> Client {
        client_at(&self.address(), token, None)
    }

    /// The same over the unix socket, whose address survives restarts.
    pub(crate) fn socket_client(&self, token: &str) -> Client {
        client_at(&self.socket(), token, None)
    }

    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(&self.address())
    }

    pub(crate) fn operator_token(&self) -> String {
        let text = std::fs::read_to_string(self.operator_token_file()).expect("init has written it");
        text.trim().to_owned()
    }

    pub(crate) fn operator(&self) -> Client {
        self.client(&self.operator_token())
    }

    /// A new token for a user or service.
    pub(crate) async fn token(&self, principal: &str) -> String {
        self.issue(&self.operator(), principal, None).await
    }

    /// A new token, issued by `issuer`.
    pub(crate) async fn issue(&self, issuer: &Client, principal: &str, ttl: Option<Duration>) -> String {
        let request = v1::IssueTokenRequest {
            principal: principal.to_owned(),
            ttl: ttl.map(|ttl| ttl.try_into().expect("a short time")),
            ..Default::default()
        };
        let answer = again(async || issuer.tokens().issue_token(request.clone()).await).await;
        answer.unwrap_or_else(|status| panic!("no token for {principal}: {status:?}")).into_inner().token
    }

    /// Grants as the operator; a grant that stands is as good.
    pub(crate) async fn grant(&self, principal: &str, permission: &str, pattern: &str) {
        let request = v1::CreateGrantRequest {
            principal: principal.to_owned(),
            permission: permission.to_owned(),
            pattern: pattern.to_owned(),
        };
        let operator = self.operator();
        match again(async || operator.access().create_grant(request.clone()).await).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => panic!("no grant of {permission} on {pattern} to {principal}: {status:?}"),
        }
    }

    /// A client for a principal with these grants: `("secrets:manage", "projects/p")`.
    pub(crate) async fn with(&self, principal: &str, grants: &[(&str, &str)]) -> Client {
        for (permission, pattern) in grants {
            self.grant(principal, permission, pattern).await;
        }
        self.client(&self.token(principal).await)
    }

    /// A client for somebody who may read and manage these scopes.
    pub(crate) async fn manager(&self, scopes: &[&str]) -> Client {
        for scope in scopes {
            self.grant("users/manager", "secrets:manage", scope).await;
        }
        self.client(&self.token("users/manager").await)
    }

    /// A token of a workload, issued by a service that may.
    pub(crate) async fn workload_token(&self, workload: &str) -> String {
        let issuer = self.with("services/issuer", &[("workloads:issue", workload)]).await;
        self.issue(&issuer, workload, None).await
    }

    /// What a workload receives, in order, as text.
    pub(crate) async fn environment(&self, workload: &str) -> Vec<(String, String)> {
        let client = self.client(&self.workload_token(workload).await);
        let answer = client.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
        let answer = answer.unwrap_or_else(|status| panic!("no environment for {workload}: {status:?}")).into_inner();
        assert_eq!(answer.workload, workload);
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.expect("a value")).expect("text");
        answer.variables.into_iter().map(|v| (v.name, text(v.value))).collect()
    }

    /// How its store is.
    pub(crate) async fn store_status(&self) -> v1::StoreStatus {
        self.status().await.store.expect("always there")
    }

    /// How its keys are.
    pub(crate) async fn key_status(&self) -> v1::KeyStatus {
        self.status().await.keys.expect("always there")
    }

    async fn status(&self) -> v1::GetStatusResponse {
        let operator = self.operator();
        again(async || operator.operations().get_status(v1::GetStatusRequest {}).await)
            .await
            .expect("told")
            .into_inner()
    }

    fn tool(&self, name: &str, token: &str) -> Tool {
        let file = self.home().join(format!("token-{}", token.split('_').nth(2).expect("a token")));
        write_private(&file, token);
        Tool::new(name).env("COFFER_ADDRESS", self.address()).env("COFFER_TOKEN_FILE", file).dir(self.home())
    }

    /// The command line with this token.
    pub(crate) fn cli(&self, token: &str) -> Tool {
        self.tool("coffer", token)
    }

    /// The injector with this token.
    pub(crate) fn inject(&self, token: &str) -> Tool {
        self.tool("coffer-inject", token)
    }
}

/// An environment as [`Server::environment`] gives it.
pub(crate) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
