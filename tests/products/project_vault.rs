//! The "Secrets Vault" of projects: hints, cloning, `secrets:read` and `secrets:manage`.

use coffer_proto::v1::{self, SecretKind, sharing::Mode};
use tonic::Code;

use crate::harness::{Server, refused, secret};

const SOURCE: &str = "projects/tide";
const TARGET: &str = "projects/ebb";

fn clone_of(names: &[&str], destination: &str) -> v1::CloneSecretsRequest {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    v1::CloneSecretsRequest { names, destination: destination.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn after_saving_only_a_hint_is_shown_and_only_of_long_values() {
    let server = Server::start();
    let ada = server.manager(&[SOURCE]).await;
    let cases = [
        ("LONG", "sk-proj-0123456789-wxyz", "sk-p…wxyz"),
        ("TWENTY", "12345678901234567890", "1234…7890"),
        ("NINETEEN", "1234567890123456789", ""),
        ("CONTROL", "\u{1b}[2J5678901234567\r\n\tz", "•[2J…•••z"),
    ];
    for (name, value, hint) in cases {
        let created = ada.secrets().create_secret(secret(SOURCE, name, value)).await.expect(name).into_inner();
        assert_eq!((created.hint.as_str(), created.value), (hint, None), "{name}");
        let request = v1::GetSecretRequest { name: created.name };
        let got = ada.secrets().get_secret(request).await.expect(name).into_inner();
        assert_eq!((got.hint.as_str(), got.value), (hint, None), "{name}");
    }
}

#[tokio::test]
async fn a_clone_has_the_same_name_and_value_in_the_target_project() {
    let server = Server::start();
    let ada = server.manager(&[SOURCE, TARGET]).await;
    let request =
        v1::CreateSecretRequest { description: "d".into(), ..secret(SOURCE, "KEY", "the value itself, long") };
    let source = ada.secrets().create_secret(request).await.expect("created").into_inner();
    let answer = ada.secrets().clone_secrets(clone_of(&[&source.name], TARGET)).await.expect("cloned").into_inner();
    let copy = &answer.secrets[0];
    assert_eq!(copy.name, "projects/ebb/secrets/KEY");
    assert_eq!((copy.cloned_from.as_str(), copy.value.as_ref()), (source.name.as_str(), None));
    assert_eq!((copy.hint.as_str(), copy.kind(), copy.value_version), (source.hint.as_str(), SecretKind::Encrypted, 1));
    assert_ne!(copy.uid, source.uid);
    let got = server.environment("projects/ebb/servers/agent").await;
    assert_eq!(got, [("KEY".to_owned(), "the value itself, long".to_owned())]);

    let change = v1::UpdateSecretRequest { name: source.name, value: Some(b"other".to_vec()), ..Default::default() };
    ada.secrets().update_secret(change).await.expect("changed");
    let got = server.environment("projects/ebb/servers/agent").await;
    assert_eq!(got[0].1, "the value itself, long", "a copy is its own secret");
}

#[tokio::test]
async fn many_are_cloned_all_or_none() {
    let server = Server::start();
    let ada = server.manager(&[SOURCE, TARGET]).await;
    for name in ["A", "B", "C"] {
        ada.secrets().create_secret(secret(SOURCE, name, &name.repeat(3))).await.expect(name);
    }
    ada.secrets().create_secret(secret(TARGET, "B", "already here")).await.expect("created");
    let all = clone_of(&["projects/tide/secrets/-"], TARGET);
    let refusal = refused(ada.secrets().clone_secrets(all.clone()).await);
    assert_eq!(refusal.why(), (Code::AlreadyExists, "SECRET_EXISTS"));
    let got = server.environment("projects/ebb/servers/agent").await;
    assert_eq!(got, [("B".to_owned(), "already here".to_owned())], "nothing was cloned");

    let replacing = v1::CloneSecretsRequest { replace: true, ..all };
    let copies = ada.secrets().clone_secrets(replacing).await.expect("cloned").into_inner().secrets;
    let names: Vec<_> = copies.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["projects/ebb/secrets/A", "projects/ebb/secrets/B", "projects/ebb/secrets/C"]);
    let got = server.environment("projects/ebb/servers/agent").await;
    let values: Vec<_> = got.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["AAA", "BBB", "CCC"]);
}

#[tokio::test]
async fn what_may_not_be_cloned_is_not() {
    let server = Server::start();
    let ada = server.manager(&[SOURCE, TARGET]).await;
    let request = v1::CreateSecretRequest { clonable: Some(false), ..secret(SOURCE, "STAYS", "v") };
    ada.secrets().create_secret(request).await.expect("created");
    ada.secrets().create_secret(secret(SOURCE, "GOES", "v")).await.expect("created");
    for names in [&["projects/tide/secrets/STAYS"][..], &["projects/tide/secrets/-"]] {
        let refusal = refused(ada.secrets().clone_secrets(clone_of(names, TARGET)).await);
        assert_eq!(refusal.why(), (Code::FailedPrecondition, "SECRET_NOT_CLONABLE"), "{names:?}");
    }
    assert_eq!(server.environment("projects/ebb/servers/agent").await, []);
}

#[tokio::test]
async fn cloning_needs_manage_on_both_sides() {
    let server = Server::start();
    server.manager(&[SOURCE]).await.secrets().create_secret(secret(SOURCE, "KEY", "v")).await.expect("created");
    let request = clone_of(&["projects/tide/secrets/KEY"], TARGET);
    for (source, target) in [("secrets:read", "secrets:manage"), ("secrets:manage", "secrets:read")] {
        let who = format!("users/{}", source.replace(':', "-"));
        let somebody = server.with(&who, &[(source, SOURCE), (target, TARGET)]).await;
        assert_eq!(refused(somebody.secrets().clone_secrets(request.clone()).await).code, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn a_clone_into_an_organization_is_never_shared_more_widely() {
    let server = Server::start();
    let ada = server.manager(&["organizations/a", "organizations/b", SOURCE]).await;
    let narrow = v1::Sharing { mode: Mode::Only.into(), workspaces: vec!["organizations/a/workspaces/w".into()] };
    let request = v1::CreateSecretRequest { sharing: Some(narrow), ..secret("organizations/a", "KEY", "v") };
    ada.secrets().create_secret(request).await.expect("created");
    let request = clone_of(&["organizations/a/secrets/KEY"], "organizations/b");
    assert!(ada.secrets().clone_secrets(request.clone()).await.is_err(), "its sharing must be said anew");
    let sharing = v1::Sharing { mode: Mode::Only.into(), workspaces: vec![] };
    let request = v1::CloneSecretsRequest { sharing: Some(sharing), ..request };
    let copies = ada.secrets().clone_secrets(request).await.expect("cloned").into_inner().secrets;
    assert_eq!(copies[0].sharing.as_ref().expect("an organization's").mode(), Mode::Only);
}

#[tokio::test]
async fn readers_view_and_managers_change() {
    let server = Server::start();
    let manager = server.manager(&[SOURCE]).await;
    let request =
        v1::CreateSecretRequest { description: "why".into(), ..secret(SOURCE, "KEY", "0123456789abcdefghij") };
    manager.secrets().create_secret(request).await.expect("created");
    let reader = server.with("users/reader", &[("secrets:read", SOURCE)]).await;
    let list = v1::ListSecretsRequest { parent: SOURCE.into(), ..Default::default() };
    let seen = reader.secrets().list_secrets(list).await.expect("a list").into_inner().secrets;
    assert_eq!((seen[0].hint.as_str(), seen[0].description.as_str()), ("0123…ghij", "why"));
    let name = seen[0].name.clone();
    let create = refused(reader.secrets().create_secret(secret(SOURCE, "NEW", "v")).await);
    let edit = v1::UpdateSecretRequest { name: name.clone(), description: Some("x".into()), ..Default::default() };
    let edit = refused(reader.secrets().update_secret(edit).await);
    let delete = refused(reader.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await);
    for refusal in [create, edit, delete] {
        assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"));
    }
}
