//! "My Secrets": variables of plugins and MCP servers, plain or encrypted, grouped by plugin, with totals.

use coffer_client::Client;
use coffer_proto::v1::{self, SecretKind};
use tonic::Code;

use crate::harness::{Server, refused, secret};

const GITHUB: &str = "accounts/ada/plugins/github";
const WEATHER: &str = "accounts/ada/plugins/weather";

async fn ada_with_variables(server: &Server) -> Client {
    let ada = server.with("users/ada", &[]).await;
    let token = secret(GITHUB, "GITHUB_API_TOKEN", "ghp_0123456789abcdefghij");
    ada.secrets().create_secret(token).await.expect("an owner needs no grant");
    for (scope, name, value) in [(GITHUB, "GITHUB_ORG", "tide"), (WEATHER, "WEATHER_UNITS", "metric")] {
        let plain = v1::CreateSecretRequest { kind: SecretKind::Plain.into(), ..secret(scope, name, value) };
        ada.secrets().create_secret(plain).await.expect("a plain variable");
    }
    ada
}

#[tokio::test]
async fn the_table_groups_variables_by_plugin_and_shows_plain_values_only() {
    let server = Server::start();
    let ada = ada_with_variables(&server).await;
    let request = v1::ListSecretsRequest { parent: "accounts/ada/plugins/-".into(), ..Default::default() };
    let table = ada.secrets().list_secrets(request).await.expect("a list").into_inner().secrets;
    let rows: Vec<_> = table.iter().map(|s| (s.name.as_str(), s.kind(), s.value.as_deref())).collect();
    assert_eq!(
        rows,
        [
            ("accounts/ada/plugins/github/secrets/GITHUB_API_TOKEN", SecretKind::Encrypted, None),
            ("accounts/ada/plugins/github/secrets/GITHUB_ORG", SecretKind::Plain, Some(&b"tide"[..])),
            ("accounts/ada/plugins/weather/secrets/WEATHER_UNITS", SecretKind::Plain, Some(&b"metric"[..])),
        ]
    );
}

#[tokio::test]
async fn the_stats_count_all_and_encrypted_variables() {
    let server = Server::start();
    let ada = ada_with_variables(&server).await;
    let request = v1::GetSecretStatsRequest { parent: "accounts/ada/plugins/-".into() };
    let stats = ada.secrets().get_secret_stats(request).await.expect("stats").into_inner();
    assert_eq!((stats.total, stats.encrypted, stats.plain, stats.scopes), (3, 1, 2, 2));
}

#[tokio::test]
async fn an_encrypted_value_can_be_replaced_and_deleting_is_permanent() {
    let server = Server::start();
    let ada = ada_with_variables(&server).await;
    let name = format!("{GITHUB}/secrets/GITHUB_API_TOKEN");
    let request =
        v1::UpdateSecretRequest { name: name.clone(), value: Some(b"replaced".to_vec()), ..Default::default() };
    let updated = ada.secrets().update_secret(request).await.expect("replaced").into_inner();
    assert_eq!((updated.value, updated.value_version), (None, 2));
    let got = server.environment("accounts/ada/plugins/github/servers/mcp").await;
    assert_eq!(got[0], ("GITHUB_API_TOKEN".to_owned(), "replaced".to_owned()));

    ada.secrets()
        .delete_secret(v1::DeleteSecretRequest { name: name.clone(), ..Default::default() })
        .await
        .expect("gone");
    let refusal = refused(ada.secrets().get_secret(v1::GetSecretRequest { name }).await);
    assert_eq!(refusal.why(), (Code::NotFound, "SECRET_NOT_FOUND"));
    let got = server.environment("accounts/ada/plugins/github/servers/mcp").await;
    assert_eq!(got, [("GITHUB_ORG".to_owned(), "tide".to_owned())]);
}

#[tokio::test]
async fn an_encrypted_variable_never_becomes_plain_with_its_old_value() {
    let server = Server::start();
    let ada = ada_with_variables(&server).await;
    let name = format!("{GITHUB}/secrets/GITHUB_API_TOKEN");
    let to_plain = v1::UpdateSecretRequest { name, kind: SecretKind::Plain.into(), ..Default::default() };
    let refusal = refused(ada.secrets().update_secret(to_plain.clone()).await);
    assert_eq!(refusal.why(), (Code::InvalidArgument, "FIELD_INVALID"));
    assert_eq!(refusal.field(), "value");

    let with_value = v1::UpdateSecretRequest { value: Some(b"visible".to_vec()), ..to_plain };
    let plain = ada.secrets().update_secret(with_value).await.expect("a new value").into_inner();
    assert_eq!((plain.kind(), plain.value.as_deref()), (SecretKind::Plain, Some(&b"visible"[..])));

    let name = format!("{GITHUB}/secrets/GITHUB_ORG");
    let encrypt = v1::UpdateSecretRequest { name, kind: SecretKind::Encrypted.into(), ..Default::default() };
    let hidden = ada.secrets().update_secret(encrypt).await.expect("the value is kept").into_inner();
    assert_eq!((hidden.kind(), hidden.value), (SecretKind::Encrypted, None));
    let got = server.environment("accounts/ada/plugins/github/servers/mcp").await;
    assert_eq!(got[1], ("GITHUB_ORG".to_owned(), "tide".to_owned()), "the workload still receives it");
}

#[tokio::test]
async fn values_reach_the_plugin_they_belong_to_and_no_other() {
    let server = Server::start();
    let ada = ada_with_variables(&server).await;
    ada.secrets().create_secret(secret("accounts/ada", "ACCOUNT_SECRET", "of the account")).await.expect("created");
    let weather = server.environment("accounts/ada/plugins/weather/servers/mcp").await;
    assert_eq!(weather, [("WEATHER_UNITS".to_owned(), "metric".to_owned())]);
}
