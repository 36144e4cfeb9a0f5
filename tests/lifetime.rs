//! What ends, ends at once and for good: tokens, grants, scopes; also when the server dies right after.

use std::time::Duration;

use coffer_client::Client;
use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, refused, secret, until_async};

fn token_name(token: &str) -> String {
    format!("tokens/{}", token.split('_').nth(2).expect("an id"))
}

async fn list(client: &Client, parent: &str) -> Result<usize, tonic::Status> {
    let request = v1::ListSecretsRequest { parent: parent.into(), ..Default::default() };
    client.secrets().list_secrets(request).await.map(|answer| answer.into_inner().secrets.len())
}

#[tokio::test]
async fn a_revoked_token_and_a_deleted_grant_are_over_even_if_the_server_dies_right_after() {
    let mut server = Server::start();
    server.grant("users/a", "secrets:read", "projects/p").await;
    let revoked = server.token("users/a").await;
    let kept = server.token("users/a").await;
    assert!(list(&server.client(&revoked), "projects/p").await.is_ok());
    let operator = server.operator();
    operator.tokens().revoke_token(v1::RevokeTokenRequest { name: token_name(&revoked) }).await.expect("revoked");
    let over = refused(list(&server.client(&revoked), "projects/p").await);
    assert_eq!(over.why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    assert!(list(&server.client(&kept), "projects/p").await.is_ok(), "only the one that was named");

    let grants = operator.access().list_grants(v1::ListGrantsRequest::default()).await.expect("listed").into_inner();
    let grant = grants.grants.into_iter().find(|grant| grant.principal == "users/a").expect("it stands");
    operator.access().delete_grant(v1::DeleteGrantRequest { name: grant.name }).await.expect("deleted");
    assert_eq!(refused(list(&server.client(&kept), "projects/p").await).code, Code::PermissionDenied);
    server.kill_and_restart();
    assert_eq!(refused(list(&server.client(&kept), "projects/p").await).code, Code::PermissionDenied);
    assert_eq!(refused(list(&server.client(&revoked), "projects/p").await).code, Code::Unauthenticated);
}

#[tokio::test]
async fn anyone_may_revoke_their_own_token_and_nobody_elses() {
    let server = Server::start();
    let ada = server.token("users/ada").await;
    let eve = server.token("users/eve").await;
    let theft = v1::RevokeTokenRequest { name: token_name(&ada) };
    assert_eq!(refused(server.client(&eve).tokens().revoke_token(theft.clone()).await).code, Code::PermissionDenied);
    server.client(&ada).tokens().revoke_token(theft).await.expect("her own");
    let gone = server.client(&ada).scopes().list_scopes(v1::ListScopesRequest::default()).await;
    assert_eq!(refused(gone).code, Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_ends_when_it_was_said_to() {
    let server = Server::start();
    let token = server.issue(&server.operator(), "users/a", Some(Duration::from_secs(1))).await;
    let client = server.client(&token);
    let list = || async { client.scopes().list_scopes(v1::ListScopesRequest::default()).await };
    list().await.expect("it is valid at first");
    let refusal = until_async("its end", async || list().await.err()).await;
    assert_eq!(refused::<()>(Err(refusal)).why(), (Code::Unauthenticated, "CREDENTIAL_EXPIRED"));
}

#[tokio::test]
async fn a_scope_made_again_revives_nothing_of_the_deleted_one() {
    let server = Server::start();
    let scope = "projects/p";
    let manager = server.manager(&[scope]).await;
    manager.secrets().create_secret(secret(scope, "OLD", "v")).await.expect("created");
    let workload = server.workload_token("projects/p/servers/s").await;
    let keeper = server.with("services/keeper", &[("access:manage", scope)]).await;
    let list_scopes = async || {
        let request = v1::ListScopesRequest { pattern: scope.into(), ..Default::default() };
        let client = server.with("users/reader", &[("secrets:read", scope)]).await;
        client.scopes().list_scopes(request).await.expect("listed").into_inner().scopes
    };
    let uid = list_scopes().await.remove(0).uid;
    let stale = v1::DeleteScopeRequest { name: scope.into(), uid: "0".repeat(32) };
    assert_eq!(refused(keeper.scopes().delete_scope(stale).await).why(), (Code::Aborted, "ETAG_MISMATCH"));
    let delete = v1::DeleteScopeRequest { name: scope.into(), uid: uid.clone() };
    let deleted = keeper.scopes().delete_scope(delete).await.expect("deleted").into_inner();
    assert_eq!(deleted.secrets_deleted, 1);

    // Made again, by a grant and a secret.
    let again = server.with("users/again", &[("secrets:manage", scope)]).await;
    again.secrets().create_secret(secret(scope, "NEW", "v")).await.expect("created");
    assert_ne!(list_scopes().await.remove(0).uid, uid);
    let fetch = server.client(&workload).workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    assert_eq!(refused(fetch).code, Code::Unauthenticated, "the token of its workload");
    assert_eq!(refused(list(&manager, scope).await).code, Code::PermissionDenied, "the grant of its manager");
    let name = format!("{scope}/secrets/OLD");
    assert_eq!(refused(again.secrets().get_secret(v1::GetSecretRequest { name }).await).code, Code::NotFound);
    assert_eq!(server.environment("projects/p/servers/s").await, [("NEW".to_owned(), "v".to_owned())]);
}

#[tokio::test]
async fn a_scope_with_scopes_below_it_is_not_deleted() {
    let server = Server::start();
    let below = "projects/p/environments/e";
    let manager = server.manager(&["projects/p", below]).await;
    manager.secrets().create_secret(secret(below, "KEY", "v")).await.expect("created");
    let keeper = server.with("services/keeper", &[("access:manage", "projects/p"), ("access:manage", below)]).await;
    let delete = async |name: &str| {
        keeper.scopes().delete_scope(v1::DeleteScopeRequest { name: name.into(), uid: String::new() }).await
    };
    assert_eq!(refused(delete("projects/p").await).why(), (Code::FailedPrecondition, "SCOPE_NOT_EMPTY"));
    assert_eq!(list(&manager, below).await.expect("it stands"), 1);
    delete(below).await.expect("deleted");
    delete("projects/p").await.expect("deleted");
}

#[tokio::test]
async fn a_scope_has_room_for_a_thousand_secrets() {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    for part in 0..5 {
        let entries = (0..200).map(|n| v1::ImportEntry {
            secret_id: format!("S_{}", part * 200 + n),
            value: b"v".to_vec(),
            ..Default::default()
        });
        let request =
            v1::ImportSecretsRequest { parent: "projects/p".into(), entries: entries.collect(), ..Default::default() };
        manager.imports().import_secrets(request).await.expect("imported");
    }
    let refusal = refused(manager.secrets().create_secret(secret("projects/p", "ONE_MORE", "v")).await);
    assert_eq!(refusal.why(), (Code::FailedPrecondition, "SCOPE_FULL"));
    let delete = v1::DeleteSecretRequest { name: "projects/p/secrets/S_0".into(), ..Default::default() };
    manager.secrets().delete_secret(delete).await.expect("deleted");
    manager.secrets().create_secret(secret("projects/p", "ONE_MORE", "v")).await.expect("there is room again");
}
