//! Account secrets for agent sandboxes: each account's own, injected into an ephemeral sandbox.

use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, refused, secret};

#[tokio::test]
async fn an_accounts_owner_needs_no_grant_and_no_one_else_gets_in() {
    let server = Server::start();
    let ada = server.with("users/ada", &[]).await;
    let eve = server.with("users/eve", &[]).await;
    let request = v1::CreateSecretRequest {
        description: "X/Twitter API Bearer Token for search and mentions".into(),
        ..secret("accounts/ada", "X_BEARER_TOKEN", "AAAAAAAAAAAAAAAAAAAAAXXXX")
    };
    let created = ada.secrets().create_secret(request).await.expect("created").into_inner();
    assert_eq!(created.hint, "AAAA…XXXX");
    assert!(created.create_time.is_some());

    let list = v1::ListSecretsRequest { parent: "accounts/ada".into(), ..Default::default() };
    assert_eq!(refused(eve.secrets().list_secrets(list).await).code, Code::PermissionDenied);
    let all = v1::ListSecretsRequest { parent: "accounts/-".into(), ..Default::default() };
    assert!(eve.secrets().list_secrets(all.clone()).await.expect("what she may read").into_inner().secrets.is_empty());
    assert_eq!(ada.secrets().list_secrets(all).await.expect("her own").into_inner().secrets.len(), 1);
    // The same id as a service or another account is somebody else.
    let service = server.with("services/ada", &[]).await;
    assert!(service.secrets().create_secret(secret("accounts/ada", "X", "x")).await.is_err());
}

#[tokio::test]
async fn all_of_an_accounts_secrets_reach_its_sandboxes_only() {
    let server = Server::start();
    let ada = server.with("users/ada", &[]).await;
    let eve = server.with("users/eve", &[]).await;
    for (name, value) in [("NOTION_API_KEY", "n"), ("X_BEARER_TOKEN", "x")] {
        ada.secrets().create_secret(secret("accounts/ada", name, value)).await.expect("created");
    }
    eve.secrets().create_secret(secret("accounts/eve", "EVES", "e")).await.expect("created");
    let names = |got: Vec<(String, String)>| got.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(server.environment("accounts/ada/sandboxes/s1").await), ["NOTION_API_KEY", "X_BEARER_TOKEN"]);
    assert_eq!(names(server.environment("accounts/eve/sandboxes/s1").await), ["EVES"]);

    let token = server.workload_token("accounts/ada/sandboxes/s1").await;
    for other in ["accounts/eve/sandboxes/s1", "accounts/ada/sandboxes/s2", "accounts/ada/servers/s1"] {
        let request = v1::FetchEnvironmentRequest { workload: other.into(), ..Default::default() };
        let refusal = refused(server.client(&token).workloads().fetch_environment(request).await);
        assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"), "{other}");
    }
}

#[tokio::test]
async fn the_owner_manages_but_never_sees_a_value_again_nor_fetches_one() {
    let server = Server::start();
    let ada = server.with("users/ada", &[]).await;
    ada.secrets().create_secret(secret("accounts/ada", "KEY", "v")).await.expect("created");
    let request = v1::FetchEnvironmentRequest { workload: "accounts/ada/sandboxes/s".into(), ..Default::default() };
    assert_eq!(refused(ada.workloads().fetch_environment(request).await).code, Code::PermissionDenied);
    let request = v1::IssueTokenRequest { principal: "accounts/ada/sandboxes/s".into(), ..Default::default() };
    assert_eq!(refused(ada.tokens().issue_token(request).await).code, Code::PermissionDenied);
    let grant = v1::CreateGrantRequest {
        principal: "users/eve".into(),
        permission: "secrets:read".into(),
        pattern: "accounts/ada".into(),
    };
    assert_eq!(
        refused(ada.access().create_grant(grant).await).code,
        Code::PermissionDenied,
        "read and manage, no more"
    );
}
