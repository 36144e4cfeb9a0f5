//! Organization and workspace secrets: set by administrators, shared with all or chosen workspaces, read-only from
//! below, available at the next start.

use coffer_client::Client;
use coffer_proto::v1::{self, SecretKind, environment_entry::State, sharing::Mode};
use tonic::Code;

use crate::harness::{Server, refused, secret};

const ORG: &str = "organizations/tide";
const RED: &str = "organizations/tide/workspaces/red";
const BLUE: &str = "organizations/tide/workspaces/blue";

fn only(workspaces: &[&str]) -> Option<v1::Sharing> {
    let workspaces = workspaces.iter().map(|w| (*w).to_owned()).collect();
    Some(v1::Sharing { mode: Mode::Only.into(), workspaces })
}

async fn administrator(server: &Server) -> Client {
    server.with("users/admin", &[("secrets:manage", ORG)]).await
}

async fn owner_of_red(server: &Server) -> Client {
    server.with("users/red", &[("secrets:manage", RED)]).await
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn organization_secrets_reach_all_workspaces_or_the_chosen_ones() {
    let server = Server::start();
    let admin = administrator(&server).await;
    let everywhere = admin.secrets().create_secret(secret(ORG, "EVERYWHERE", "1")).await.expect("created").into_inner();
    assert_eq!(everywhere.sharing.expect("an organization's").mode(), Mode::All);
    for (name, workspaces) in [("ONLY_RED", &[RED][..]), ("NOBODY", &[])] {
        let request = v1::CreateSecretRequest { sharing: only(workspaces), ..secret(ORG, name, name) };
        let created = admin.secrets().create_secret(request).await.expect("created").into_inner();
        assert_eq!(created.sharing.expect("an organization's").workspaces, workspaces);
    }
    let red = server.environment("organizations/tide/workspaces/red/servers/s").await;
    assert_eq!(red, pairs(&[("EVERYWHERE", "1"), ("ONLY_RED", "ONLY_RED")]));
    let blue = server.environment("organizations/tide/workspaces/blue/servers/s").await;
    assert_eq!(blue, pairs(&[("EVERYWHERE", "1")]));

    let name = format!("{ORG}/secrets/ONLY_RED");
    let share = v1::UpdateSecretRequest { name, sharing: only(&[BLUE]), ..Default::default() };
    admin.secrets().update_secret(share).await.expect("shared anew");
    assert_eq!(server.environment("organizations/tide/workspaces/red/servers/s").await, pairs(&[("EVERYWHERE", "1")]));
    let blue = server.environment("organizations/tide/workspaces/blue/servers/s").await;
    assert_eq!(blue, pairs(&[("EVERYWHERE", "1"), ("ONLY_RED", "ONLY_RED")]));
}

#[tokio::test]
async fn a_workspace_sees_name_and_scope_of_what_it_inherits_and_cannot_touch_it() {
    let server = Server::start();
    let admin = administrator(&server).await;
    let shared = v1::CreateSecretRequest {
        description: "of the organization".into(),
        ..secret(ORG, "SHARED", "sk-0123456789abcdefghij")
    };
    admin.secrets().create_secret(shared).await.expect("created");
    let hidden = v1::CreateSecretRequest { sharing: only(&[BLUE]), ..secret(ORG, "FOR_BLUE", "x") };
    admin.secrets().create_secret(hidden).await.expect("created");
    let red = owner_of_red(&server).await;
    red.secrets().create_secret(secret(RED, "OWN", "y")).await.expect("created");

    let request = v1::DescribeEnvironmentRequest { name: RED.into(), ..Default::default() };
    let seen = red.secrets().describe_environment(request.clone()).await.expect("described").into_inner().entries;
    let rows: Vec<_> = seen.iter().map(|e| (e.variable.as_str(), e.source.as_str(), e.kind(), e.state())).collect();
    let own = format!("{RED}/secrets/OWN");
    let inherited = format!("{ORG}/secrets/SHARED");
    assert_eq!(
        rows,
        [
            ("OWN", own.as_str(), SecretKind::Encrypted, State::Effective),
            ("SHARED", inherited.as_str(), SecretKind::Encrypted, State::Effective),
        ],
        "what is not shared is not shown"
    );
    assert!(seen[0].secret.is_some(), "its own in full");
    assert!(seen[1].secret.is_none(), "of the organization's nothing but name, scope and kind");

    let update = v1::UpdateSecretRequest { name: inherited.clone(), value: Some(b"z".to_vec()), ..Default::default() };
    assert_eq!(refused(red.secrets().update_secret(update).await).code, Code::PermissionDenied);
    let delete = v1::DeleteSecretRequest { name: inherited, ..Default::default() };
    assert_eq!(refused(red.secrets().delete_secret(delete).await).code, Code::PermissionDenied);

    server.grant("users/red", "secrets:read", ORG).await;
    let seen = red.secrets().describe_environment(request).await.expect("described").into_inner().entries;
    let states: Vec<_> = seen.iter().map(|e| (e.variable.as_str(), e.state(), e.secret.is_some())).collect();
    assert_eq!(
        states,
        [("FOR_BLUE", State::NotShared, true), ("OWN", State::Effective, true), ("SHARED", State::Effective, true)],
        "a reader of the organization sees all of it, and why a secret is not here"
    );
}

#[tokio::test]
async fn only_the_owner_manages_a_workspace_and_only_administrators_the_organization() {
    let server = Server::start();
    let admin = administrator(&server).await;
    let red = owner_of_red(&server).await;
    let refusal = refused(admin.secrets().create_secret(secret(RED, "X", "x")).await);
    assert_eq!(refusal.code, Code::PermissionDenied, "an organization's administrator has no right in workspaces");
    let refusal = refused(red.secrets().create_secret(secret(ORG, "X", "x")).await);
    assert_eq!(refusal.code, Code::PermissionDenied);
    let list = v1::ListSecretsRequest { parent: RED.into(), ..Default::default() };
    assert_eq!(refused(admin.secrets().list_secrets(list).await).code, Code::PermissionDenied);
}

#[tokio::test]
async fn the_nearest_secret_wins_unless_the_organizations_is_locked() {
    let server = Server::start();
    let admin = administrator(&server).await;
    let red = owner_of_red(&server).await;
    admin.secrets().create_secret(secret(ORG, "KEY", "of the organization")).await.expect("created");
    red.secrets().create_secret(secret(RED, "KEY", "of the workspace")).await.expect("created");
    let workload = "organizations/tide/workspaces/red/servers/s";
    assert_eq!(server.environment(workload).await, pairs(&[("KEY", "of the workspace")]));

    let name = format!("{ORG}/secrets/KEY");
    let lock = v1::UpdateSecretRequest { name: name.clone(), locked: Some(true), ..Default::default() };
    admin.secrets().update_secret(lock).await.expect("locked");
    assert_eq!(server.environment(workload).await, pairs(&[("KEY", "of the organization")]));
    let request = v1::DescribeEnvironmentRequest { name: workload.into(), ..Default::default() };
    let entries = red.secrets().describe_environment(request).await.expect("described").into_inner().entries;
    let rows: Vec<_> = entries.iter().map(|e| (e.state(), e.source.as_str(), e.winner.as_str())).collect();
    let own = format!("{RED}/secrets/KEY");
    assert_eq!(rows, [(State::Effective, name.as_str(), ""), (State::Overruled, own.as_str(), name.as_str())]);

    let unshare = v1::UpdateSecretRequest { name, sharing: only(&[BLUE]), ..Default::default() };
    admin.secrets().update_secret(unshare).await.expect("shared with another");
    let got = server.environment(workload).await;
    assert_eq!(got, pairs(&[("KEY", "of the workspace")]), "a lock holds where the secret is shared");
}

#[tokio::test]
async fn an_organization_has_no_servers_of_its_own() {
    let server = Server::start();
    server.grant("services/i", "secrets:inject", RED).await;
    let service = server.client(&server.token("services/i").await);
    let request = v1::FetchEnvironmentRequest { workload: "organizations/tide/servers/s".into(), ..Default::default() };
    let refusal = refused(service.workloads().fetch_environment(request).await);
    assert_eq!(refusal.why(), (Code::InvalidArgument, "FIELD_INVALID"));
    assert_eq!(refusal.field(), "workload");
}

#[tokio::test]
async fn a_deleted_workspace_is_shared_with_no_more() {
    let server = Server::start();
    let admin = administrator(&server).await;
    let request = v1::CreateSecretRequest { sharing: only(&[RED, BLUE]), ..secret(ORG, "SHARED", "x") };
    admin.secrets().create_secret(request).await.expect("created");
    let red = owner_of_red(&server).await;
    red.secrets().create_secret(secret(RED, "OWN", "y")).await.expect("created");
    let keeper = server.with("services/keeper", &[("access:manage", RED)]).await;
    let deleted = keeper.scopes().delete_scope(v1::DeleteScopeRequest { name: RED.into(), uid: String::new() }).await;
    assert_eq!(deleted.expect("deleted").into_inner().secrets_deleted, 1);

    let name = format!("{ORG}/secrets/SHARED");
    let left = admin.secrets().get_secret(v1::GetSecretRequest { name }).await.expect("it stays").into_inner();
    assert_eq!(left.sharing.expect("an organization's").workspaces, [BLUE]);
    assert_eq!(server.environment("organizations/tide/workspaces/red/servers/s").await, [], "the new one gets nothing");
    let get = v1::ListSecretsRequest { parent: RED.into(), ..Default::default() };
    assert_eq!(refused(red.secrets().list_secrets(get).await).code, Code::PermissionDenied, "its grants went with it");
}
