//! Whatever arrives, the answer is an error that names the field, never a crash and never the value.

use coffer_proto::v1::{self, SecretKind};
use prost::Message as _;
use tonic::{Code, Status};

use crate::harness::{Raw, Refusal, Server, refused, secret};

const PROJECT: &str = "projects/p";

/// A server with a caller who may do everything on one project and its organization.
struct Stage {
    server: Server,
    raw: Raw,
    token: String,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start();
        for permission in ["secrets:manage", "access:manage"] {
            for pattern in [PROJECT, "organizations/o", "organizations/o/workspaces/w", "accounts/-/plugins/-"] {
                server.grant("users/all", permission, pattern).await;
            }
        }
        let token = server.token("users/all").await;
        let raw = server.raw();
        Self { server, raw, token }
    }

    async fn call(&self, method: &str, message: impl prost::Message) -> Result<Vec<u8>, Status> {
        self.raw.call(&format!("/coffer.v1.{method}"), Some(&self.token), message.encode_to_vec()).await
    }

    async fn field_of(&self, method: &str, message: impl prost::Message) -> String {
        let refusal = refused(self.call(method, message).await);
        assert_eq!(refusal.code, Code::InvalidArgument, "{method}: {refusal:?}");
        assert!(!refusal.fields.is_empty(), "{method} names no field: {refusal:?}");
        refusal.field().to_owned()
    }
}

/// What is no scope: unknown kinds, `..`, unicode, wrong case, wildcards, parts too few and too many.
fn no_scopes() -> Vec<String> {
    let mut bad: Vec<String> = [
        "",
        "/",
        "projects",
        "projects/",
        "/projects/p",
        "projects/p/",
        "projects//",
        "projects/P",
        "projects/..",
        "projects/../p",
        "projects/.",
        "projects/p/environments",
        "projects/p/workspaces/w",
        "teams/t",
        "Projects/p",
        "projects/p/environments/e/x/y",
        "projects/ä",
        "projects/p\n",
        "projects/p\0",
        "projects/ p",
        "projects/%70",
        "accounts/a/plugins",
        "organizations/o/workspaces/w/servers/s",
        "projects/漢字",
        "projects/\u{202e}p",
    ]
    .map(str::to_owned)
    .into();
    bad.push(format!("projects/{}", "a".repeat(64)));
    bad.push("x/".repeat(50_000));
    bad
}

#[tokio::test]
async fn names_of_scopes_are_checked_wherever_they_stand() {
    let stage = Stage::set().await;
    for bad in no_scopes() {
        let shown: String = bad.chars().take(40).collect();
        let create = secret(&bad, "KEY", "v");
        assert_eq!(stage.field_of("Secrets/CreateSecret", create).await, "parent", "{shown:?}");
        let describe = v1::DescribeEnvironmentRequest { name: bad.clone(), ..Default::default() };
        if !bad.ends_with("servers/s") {
            assert_eq!(stage.field_of("Secrets/DescribeEnvironment", describe).await, "name", "{shown:?}");
        }
        let list = v1::ListSecretsRequest { parent: bad.clone(), ..Default::default() };
        assert_eq!(stage.field_of("Secrets/ListSecrets", list).await, "parent", "{shown:?}");
        let stats = v1::GetSecretStatsRequest { parent: bad.clone() };
        assert_eq!(stage.field_of("Secrets/GetSecretStats", stats).await, "parent", "{shown:?}");
        let import = v1::ImportSecretsRequest { parent: bad.clone(), ..Default::default() };
        assert_eq!(stage.field_of("Imports/ImportSecrets", import).await, "parent", "{shown:?}");
        let delete = v1::DeleteScopeRequest { name: bad.clone(), ..Default::default() };
        assert_eq!(stage.field_of("Scopes/DeleteScope", delete).await, "name", "{shown:?}");
        let access = v1::ListEffectiveAccessRequest { scope: bad.clone(), ..Default::default() };
        assert_eq!(stage.field_of("Access/ListEffectiveAccess", access).await, "scope", "{shown:?}");
        let get = v1::GetSecretRequest { name: format!("{bad}/secrets/KEY") };
        assert_eq!(stage.field_of("Secrets/GetSecret", get).await, "name", "{shown:?}");
        let fetch = v1::FetchEnvironmentRequest { workload: format!("{bad}/servers/s"), ..Default::default() };
        assert_eq!(stage.field_of("Workloads/FetchEnvironment", fetch).await, "workload", "{shown:?}");
    }
}

#[tokio::test]
async fn a_wildcard_stands_only_where_it_may() {
    let stage = Stage::set().await;
    assert_eq!(stage.field_of("Secrets/CreateSecret", secret("projects/-", "KEY", "v")).await, "parent");
    let name = "accounts/-/plugins/g/secrets/KEY".to_owned();
    assert_eq!(stage.field_of("Secrets/GetSecret", v1::GetSecretRequest { name: name.clone() }).await, "name");
    let delete = v1::DeleteSecretRequest { name: format!("{PROJECT}/secrets/-"), ..Default::default() };
    assert_eq!(stage.field_of("Secrets/DeleteSecret", delete).await, "name");
    let update = v1::UpdateSecretRequest { name, description: Some("x".into()), ..Default::default() };
    assert_eq!(stage.field_of("Secrets/UpdateSecret", update).await, "name");
    let describe = v1::DescribeEnvironmentRequest { name: "projects/-".into(), ..Default::default() };
    assert_eq!(stage.field_of("Secrets/DescribeEnvironment", describe).await, "name");
    let delete = v1::DeleteScopeRequest { name: "projects/-".into(), ..Default::default() };
    assert_eq!(stage.field_of("Scopes/DeleteScope", delete).await, "name");
    let fetch = v1::FetchEnvironmentRequest { workload: "projects/p/servers/-".into(), ..Default::default() };
    assert_eq!(stage.field_of("Workloads/FetchEnvironment", fetch).await, "workload");
    let issue = v1::IssueTokenRequest { principal: "users/-".into(), ..Default::default() };
    assert_eq!(stage.field_of("Tokens/IssueToken", issue).await, "principal");
    let clone = v1::CloneSecretsRequest {
        names: vec!["accounts/-/plugins/g/secrets/KEY".into()],
        destination: PROJECT.into(),
        ..Default::default()
    };
    assert!(stage.field_of("Secrets/CloneSecrets", clone).await.starts_with("names"));
    let clone = v1::CloneSecretsRequest {
        names: vec![format!("{PROJECT}/secrets/-")],
        destination: "projects/-".into(),
        ..Default::default()
    };
    assert_eq!(stage.field_of("Secrets/CloneSecrets", clone).await, "destination");
}

#[tokio::test]
async fn values_and_descriptions_have_limits() {
    let stage = Stage::set().await;
    let create = |value: &[u8], description: &str| v1::CreateSecretRequest {
        value: value.to_vec(),
        description: description.to_owned(),
        ..secret(PROJECT, "KEY", "")
    };
    for bad in [&b"\xff\xfe"[..], b"a\0b", b"", &[b'x'; 65 * 1024], &[b'x'; 64 * 1024 + 1]] {
        assert_eq!(stage.field_of("Secrets/CreateSecret", create(bad, "")).await, "value");
    }
    let long = "d".repeat(1025);
    assert_eq!(stage.field_of("Secrets/CreateSecret", create(b"v", &long)).await, "description");
    stage.call("Secrets/CreateSecret", create(&[b'x'; 64 * 1024], &long[1..])).await.expect("the longest pass");
    let update = v1::UpdateSecretRequest {
        name: format!("{PROJECT}/secrets/KEY"),
        value: Some(b"a\0".to_vec()),
        ..Default::default()
    };
    assert_eq!(stage.field_of("Secrets/UpdateSecret", update).await, "value");
}

#[tokio::test]
async fn settings_stand_only_on_scopes_that_have_them() {
    let stage = Stage::set().await;
    let locked = v1::CreateSecretRequest { locked: true, ..secret("organizations/o/workspaces/w", "KEY", "v") };
    assert_eq!(stage.field_of("Secrets/CreateSecret", locked).await, "locked");
    let shared = v1::CreateSecretRequest { sharing: Some(v1::Sharing::default()), ..secret(PROJECT, "KEY", "v") };
    assert_eq!(stage.field_of("Secrets/CreateSecret", shared).await, "sharing");
    let kind = v1::CreateSecretRequest { kind: 7, ..secret(PROJECT, "KEY", "v") };
    assert_eq!(stage.field_of("Secrets/CreateSecret", kind).await, "kind");
    for bad in ["organizations/other/workspaces/w", "organizations/o", "w", "organizations/o/workspaces/-", ""] {
        let sharing = v1::Sharing { mode: v1::sharing::Mode::Only.into(), workspaces: vec![bad.to_owned()] };
        let request = v1::CreateSecretRequest { sharing: Some(sharing), ..secret("organizations/o", "KEY", "v") };
        let field = stage.field_of("Secrets/CreateSecret", request).await;
        assert!(field.starts_with("sharing"), "{bad:?}: {field}");
    }
    for bad in ["", "a b", "http://x", "*", "*.", "a/b", "ä.example", &"x".repeat(300)] {
        let allowed_hosts = vec![bad.to_owned()];
        let request = v1::CreateSecretRequest { allowed_hosts, ..secret(PROJECT, "KEY", "v") };
        let field = stage.field_of("Secrets/CreateSecret", request).await;
        assert!(field.starts_with("allowed_hosts"), "{bad:?}: {field}");
    }
}

#[tokio::test]
async fn page_tokens_belong_to_their_call() {
    let stage = Stage::set().await;
    for name in ["A", "B", "C"] {
        stage.call("Secrets/CreateSecret", secret(PROJECT, name, "v")).await.expect("created");
    }
    let list = |parent: &str, page_token: &str| v1::ListSecretsRequest {
        parent: parent.to_owned(),
        page_size: 1,
        page_token: page_token.to_owned(),
    };
    let first = stage.call("Secrets/ListSecrets", list(PROJECT, "")).await.expect("a page");
    let token = v1::ListSecretsResponse::decode(&first[..]).expect("its own").next_page_token;
    assert!(stage.call("Secrets/ListSecrets", list(PROJECT, &token)).await.is_ok());
    let other_calls = [
        stage.call("Secrets/ListSecrets", list("projects/-", &token)).await,
        stage.call("Secrets/ListSecrets", list("organizations/o", &token)).await,
        stage.call("Secrets/ListSecrets", list(PROJECT, "rubbish")).await,
        stage.call("Secrets/ListSecrets", list(PROJECT, &"A".repeat(10_000))).await,
        stage.call("Secrets/ListSecrets", list(PROJECT, "ä\0")).await,
        stage.call("Secrets/ListSecrets", list(PROJECT, &token[1..])).await,
        stage
            .call(
                "Secrets/DescribeEnvironment",
                v1::DescribeEnvironmentRequest {
                    name: PROJECT.into(),
                    page_token: token.clone(),
                    ..Default::default()
                },
            )
            .await,
        stage
            .call("Access/ListGrants", v1::ListGrantsRequest { page_token: token.clone(), ..Default::default() })
            .await,
        stage
            .call("Scopes/ListScopes", v1::ListScopesRequest { page_token: token.clone(), ..Default::default() })
            .await,
        stage.call("Tokens/ListTokens", v1::ListTokensRequest { page_token: token, ..Default::default() }).await,
    ];
    for answer in other_calls {
        assert_eq!(refused(answer).why(), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
    }
    let negative = v1::ListSecretsRequest { page_size: -1, ..list(PROJECT, "") };
    assert_eq!(stage.field_of("Secrets/ListSecrets", negative).await, "page_size");
}

#[tokio::test]
async fn grants_are_never_wider_than_the_granters() {
    let stage = Stage::set().await;
    let grant = |principal: &str, permission: &str, pattern: &str| v1::CreateGrantRequest {
        principal: principal.to_owned(),
        permission: permission.to_owned(),
        pattern: pattern.to_owned(),
    };
    for wide in
        ["projects/-", "projects/other", "accounts/a", "organizations/o/workspaces/-", "projects/p/environments/e"]
    {
        let refusal = refused(stage.call("Access/CreateGrant", grant("users/x", "secrets:read", wide)).await);
        assert_eq!(refusal.code, Code::PermissionDenied, "{wide}");
    }
    for (principal, permission, pattern, field) in [
        ("users/x", "secrets:inject", PROJECT, "principal"),
        ("users/x", "workloads:issue", PROJECT, "principal"),
        ("users/x", "secrets:everything", PROJECT, "permission"),
        ("users/x", "", PROJECT, "permission"),
        ("users/-", "secrets:read", PROJECT, "principal"),
        ("robots/x", "secrets:read", PROJECT, "principal"),
        ("", "secrets:read", PROJECT, "principal"),
        ("projects/p/servers/s", "secrets:read", PROJECT, "principal"),
        ("users/x", "secrets:read", "", "pattern"),
        ("users/x", "secrets:read", "projects/p/servers/s", "pattern"),
        ("users/x", "secrets:read", "projects/*", "pattern"),
    ] {
        let refusal = refused(stage.call("Access/CreateGrant", grant(principal, permission, pattern)).await);
        let named = (refusal.code, refusal.field());
        assert_eq!(named, (Code::InvalidArgument, field), "{principal} {permission} {pattern}");
    }
    let twice = grant("users/x", "secrets:read", PROJECT);
    stage.call("Access/CreateGrant", twice.clone()).await.expect("granted");
    assert_eq!(refused(stage.call("Access/CreateGrant", twice).await).why(), (Code::AlreadyExists, "GRANT_EXISTS"));
}

#[tokio::test]
async fn tokens_have_limits_and_odd_headers_are_refused() {
    let stage = Stage::set().await;
    let operator = stage.server.operator();
    let seconds = |seconds: i64, nanos: i32| Some(prost_types::Duration { seconds, nanos });
    for (principal, ttl) in [
        ("users/x", seconds(0, 0)),
        ("users/x", seconds(-1, 0)),
        ("users/x", seconds(367 * 86_400, 0)),
        ("users/x", seconds(i64::MAX, 0)),
        ("users/x", seconds(i64::MIN, i32::MIN)),
        ("users/x", seconds(0, 999_999_999)),
    ] {
        let request = v1::IssueTokenRequest { principal: principal.into(), ttl, ..Default::default() };
        let refusal = refused(operator.tokens().issue_token(request).await);
        assert_eq!((refusal.code, refusal.field()), (Code::InvalidArgument, "ttl"), "{ttl:?}");
    }
    let description = "d".repeat(201);
    let request = v1::IssueTokenRequest { principal: "users/x".into(), description, ..Default::default() };
    assert_eq!(refused(operator.tokens().issue_token(request).await).field(), "description");

    let list = v1::ListScopesRequest::default().encode_to_vec();
    let good = stage.token.clone();
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        &good,
        &format!("Bearer {good} x"),
        &format!("Bearer {good}{good}"),
    ] {
        let answer = stage.raw.call_with("/coffer.v1.Scopes/ListScopes", Some(header.as_bytes()), list.clone()).await;
        assert_eq!(refused(answer).code, Code::Unauthenticated, "{} bytes", header.len());
    }
    let huge = format!("Bearer {}", "x".repeat(7000));
    for header in [&b"Bearer \xff\xfe"[..], huge.as_bytes()] {
        let answer = stage.raw.call_with("/coffer.v1.Scopes/ListScopes", Some(header), list.clone()).await;
        let code = answer.expect_err("no good header").code();
        assert!(matches!(code, Code::Unauthenticated | Code::Internal | Code::Unavailable), "{code:?}");
    }
}

#[tokio::test]
async fn messages_too_large_or_no_messages_at_all_are_refused() {
    let stage = Stage::set().await;
    let big = v1::CreateSecretRequest { description: "x".repeat(5 << 20), ..secret(PROJECT, "KEY", "v") };
    let status = stage.call("Secrets/CreateSecret", big).await.expect_err("5 MiB");
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted | Code::Internal), "{status:?}");
    let middle = v1::CreateSecretRequest { description: "x".repeat(300 << 10), ..secret(PROJECT, "KEY", "v") };
    let status = stage.call("Secrets/CreateSecret", middle).await.expect_err("300 KiB");
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "over 256 KiB: {status:?}");
    let entries = |count: usize| v1::ImportSecretsRequest {
        parent: PROJECT.into(),
        entries: (0..count)
            .map(|n| v1::ImportEntry {
                secret_id: format!("E{n}"),
                value: vec![b'x'; 60_000],
                kind: SecretKind::Encrypted.into(),
                description: None,
            })
            .collect(),
        ..Default::default()
    };
    let status = stage.call("Imports/ImportSecrets", entries(80)).await.expect_err("4.8 MB");
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted | Code::Internal), "{status:?}");
    let full = refused(stage.call("Imports/ImportSecrets", entries(10)).await);
    assert_eq!(full.why(), (Code::FailedPrecondition, "SCOPE_FULL"), "600 KB of values in a scope of 512 KiB");

    for rubbish in [&b"\xff"[..], &[0x0a, 0xff, 0xff, 0xff, 0x7f], b"\x0a\x02\xff\xfe", &[0xff; 1000]] {
        for method in ["Secrets/CreateSecret", "Access/CreateGrant", "Workloads/FetchEnvironment"] {
            let method = format!("/coffer.v1.{method}");
            let answer = stage.raw.call(&method, Some(&stage.token), rubbish.to_vec()).await;
            assert!(answer.is_err(), "{method}");
        }
    }
    let unknown = stage.raw.call("/coffer.v1.Secrets/Reveal", Some(&stage.token), Vec::new()).await;
    assert_eq!(unknown.expect_err("no such method").code(), Code::Unimplemented);
    stage.call("Secrets/CreateSecret", secret(PROJECT, "STILL_HERE", "v")).await.expect("it goes on");
}

#[tokio::test]
async fn imports_and_clones_name_the_entry_that_is_wrong() {
    let stage = Stage::set().await;
    let entry = |id: &str, value: &[u8]| v1::ImportEntry {
        secret_id: id.to_owned(),
        value: value.to_vec(),
        ..Default::default()
    };
    let import = |entries: Vec<v1::ImportEntry>| v1::ImportSecretsRequest {
        parent: PROJECT.into(),
        entries,
        ..Default::default()
    };
    let cases = [
        (vec![entry("GOOD", b"v"), entry("bad", b"v")], "entries[1].secret_id"),
        (vec![entry("GOOD", b"v"), entry("EMPTY", b"")], "entries[1].value"),
        (vec![entry("PATH", b"v")], "entries[0].secret_id"),
        (vec![entry("TWICE", b"v"), entry("TWICE", b"w")], "entries[1].secret_id"),
    ];
    for (entries, field) in cases {
        assert_eq!(stage.field_of("Imports/ImportSecrets", import(entries)).await, field);
    }
    let many = (0..1001).map(|n| entry(&format!("E{n}"), b"v")).collect();
    assert_eq!(stage.field_of("Imports/ImportSecrets", import(many)).await, "entries");
    let clone = |names: &[&str]| v1::CloneSecretsRequest {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        destination: "organizations/o".into(),
        ..Default::default()
    };
    assert_eq!(stage.field_of("Secrets/CloneSecrets", clone(&[])).await, "names");
    stage.call("Secrets/CreateSecret", secret(PROJECT, "A", "v")).await.expect("created");
    stage.call("Secrets/CreateSecret", secret("accounts/a/plugins/g", "A", "v")).await.expect("created");
    let twice = clone(&["projects/p/secrets/A", "accounts/a/plugins/g/secrets/A"]);
    assert!(stage.field_of("Secrets/CloneSecrets", twice).await.starts_with("names"));
    let count = stage.call("Secrets/GetSecretStats", v1::GetSecretStatsRequest { parent: PROJECT.into() }).await;
    let stats = v1::SecretStats::decode(&count.expect("stats")[..]).expect("its own");
    assert_eq!(stats.total, 1, "nothing of a refused import stays");
}

#[tokio::test]
async fn no_error_repeats_what_was_sent() {
    let stage = Stage::set().await;
    let pasted = "hunter2-pasted-into-the-wrong-field";
    let requests: Vec<(&str, Vec<u8>)> = vec![
        ("Secrets/CreateSecret", secret(PROJECT, pasted, "v").encode_to_vec()),
        ("Secrets/CreateSecret", secret(pasted, "KEY", "v").encode_to_vec()),
        ("Secrets/CreateSecret", secret(PROJECT, "PATH", pasted).encode_to_vec()),
        ("Secrets/CreateSecret", secret(PROJECT, "KEY", &format!("{pasted}\0")).encode_to_vec()),
        ("Secrets/GetSecret", v1::GetSecretRequest { name: pasted.into() }.encode_to_vec()),
        (
            "Secrets/UpdateSecret",
            v1::UpdateSecretRequest {
                name: format!("{PROJECT}/secrets/NONE"),
                value: Some(pasted.into()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        ("Tokens/IssueToken", v1::IssueTokenRequest { principal: pasted.into(), ..Default::default() }.encode_to_vec()),
        (
            "Workloads/FetchEnvironment",
            v1::FetchEnvironmentRequest { workload: pasted.into(), ..Default::default() }.encode_to_vec(),
        ),
    ];
    for (method, request) in requests {
        let result = stage.raw.call(&format!("/coffer.v1.{method}"), Some(&stage.token), request).await;
        let status = result.expect_err("refused");
        let refusal = Refusal::of(&status);
        let all = format!("{status:?} {refusal:?}");
        assert!(!all.contains(pasted), "{method} repeats it");
        let bytes = status.details();
        assert!(!crate::harness::holds(bytes, pasted.as_bytes()), "{method} repeats it in its details");
    }
    assert!(!stage.server.log().contains(pasted), "nor does the log");
}
