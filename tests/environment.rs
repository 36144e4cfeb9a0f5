//! A workload gets exactly its environment and can name no other: random trees of secrets against a model.

use std::collections::BTreeMap;

use coffer_proto::v1::{self, SecretKind, environment_entry::State, sharing::Mode};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use tonic::Code;

use crate::harness::{Server, refused};

/// How many trees to grow.
const TREES: usize = 40;
const VARIABLES: [&str; 4] = ["A", "B", "C", "D"];
/// The scopes of a tree, where `#` stands for the tree's number.
const SCOPES: [&str; 10] = [
    "organizations/o#",
    "organizations/o#/workspaces/w1",
    "organizations/o#/workspaces/w2",
    "projects/p#",
    "projects/p#/environments/e1",
    "projects/p#/environments/e2",
    "accounts/a#",
    "accounts/a#/plugins/g1",
    "accounts/a#/plugins/g2",
    "projects/q#",
];

#[derive(Clone, Debug)]
struct Planted {
    variable: &'static str,
    value: String,
    plain: bool,
    locked: bool,
    /// With which workspaces an organization's secret is shared; `None` is all.
    only: Option<Vec<&'static str>>,
}

type Tree = BTreeMap<(&'static str, &'static str), Planted>;

fn tree() -> impl Strategy<Value = Tree> {
    let only = prop_oneof![
        Just(None),
        Just(Some(vec![])),
        Just(Some(vec!["w1"])),
        Just(Some(vec!["w2"])),
        Just(Some(vec!["w1", "w2"])),
    ];
    let planted = (select(&SCOPES[..]), select(&VARIABLES[..]), any::<[bool; 2]>(), only, "[ -~é\\n]{1,40}");
    vec(planted, 0..24).prop_map(|all| {
        let plant = |(scope, variable, [plain, locked], only, value): (&'static str, &'static str, [bool; 2], _, _)| {
            let organization = scope == "organizations/o#";
            let locked = locked && (organization || scope == "projects/p#" || scope == "projects/q#");
            let only = if organization { only } else { None };
            ((scope, variable), Planted { variable, value, plain, locked, only })
        };
        all.into_iter().map(plant).collect()
    })
}

/// What the model says of one secret in one scope's environment.
fn model(tree: &Tree, scope: &'static str) -> Vec<(String, &'static str, State)> {
    let parent = match scope {
        "organizations/o#/workspaces/w1" | "organizations/o#/workspaces/w2" => Some("organizations/o#"),
        "projects/p#/environments/e1" | "projects/p#/environments/e2" => Some("projects/p#"),
        _ => None,
    };
    let mut entries = Vec::new();
    for variable in VARIABLES {
        let own = tree.get(&(scope, variable));
        let above = parent.and_then(|parent| tree.get(&(parent, variable)));
        let shared = above.filter(|s| s.only.as_ref().is_none_or(|only| only.iter().any(|w| scope.ends_with(w))));
        let parent = parent.unwrap_or_default();
        let mut push = |owner, state| entries.push((variable.to_owned(), owner, state));
        match (own, shared) {
            (Some(_), Some(above)) if above.locked => {
                push(parent, State::Effective);
                push(scope, State::Overruled);
            }
            (Some(_), Some(_)) => {
                push(scope, State::Effective);
                push(parent, State::Shadowed);
            }
            (Some(_), None) => push(scope, State::Effective),
            (None, Some(_)) => push(parent, State::Effective),
            (None, None) => {}
        }
        if above.is_some() && shared.is_none() {
            push(parent, State::NotShared);
        }
    }
    entries
}

fn request(tree_number: usize, scope: &str, planted: &Planted) -> v1::CreateSecretRequest {
    let parent = scope.replace('#', &tree_number.to_string());
    let sharing = planted.only.as_ref().map(|only| v1::Sharing {
        mode: Mode::Only.into(),
        workspaces: only.iter().map(|w| format!("{parent}/workspaces/{w}")).collect(),
    });
    let kind = if planted.plain { SecretKind::Plain } else { SecretKind::Encrypted };
    v1::CreateSecretRequest {
        secret_id: planted.variable.into(),
        value: planted.value.clone().into_bytes(),
        kind: kind.into(),
        locked: planted.locked,
        sharing,
        parent,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_workload_gets_exactly_what_the_model_says() {
    let server = Server::start();
    let patterns = [
        "organizations/-",
        "organizations/-/workspaces/-",
        "projects/-",
        "projects/-/environments/-",
        "accounts/-",
        "accounts/-/plugins/-",
    ];
    let manager = server.manager(&patterns).await;
    for pattern in patterns.iter().filter(|pattern| **pattern != "organizations/-") {
        server.grant("services/injector", "secrets:inject", pattern).await;
    }
    let injector = server.client(&server.token("services/injector").await);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);

    for number in 0..TREES {
        let tree = tree().new_tree(&mut runner).expect("a tree").current();
        for ((scope, _), planted) in &tree {
            manager.secrets().create_secret(request(number, scope, planted)).await.expect("planted");
        }
        for scope in SCOPES {
            let name = scope.replace('#', &number.to_string());
            let expected = model(&tree, scope);
            if scope == "organizations/o#" {
                continue;
            }
            let describe = v1::DescribeEnvironmentRequest { name: name.clone(), ..Default::default() };
            let described = manager.secrets().describe_environment(describe).await.expect("described").into_inner();
            let entries: Vec<_> =
                described.entries.iter().map(|e| (e.variable.clone(), e.source.clone(), e.state())).collect();
            let source =
                |owner: &str, variable: &str| format!("{}/secrets/{variable}", owner.replace('#', &number.to_string()));
            let wanted: Vec<_> =
                expected.iter().map(|(v, owner, state)| (v.clone(), source(owner, v), *state)).collect();
            assert_eq!(entries, wanted, "{name} described, of {tree:#?}");
            let workload = format!("{name}/servers/s");
            let fetch = v1::FetchEnvironmentRequest { workload, ..Default::default() };
            let fetched = injector.workloads().fetch_environment(fetch).await.expect("fetched").into_inner();
            let got: Vec<_> =
                fetched.variables.into_iter().map(|v| (v.name, v.source, v.value.expect("a value"))).collect();
            let wanted: Vec<_> = expected
                .iter()
                .filter(|(_, _, state)| *state == State::Effective)
                .map(|(v, owner, _)| {
                    let planted = tree.iter().find(|((s, name), _)| s == owner && name == v).expect("planted").1;
                    (v.clone(), source(owner, v), planted.value.clone().into_bytes())
                })
                .collect();
            assert_eq!(got, wanted, "{name} fetched, of {tree:#?}");
            assert_eq!(fetched.environment_revision, described.environment_revision, "{name}");
        }
    }
}

#[tokio::test]
async fn a_workloads_token_names_its_own_workload_and_no_other() {
    let server = Server::start();
    let workloads = [
        "organizations/o/workspaces/w/servers/s",
        "organizations/o/workspaces/w/sandboxes/s",
        "organizations/o/workspaces/x/servers/s",
        "projects/p/servers/s",
        "projects/p/environments/e/servers/s",
        "accounts/a/sandboxes/s",
        "accounts/a/plugins/g/servers/s",
    ];
    for own in workloads {
        let client = server.client(&server.workload_token(own).await);
        for named in workloads {
            let request = v1::FetchEnvironmentRequest { workload: named.into(), ..Default::default() };
            let result = client.workloads().fetch_environment(request).await;
            if own == named {
                assert_eq!(result.expect("its own").into_inner().workload, own);
            } else {
                assert_eq!(refused(result).code, Code::PermissionDenied, "{own} named {named}");
            }
        }
    }
}

#[tokio::test]
async fn the_environment_revision_changes_exactly_with_names_secrets_and_values() {
    let server = Server::start();
    let manager = server.manager(&["projects/p", "projects/q"]).await;
    let revision = async |scope: &str| {
        let request = v1::DescribeEnvironmentRequest { name: scope.into(), ..Default::default() };
        manager.secrets().describe_environment(request).await.expect("described").into_inner().environment_revision
    };
    let mut seen = vec![revision("projects/p").await];
    let create = crate::harness::secret("projects/p", "A", "v");
    manager.secrets().create_secret(create.clone()).await.expect("created");
    seen.push(revision("projects/p").await);
    assert_eq!(revision("projects/p").await, seen[1], "it stays as long as nothing changes");
    let name = "projects/p/secrets/A".to_owned();
    let update = v1::UpdateSecretRequest { name: name.clone(), value: Some(b"w".to_vec()), ..Default::default() };
    manager.secrets().update_secret(update).await.expect("updated");
    seen.push(revision("projects/p").await);
    manager.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await.expect("deleted");
    assert_eq!(revision("projects/p").await, seen[0], "an empty environment is an empty environment");
    manager.secrets().create_secret(create).await.expect("created");
    seen.push(revision("projects/p").await);
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len(), "the same value of another secret is another revision: {seen:?}");
    manager.secrets().create_secret(crate::harness::secret("projects/q", "A", "v")).await.expect("created");
    assert_ne!(revision("projects/q").await, seen[3], "it tells nothing about values");
}
