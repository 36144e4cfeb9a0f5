//! The health of a scope: what is missing, and who says so. What is unused or old needs a clock that can be moved, and is
//! tested beside the vault.

use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, refused, secret};

const PROJECT: &str = "projects/p";

fn health(scope: &str) -> v1::GetScopeHealthRequest {
    v1::GetScopeHealthRequest { scope: scope.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn health_names_what_is_missing_and_who_needs_it() {
    let server = Server::start();
    let environments = "projects/p/environments/-";
    let manager = server.manager(&[PROJECT, environments]).await;
    for name in ["SET", "INHERITED"] {
        manager.secrets().create_secret(secret(PROJECT, name, "v")).await.expect("created");
    }
    let variable = |name: &str, required| v1::ManifestVariable {
        variable: name.to_owned(),
        required,
        description: format!("what {name} is"),
    };
    let request = v1::SetManifestRequest {
        name: format!("{environments}/manifests/m"),
        variables: vec![variable("REQUIRED", true), variable("OPTIONAL", false), variable("INHERITED", true)],
        ..Default::default()
    };
    manager.manifests().set_manifest(request).await.expect("set");
    let request = v1::SetReferenceRequest {
        name: "projects/p/environments/e/references/tool".into(),
        variables: ["USED", "SET", "REQUIRED"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    manager.references().set_reference(request).await.expect("set");

    let answer = manager.scopes().get_scope_health(health("projects/p/environments/e")).await.expect("looked");
    let answer = answer.into_inner();
    let missing: Vec<_> =
        answer.missing.iter().map(|m| (m.variable.as_str(), m.declared_by.as_str(), m.description.as_str())).collect();
    assert_eq!(
        missing,
        [
            ("REQUIRED", "projects/p/environments/-/manifests/m", "what REQUIRED is"),
            ("USED", "projects/p/environments/e/references/tool", ""),
        ]
    );
    assert_eq!((answer.missing_count, answer.secret_count), (2, 0));
    let answer = manager.scopes().get_scope_health(health("projects/p/environments/new")).await.expect("looked");
    assert_eq!(answer.into_inner().missing_count, 1, "of a scope that is not there yet");
    let answer = manager.scopes().get_scope_health(health(PROJECT)).await.expect("looked").into_inner();
    assert_eq!((answer.missing_count, answer.secret_count), (0, 2));
    assert_eq!((answer.unused.len(), answer.stale.len()), (0, 0), "all of it is new");
}

#[tokio::test]
async fn days_are_within_bounds() {
    let server = Server::start();
    let manager = server.manager(&[PROJECT]).await;
    for days in [-1, 36_501, i32::MIN, i32::MAX] {
        for (field, request) in [
            ("stale_days", v1::GetScopeHealthRequest { stale_days: days, ..health(PROJECT) }),
            ("unused_days", v1::GetScopeHealthRequest { unused_days: days, ..health(PROJECT) }),
        ] {
            let refusal = refused(manager.scopes().get_scope_health(request).await);
            assert_eq!((refusal.code, refusal.field()), (Code::InvalidArgument, field), "{days}");
        }
    }
    let most = v1::GetScopeHealthRequest { stale_days: 36_500, unused_days: 36_500, scope: PROJECT.into() };
    manager.scopes().get_scope_health(most).await.expect("a hundred years");
    let refusal = refused(manager.scopes().get_scope_health(health("projects/-")).await);
    assert_eq!(refusal.field(), "scope");
}
