//! Without rights, absent and forbidden cannot be told apart: the same call on something that exists and on something
//! that does not is answered with the same bytes.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coffer_proto::v1::{self, SecretKind};
use prost::Message as _;

use super::truth::naming_methods;
use crate::harness::{Raw, Server, holds, refused, secret};

const EXISTS: &str = "projects/exists";
const ABSENT: &str = "projects/absent";

/// Every method that names something, on a scope that exists and on one that does not.
fn pairs(grants: [&str; 2], tokens: [&str; 2]) -> Vec<(&'static str, [Vec<u8>; 2])> {
    let both = |encode: &dyn Fn(&str) -> Vec<u8>| [EXISTS, ABSENT].map(encode);
    let name = |scope: &str| format!("{scope}/secrets/KEY");
    let conflict = v1::import_secrets_request::Conflict::Fail;
    vec![
        ("Secrets/CreateSecret", both(&|s| secret(s, "KEY", "v").encode_to_vec())),
        ("Secrets/CreateSecret", both(&|s| secret(s, "bad", "").encode_to_vec())),
        ("Secrets/GetSecret", both(&|s| v1::GetSecretRequest { name: name(s) }.encode_to_vec())),
        (
            "Secrets/ListSecrets",
            both(&|s| v1::ListSecretsRequest { parent: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Secrets/UpdateSecret",
            both(&|s| v1::UpdateSecretRequest { name: name(s), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Secrets/UpdateSecret",
            both(&|s| {
                let kind = SecretKind::Plain.into();
                v1::UpdateSecretRequest { name: name(s), kind, etag: "x".into(), ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "Secrets/DeleteSecret",
            both(&|s| v1::DeleteSecretRequest { name: name(s), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Secrets/DeleteSecret",
            both(&|s| v1::DeleteSecretRequest { name: name(s), etag: "x".into(), force: true }.encode_to_vec()),
        ),
        (
            "Secrets/CloneSecrets",
            both(&|s| {
                let destination = "projects/mine".into();
                v1::CloneSecretsRequest { names: vec![name(s)], destination, ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "Secrets/CloneSecrets",
            both(&|s| {
                let names = vec![format!("{s}/secrets/-")];
                v1::CloneSecretsRequest { names, destination: "projects/mine".into(), ..Default::default() }
                    .encode_to_vec()
            }),
        ),
        (
            "Secrets/CloneSecrets",
            both(&|s| {
                let names = vec!["projects/mine/secrets/KEY".into()];
                v1::CloneSecretsRequest { names, destination: s.into(), ..Default::default() }.encode_to_vec()
            }),
        ),
        ("Secrets/GetSecretStats", both(&|s| v1::GetSecretStatsRequest { parent: s.into() }.encode_to_vec())),
        (
            "Secrets/DescribeEnvironment",
            both(&|s| v1::DescribeEnvironmentRequest { name: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Secrets/DescribeEnvironment",
            both(&|s| {
                v1::DescribeEnvironmentRequest { name: format!("{s}/environments/e/servers/x"), ..Default::default() }
                    .encode_to_vec()
            }),
        ),
        (
            "Imports/ImportSecrets",
            both(&|s| {
                let entries =
                    vec![v1::ImportEntry { secret_id: "KEY".into(), value: b"v".to_vec(), ..Default::default() }];
                v1::ImportSecretsRequest {
                    parent: s.into(),
                    entries,
                    conflict: conflict.into(),
                    validate_only: true,
                    sharing: None,
                }
                .encode_to_vec()
            }),
        ),
        (
            "Scopes/GetScopeHealth",
            both(&|s| {
                v1::GetScopeHealthRequest { scope: s.into(), stale_days: -1, ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "References/SetReference",
            both(&|s| {
                let variables = vec!["KEY".into()];
                v1::SetReferenceRequest { name: format!("{s}/references/r"), variables, ..Default::default() }
                    .encode_to_vec()
            }),
        ),
        (
            "References/ListReferences",
            both(&|s| v1::ListReferencesRequest { parent: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "References/DeleteReference",
            both(&|s| v1::DeleteReferenceRequest { name: format!("{s}/references/tool") }.encode_to_vec()),
        ),
        (
            "Manifests/SetManifest",
            both(&|s| {
                v1::SetManifestRequest { name: format!("{s}/manifests/m"), ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "Manifests/ListManifests",
            both(&|s| v1::ListManifestsRequest { parent: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Manifests/DeleteManifest",
            both(&|s| v1::DeleteManifestRequest { name: format!("{s}/manifests/tool") }.encode_to_vec()),
        ),
        (
            "Scopes/DeleteScope",
            both(&|s| v1::DeleteScopeRequest { name: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        ("Scopes/DeleteScope", both(&|s| v1::DeleteScopeRequest { name: s.into(), uid: "x".into() }.encode_to_vec())),
        (
            "Scopes/ListScopes",
            both(&|s| v1::ListScopesRequest { pattern: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Access/CreateGrant",
            both(&|s| {
                let (principal, permission) = ("users/reader".into(), "secrets:read".into());
                v1::CreateGrantRequest { principal, permission, pattern: s.into() }.encode_to_vec()
            }),
        ),
        (
            "Access/ListGrants",
            both(&|s| v1::ListGrantsRequest { pattern: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Access/ListEffectiveAccess",
            both(&|s| v1::ListEffectiveAccessRequest { scope: s.into(), ..Default::default() }.encode_to_vec()),
        ),
        (
            "Access/TestPermissions",
            both(&|s| {
                v1::TestPermissionsRequest { resource: s.into(), permissions: vec!["secrets:read".into()] }
                    .encode_to_vec()
            }),
        ),
        ("Access/DeleteGrant", grants.map(|name| v1::DeleteGrantRequest { name: name.into() }.encode_to_vec())),
        (
            "Tokens/IssueToken",
            both(&|s| {
                v1::IssueTokenRequest { principal: format!("{s}/servers/x"), ..Default::default() }.encode_to_vec()
            }),
        ),
        // It names nothing but its own token.
        ("Tokens/ExchangeStartToken", both(&|_| v1::ExchangeStartTokenRequest { nonce: vec![7; 32] }.encode_to_vec())),
        (
            "Tokens/ListTokens",
            both(&|s| {
                v1::ListTokensRequest { principal: format!("{s}/servers/x"), ..Default::default() }.encode_to_vec()
            }),
        ),
        ("Tokens/RevokeToken", tokens.map(|name| v1::RevokeTokenRequest { name: name.into() }.encode_to_vec())),
        (
            "Workloads/WatchEnvironment",
            both(&|s| {
                let (workload, environment_revision) = (format!("{s}/servers/x"), "f".repeat(65));
                v1::WatchEnvironmentRequest { workload, environment_revision }.encode_to_vec()
            }),
        ),
        (
            "Instances/ListInstances",
            both(&|s| {
                v1::ListInstancesRequest { parent: s.into(), page_size: -1, ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "Instances/ListInstances",
            both(&|s| {
                v1::ListInstancesRequest { parent: format!("{s}/servers/x"), ..Default::default() }.encode_to_vec()
            }),
        ),
        ("Instances/WatchInstances", both(&|s| v1::WatchInstancesRequest { parent: s.into() }.encode_to_vec())),
        (
            "Workloads/FetchEnvironment",
            both(&|s| {
                v1::FetchEnvironmentRequest { workload: format!("{s}/servers/x"), ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "Templates/RenderTemplate",
            both(&|s| {
                let texts = vec!["{{UNKNOWN}}".into()];
                let workload = format!("{s}/servers/x");
                v1::RenderTemplateRequest { workload, texts, ..Default::default() }.encode_to_vec()
            }),
        ),
        (
            "Redactions/RedactText",
            both(&|s| {
                let workload = format!("{s}/servers/x");
                v1::RedactTextRequest { workload, texts: vec!["x".into()] }.encode_to_vec()
            }),
        ),
        (
            "Redactions/RedactStream",
            both(&|s| {
                let workload = format!("{s}/servers/x");
                v1::RedactStreamRequest { workload, part: "x".into() }.encode_to_vec()
            }),
        ),
    ]
}

/// Everything a caller can see of an answer but the time it took.
async fn seen(raw: &Raw, method: &str, token: &str, request: &[u8]) -> String {
    match raw.call(&format!("/coffer.v1.{method}"), Some(token), request.to_vec()).await {
        Ok(bytes) => format!("ok {bytes:?}"),
        Err(status) => format!("{:?} {:?} {:?}", status.code(), status.message(), status.details()),
    }
}

#[test]
fn every_method_that_can_name_something_has_a_pair() {
    let paired: BTreeSet<String> = pairs(["grants/a", "grants/b"], ["tokens/a", "tokens/b"])
        .into_iter()
        .map(|(method, _)| method.to_owned())
        .collect();
    assert_eq!(naming_methods(), paired, "a method without a pair may tell what is there");
}

#[tokio::test]
async fn absent_and_forbidden_are_answered_with_the_same_bytes() {
    let server = Server::start();
    let owner = server.manager(&[EXISTS]).await;
    owner.secrets().create_secret(secret(EXISTS, "KEY", "v")).await.expect("created");
    // What uses the secret and what expects it.
    let used = v1::SetReferenceRequest {
        name: format!("{EXISTS}/references/tool"),
        variables: vec!["KEY".into()],
        ..Default::default()
    };
    owner.references().set_reference(used).await.expect("set");
    let expected = v1::ManifestVariable { variable: "KEY".into(), required: true, ..Default::default() };
    let name = format!("{EXISTS}/manifests/tool");
    let expected = v1::SetManifestRequest { name, variables: vec![expected], ..Default::default() };
    owner.manifests().set_manifest(expected).await.expect("set");
    // A grant of somebody else's and a token of somebody else's, beside a grant and a token that never were.
    let request = v1::CreateGrantRequest {
        principal: "users/reader".into(),
        permission: "secrets:read".into(),
        pattern: EXISTS.into(),
    };
    let grant = server.operator().access().create_grant(request).await.expect("made").into_inner().name;
    let absent_grant = format!("{}{}", &grant[..grant.len() - 1], if grant.ends_with('0') { '1' } else { '0' });
    let token = server.workload_token("projects/exists/servers/x").await;
    let token = format!("tokens/{}", token.split('_').nth(2).expect("an id"));
    let absent_token = format!("tokens/{}", "0".repeat(22));

    // Callers with a right somewhere, but none on either of the two.
    let mine =
        server.with("users/mine", &[("secrets:manage", "projects/mine"), ("access:manage", "projects/mine")]).await;
    mine.secrets().create_secret(secret("projects/mine", "KEY", "v")).await.expect("created");
    server.grant("services/mine", "secrets:inject", "projects/mine").await;
    let callers = [
        server.token("users/nobody").await,
        server.token("users/mine").await,
        server.token("services/mine").await,
        server.workload_token("projects/mine/servers/x").await,
    ];
    let raw = server.raw();
    let mut told = Vec::new();
    for caller in &callers {
        for (method, [exists, absent]) in pairs([&grant, &absent_grant], [&token, &absent_token]) {
            let there = seen(&raw, method, caller, &exists).await;
            let not_there = seen(&raw, method, caller, &absent).await;
            if there != not_there {
                told.push(format!("{method}: {there}\n   but {not_there}"));
            }
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
    let left = owner.secrets().get_secret(v1::GetSecretRequest { name: format!("{EXISTS}/secrets/KEY") }).await;
    assert!(left.is_ok(), "and nothing of it happened");
}

#[tokio::test]
async fn with_rights_absent_is_not_found() {
    let server = Server::start();
    let owner = server.manager(&[EXISTS]).await;
    let request = v1::GetSecretRequest { name: format!("{EXISTS}/secrets/NONE") };
    let refusal = refused(owner.secrets().get_secret(request).await);
    assert_eq!(refusal.why(), (tonic::Code::NotFound, "SECRET_NOT_FOUND"));
}

/// The first entry of a list of all plugins, and the token of the next page.
async fn first_page(
    client: &coffer_client::Client,
    list: &str,
    token: String,
) -> Result<(String, String), tonic::Status> {
    const PLUGINS: &str = "accounts/-/plugins/-";
    let (page_size, page_token) = (1, token);
    match list {
        "secrets" => {
            let request = v1::ListSecretsRequest { parent: PLUGINS.into(), page_size, page_token };
            let page = client.secrets().list_secrets(request).await?.into_inner();
            Ok((page.secrets[0].name.clone(), page.next_page_token))
        }
        "scopes" => {
            let request = v1::ListScopesRequest { pattern: PLUGINS.into(), page_size, page_token };
            let page = client.scopes().list_scopes(request).await?.into_inner();
            Ok((page.scopes[0].name.clone(), page.next_page_token))
        }
        _ => {
            let parent = PLUGINS.into();
            let request = v1::ListInstancesRequest { parent, page_size, page_token, ..Default::default() };
            let page = client.instances().list_instances(request).await?.into_inner();
            Ok((page.workloads[0].workload.clone(), page.next_page_token))
        }
    }
}

#[tokio::test]
async fn a_page_that_ends_at_something_hidden_does_not_tell_what_it_is() {
    let long = format!("accounts/m{0}/plugins/hidden{0}", "-long".repeat(11));
    let mut lengths = Vec::new();
    for hidden in ["accounts/m/plugins/hidden", &long] {
        let server = Server::start();
        let scopes = ["accounts/a/plugins/mine", hidden, "accounts/z/plugins/mine"];
        let manager = server.manager(&scopes).await;
        let starter = server.with("services/starter", &[("secrets:inject", "accounts/-/plugins/-")]).await;
        for scope in scopes {
            manager.secrets().create_secret(secret(scope, "KEY", "v")).await.expect("created");
            let request = v1::FetchEnvironmentRequest { workload: format!("{scope}/servers/s"), ..Default::default() };
            starter.workloads().fetch_environment(request).await.expect("started");
        }
        let mine = [("secrets:read", "accounts/-/plugins/mine")];
        let (reader, other) = (server.with("users/reader", &mine).await, server.with("users/other", &mine).await);
        for list in ["secrets", "scopes", "instances"] {
            let (first, token) = first_page(&reader, list, String::new()).await.expect("a page");
            assert!(first.starts_with("accounts/a/"), "{list}: {first}");
            let decoded = URL_SAFE_NO_PAD.decode(&token).expect("base64");
            assert!(!holds(&decoded, b"hidden") && !holds(&decoded, b"accounts"), "{list} tells where it ends");
            lengths.push(token.len());
            let of_another = refused(first_page(&other, list, token.clone()).await);
            assert_eq!(of_another.why().1, "PAGE_TOKEN_INVALID", "{list}");
            let (second, end) = first_page(&reader, list, token).await.expect("a page");
            assert!(second.starts_with("accounts/z/") && end.is_empty(), "{list}: {second}");
        }
    }
    assert!(lengths.iter().all(|length| *length == lengths[0]), "tokens tell the length of names: {lengths:?}");
}
