//! "Secrets Management" of projects: required fields, immutable keys, edits that keep the value, environments.

use coffer_client::Client;
use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, refused, secret};

const PROJECT: &str = "projects/tide";

async fn manager(server: &Server) -> Client {
    server.manager(&[PROJECT, "projects/tide/environments/production", "projects/tide/environments/staging"]).await
}

#[tokio::test]
async fn key_and_value_are_required() {
    let server = Server::start();
    let ada = manager(&server).await;
    let no_key = refused(ada.secrets().create_secret(secret(PROJECT, "", "v")).await);
    assert_eq!(no_key.why(), (Code::InvalidArgument, "FIELD_INVALID"));
    assert_eq!(no_key.fields, [("secret_id".to_owned(), "Secret key is required".to_owned())]);
    assert!(no_key.message.contains("Secret key is required"), "{}", no_key.message);
    let no_value = refused(ada.secrets().create_secret(secret(PROJECT, "KEY", "")).await);
    assert_eq!(no_value.why(), (Code::InvalidArgument, "FIELD_INVALID"));
    assert_eq!(no_value.fields, [("value".to_owned(), "Secret value is required".to_owned())]);
    assert!(no_value.message.contains("Secret value is required"), "{}", no_value.message);
}

#[tokio::test]
async fn an_edit_keeps_the_value_or_the_description() {
    let server = Server::start();
    let ada = manager(&server).await;
    let request = v1::CreateSecretRequest { description: "how to get it".into(), ..secret(PROJECT, "KEY", "first") };
    let created = ada.secrets().create_secret(request).await.expect("created").into_inner();
    let name = created.name.clone();
    let fetch = || server.environment("projects/tide/servers/web");

    let edit = v1::UpdateSecretRequest { name: name.clone(), description: Some("new".into()), ..Default::default() };
    let edited = ada.secrets().update_secret(edit).await.expect("edited").into_inner();
    assert_eq!((edited.description.as_str(), edited.value_version), ("new", 1));
    assert_eq!(fetch().await[0].1, "first");

    let edit = v1::UpdateSecretRequest { name: name.clone(), value: Some(b"second".to_vec()), ..Default::default() };
    let edited = ada.secrets().update_secret(edit).await.expect("edited").into_inner();
    assert_eq!((edited.description.as_str(), edited.value_version), ("new", 2));
    assert_eq!(fetch().await[0].1, "second");

    let same = v1::UpdateSecretRequest { name: name.clone(), value: Some(b"second".to_vec()), ..Default::default() };
    let edited = ada.secrets().update_secret(same).await.expect("a given value counts as a change").into_inner();
    assert_eq!(edited.value_version, 3, "comparing it with the stored one would confirm guesses");

    let empty = v1::UpdateSecretRequest {
        name: name.clone(),
        value: Some(Vec::new()),
        description: Some(String::new()),
        ..Default::default()
    };
    let edited = ada.secrets().update_secret(empty).await.expect("the description is removed").into_inner();
    assert_eq!((edited.description.as_str(), edited.value_version), ("", 3), "an empty value keeps the old one");
    assert_eq!(fetch().await[0].1, "second");

    for nothing in [None, Some(Vec::new())] {
        let request = v1::UpdateSecretRequest { name: name.clone(), value: nothing, ..Default::default() };
        let refusal = refused(ada.secrets().update_secret(request).await);
        assert_eq!(refusal.why(), (Code::InvalidArgument, "NO_CHANGES"));
        assert_eq!(refusal.message, "No changes to save");
    }
}

#[tokio::test]
async fn an_edited_description_restarts_nothing() {
    let server = Server::start();
    let ada = manager(&server).await;
    let name = ada.secrets().create_secret(secret(PROJECT, "KEY", "v")).await.expect("created").into_inner().name;
    let revision = async || {
        let request = v1::DescribeEnvironmentRequest { name: PROJECT.into(), ..Default::default() };
        ada.secrets().describe_environment(request).await.expect("described").into_inner().environment_revision
    };
    let before = revision().await;
    let edit = v1::UpdateSecretRequest { name: name.clone(), description: Some("new".into()), ..Default::default() };
    ada.secrets().update_secret(edit).await.expect("edited");
    assert_eq!(revision().await, before);
    let edit = v1::UpdateSecretRequest { name, value: Some(b"v".to_vec()), ..Default::default() };
    ada.secrets().update_secret(edit).await.expect("edited");
    assert_ne!(revision().await, before);
}

#[tokio::test]
async fn an_old_etag_loses_and_of_racing_edits_one_wins() {
    let server = Server::start();
    let ada = manager(&server).await;
    let created = ada.secrets().create_secret(secret(PROJECT, "KEY", "v")).await.expect("created").into_inner();
    let racing = (0..8).map(|n| {
        let ada = ada.clone();
        let request = v1::UpdateSecretRequest {
            name: created.name.clone(),
            etag: created.etag.clone(),
            value: Some(format!("racer {n}").into_bytes()),
            ..Default::default()
        };
        tokio::spawn(async move { ada.secrets().update_secret(request).await })
    });
    let mut won = 0;
    for racer in racing.collect::<Vec<_>>() {
        match racer.await.expect("no panic") {
            Ok(_) => won += 1,
            Err(status) => assert_eq!(refused::<()>(Err(status)).why(), (Code::Aborted, "ETAG_MISMATCH")),
        }
    }
    assert_eq!(won, 1);
    let delete = v1::DeleteSecretRequest { name: created.name.clone(), etag: created.etag, force: false };
    assert_eq!(refused(ada.secrets().delete_secret(delete).await).why(), (Code::Aborted, "ETAG_MISMATCH"));
    let current = ada.secrets().get_secret(v1::GetSecretRequest { name: created.name.clone() }).await;
    let delete = v1::DeleteSecretRequest {
        name: created.name,
        etag: current.expect("it stands").into_inner().etag,
        force: false,
    };
    ada.secrets().delete_secret(delete).await.expect("the current etag passes");
}

#[tokio::test]
async fn a_deleted_and_recreated_key_is_another_secret() {
    let server = Server::start();
    let ada = manager(&server).await;
    let first = ada.secrets().create_secret(secret(PROJECT, "KEY", "v")).await.expect("created").into_inner();
    let taken = refused(ada.secrets().create_secret(secret(PROJECT, "KEY", "w")).await);
    assert_eq!(taken.why(), (Code::AlreadyExists, "SECRET_EXISTS"));
    let delete = v1::DeleteSecretRequest { name: first.name.clone(), ..Default::default() };
    ada.secrets().delete_secret(delete).await.expect("deleted");
    let again = ada.secrets().create_secret(secret(PROJECT, "KEY", "w")).await.expect("created").into_inner();
    assert_ne!((again.uid, again.etag), (first.uid, first.etag));
    assert_eq!(again.value_version, 1);
}

#[tokio::test]
async fn keys_are_case_sensitive_upper_case_and_never_reserved() {
    let server = Server::start();
    let ada = manager(&server).await;
    for bad in ["key", "Key", "1KEY", "KEY-1", "KEY.A", "KEY A", "KEY=", "ÄKEY", "KEY\0", "KEY/../X", &"K".repeat(129)]
    {
        let refusal = refused(ada.secrets().create_secret(secret(PROJECT, bad, "v")).await);
        assert_eq!(refusal.why(), (Code::InvalidArgument, "FIELD_INVALID"), "{bad:?}");
        assert_eq!(refusal.field(), "secret_id", "{bad:?}");
    }
    for reserved in ["PATH", "LD_PRELOAD", "COFFER_TOKEN", "_", "BASH_ENV", "IFS", "DYLD_INSERT_LIBRARIES"] {
        let refusal = refused(ada.secrets().create_secret(secret(PROJECT, reserved, "v")).await);
        assert_eq!(refusal.why(), (Code::InvalidArgument, "SECRET_NAME_RESERVED"), "{reserved}");
        assert_eq!(refusal.field(), "secret_id", "{reserved}");
    }
    for good in ["K", "_K", "K_1", "NODE_OPTIONS", &"K".repeat(128)] {
        ada.secrets().create_secret(secret(PROJECT, good, "v")).await.expect(good);
    }
}

#[tokio::test]
async fn environments_have_values_of_their_own_over_the_projects() {
    let server = Server::start();
    let ada = manager(&server).await;
    ada.secrets().create_secret(secret(PROJECT, "DATABASE_URL", "of the project")).await.expect("created");
    ada.secrets().create_secret(secret(PROJECT, "SHARED", "s")).await.expect("created");
    let production = "projects/tide/environments/production";
    ada.secrets().create_secret(secret(production, "DATABASE_URL", "of production")).await.expect("created");
    let value = |environment: Vec<(String, String)>| environment.into_iter().map(|(_, v)| v).collect::<Vec<_>>();
    let got = server.environment("projects/tide/environments/production/servers/web").await;
    assert_eq!(value(got), ["of production", "s"]);
    let got = server.environment("projects/tide/environments/staging/servers/web").await;
    assert_eq!(value(got), ["of the project", "s"]);
    assert_eq!(value(server.environment("projects/tide/servers/web").await), ["of the project", "s"]);
}
