//! Everyone who may call, on a server with one project full of secrets.

use std::{collections::HashMap, time::Duration};

use coffer_proto::v1::{self, SecretKind};

use crate::harness::{Server, secret, until_async};

/// A value that no answer but a fetch may ever hold.
pub(crate) const CANARY: &str = "canary-Zq7uXw3Vb6Kd93jf-Pw0c4Yt6Lm8z";
pub(crate) const SCOPE: &str = "projects/p";
/// Where the manager may clone to.
pub(crate) const CLONES: &str = "projects/clones";
pub(crate) const WORKLOAD: &str = "projects/p/servers/this";

/// A caller of the truth table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// No credential at all.
    Nobody,
    /// Not the shape of a token.
    Malformed,
    /// A token with a wrong checksum.
    Damaged,
    /// A token's shape, never issued.
    Unknown,
    /// Issued, and over.
    Expired,
    /// Issued, and revoked.
    Revoked,
    /// A user without grants.
    User,
    /// A service without grants.
    Service,
    /// The owner of an account, which is not the scope of the table.
    Owner,
    /// `secrets:read` on the scope.
    Reader,
    /// `secrets:manage` on the scope.
    Manager,
    /// `secrets:manage` on a scope below, and on a pattern of such.
    ManagerBelow,
    /// `access:manage` on the scope.
    AccessManager,
    /// `secrets:inject` on the scope.
    Injector,
    /// `workloads:issue` on the scope.
    WorkloadIssuer,
    /// `tokens:issue` on `users/-`.
    TokenIssuer,
    /// `operator`.
    Operator,
    /// The workload of the table.
    Workload,
    /// Another workload of the same scope.
    OtherWorkload,
}

impl Role {
    pub(crate) const ALL: [Role; 19] = [
        Role::Nobody,
        Role::Malformed,
        Role::Damaged,
        Role::Unknown,
        Role::Expired,
        Role::Revoked,
        Role::User,
        Role::Service,
        Role::Owner,
        Role::Reader,
        Role::Manager,
        Role::ManagerBelow,
        Role::AccessManager,
        Role::Injector,
        Role::WorkloadIssuer,
        Role::TokenIssuer,
        Role::Operator,
        Role::Workload,
        Role::OtherWorkload,
    ];

    /// Why the role is not even recognized, if it is not.
    pub(crate) fn unauthenticated(self) -> Option<&'static str> {
        match self {
            Role::Nobody => Some("CREDENTIAL_MISSING"),
            Role::Malformed | Role::Damaged | Role::Unknown | Role::Revoked => Some("CREDENTIAL_INVALID"),
            Role::Expired => Some("CREDENTIAL_EXPIRED"),
            _ => None,
        }
    }
}

/// The server of the table and the tokens of its roles.
pub(crate) struct Stage {
    pub(crate) server: Server,
    tokens: HashMap<Role, String>,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::on(Server::start()).await
    }

    /// The same on a server that was started in another way.
    pub(crate) async fn on(server: Server) -> Self {
        let mut tokens = HashMap::new();
        tokens.insert(Role::Operator, server.operator_token());
        let principals = [
            (Role::User, "users/somebody", "", ""),
            (Role::Service, "services/something", "", ""),
            (Role::Owner, "users/owner", "", ""),
            (Role::Reader, "users/reader", "secrets:read", SCOPE),
            (Role::Manager, "users/manager", "secrets:manage", SCOPE),
            (Role::ManagerBelow, "users/below", "secrets:manage", "projects/-/environments/-"),
            (Role::AccessManager, "users/access", "access:manage", SCOPE),
            (Role::Injector, "services/injector", "secrets:inject", SCOPE),
            (Role::WorkloadIssuer, "services/workloads", "workloads:issue", SCOPE),
            (Role::TokenIssuer, "services/tokens", "tokens:issue", "users/-"),
        ];
        server.grant("users/manager", "secrets:manage", CLONES).await;
        for (role, principal, permission, pattern) in principals {
            if !permission.is_empty() {
                server.grant(principal, permission, pattern).await;
            }
            tokens.insert(role, server.token(principal).await);
        }
        let issuer = server.client(&tokens[&Role::WorkloadIssuer]);
        tokens.insert(Role::Workload, server.issue(&issuer, WORKLOAD, None).await);
        tokens.insert(Role::OtherWorkload, server.issue(&issuer, "projects/p/servers/other", None).await);

        // The roles that are recognized no more, or never were, would be allowed everything a manager is.
        let operator = server.operator();
        let expired = server.issue(&operator, "users/manager", Some(Duration::from_secs(1))).await;
        let revoked = server.issue(&operator, "users/manager", None).await;
        let name = format!("tokens/{}", revoked.split('_').nth(2).expect("an id"));
        operator.tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
        let unknown = coffer_proto::token::Token::generate(coffer_proto::token::TokenKind::User);
        let (start, end) = tokens[&Role::Manager].split_at(tokens[&Role::Manager].len() - 1);
        let damaged = format!("{start}{}", if end == "x" { "y" } else { "x" });
        tokens.extend([
            (Role::Malformed, "hunter2".to_owned()),
            (Role::Damaged, damaged),
            (Role::Unknown, unknown.expose().to_owned()),
            (Role::Revoked, revoked),
        ]);
        let gone = server.client(&expired);
        until_async("a token of one second to expire", async || {
            gone.scopes().list_scopes(v1::ListScopesRequest::default()).await.err().map(drop)
        })
        .await;
        tokens.insert(Role::Expired, expired);

        let stage = Self { server, tokens };
        stage.fill().await;
        stage
    }

    async fn fill(&self) {
        let secrets = self.server.client(&self.tokens[&Role::Manager]).secrets();
        for name in ["KEPT", "OTHER"] {
            secrets.clone().create_secret(secret(SCOPE, name, CANARY)).await.expect("created");
        }
        let plain =
            v1::CreateSecretRequest { kind: SecretKind::Plain.into(), ..secret(SCOPE, "PLAIN", "plain as can be") };
        secrets.clone().create_secret(plain).await.expect("created");
    }

    /// The tokens of all roles.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &str> {
        self.tokens.values().map(String::as_str)
    }

    pub(crate) fn token(&self, role: Role) -> Option<&str> {
        self.tokens.get(&role).map(String::as_str)
    }
}
