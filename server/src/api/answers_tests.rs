//! Every call that changes something knows before it acts that its answer can be sent.

use coffer_proto::{
    limits,
    name::{DeclarationKind, DeclarationName, Permission, Scope, SecretName, VariableName},
    v1::{self, import_result::Action},
};
use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::{
    convert::{to_grant, to_secret, to_token},
    declarations::{to_manifest, to_reference},
};
use crate::{
    audit::Phase,
    record::{Kind, SharedWith},
    vault::{
        Answered, CloneRequest, Conflict, Error, Import, ImportAction, ImportEntry, ImportOutcome, IssuedToken,
        NewDeclaration, NewGrant, NewToken, ShownSecret, Vault,
        tests::world::{OPERATOR, World, new, principal, secret, value},
    },
    view::Declared,
};

/// Calls that change something, and answer with more than a number.
const WRITES: &[&str] = &[
    "Access/CreateGrant",
    "Imports/ImportSecrets",
    "Manifests/SetManifest",
    "References/SetReference",
    "Secrets/CloneSecrets",
    "Secrets/CreateSecret",
    "Secrets/UpdateSecret",
    "Tokens/ExchangeStartToken",
    "Tokens/IssueToken",
];
/// Those that answer with a number or nothing.
const SHORT: &[&str] = &[
    "Access/DeleteGrant",
    "Manifests/DeleteManifest",
    "References/DeleteReference",
    "Scopes/DeleteScope",
    "Secrets/DeleteSecret",
    "Tokens/RevokeToken",
];
/// Those that change nothing, and those whose answer goes on in short messages.
const OTHERS: &[&str] = &[
    "Access/ListEffectiveAccess",
    "Access/ListGrants",
    "Access/TestPermissions",
    "Instances/ListInstances",
    "Instances/WatchInstances",
    "Manifests/ListManifests",
    "Operations/CreateSnapshot",
    "Operations/GetStatus",
    "Operations/ListSnapshots",
    "Operations/RotateKeys",
    "Operations/StreamBackup",
    "Redactions/RedactStream",
    "Redactions/RedactText",
    "References/ListReferences",
    "Scopes/GetScopeHealth",
    "Scopes/ListScopes",
    "Secrets/DescribeEnvironment",
    "Secrets/GetSecret",
    "Secrets/GetSecretStats",
    "Secrets/ListSecrets",
    "Templates/RenderTemplate",
    "Tokens/ListTokens",
    "Workloads/FetchEnvironment",
    "Workloads/WatchEnvironment",
];

const USER: &str = "users/alice";

fn id() -> String {
    "i".repeat(limits::ID_BYTES)
}

fn organization() -> Scope {
    Scope::parse(&format!("organizations/{}", id())).expect("a scope")
}

/// The longest of everything a secret may say of itself.
fn large(name: &str) -> crate::vault::NewSecret {
    let workspaces = (0..limits::SHARING_WORKSPACES).map(|n| format!("{n:03}{}", "w".repeat(limits::ID_BYTES - 3)));
    let hosts = (0..limits::ALLOWED_HOSTS).map(|n| format!("{n:03}.{}.example", "h".repeat(60)));
    crate::vault::NewSecret {
        kind: Kind::Plain,
        description: "d".repeat(limits::DESCRIPTION_BYTES),
        sharing: Some(SharedWith::Only(workspaces.collect())),
        allowed_hosts: hosts.collect(),
        ..new(name, &"v".repeat(64 * 1024))
    }
}

/// The largest answers to one method: as they go out, and as they are reckoned before.
async fn largest(world: &World, vault: &Vault, method: &str) -> (usize, usize) {
    let call = world.call(vault, USER).await;
    let own = organization();
    match method {
        "Access/CreateGrant" => {
            let pattern = format!("{own}/workspaces/{}", id());
            let principal = principal(&format!("users/{}", id()));
            let new = NewGrant { principal, permission: Permission::SecretsManage, pattern };
            let grant = vault.create_grant(&world.call(vault, OPERATOR).await, new).await.expect("granted");
            (to_grant(&grant).encoded_len(), grant.bytes_max())
        }
        "Imports/ImportSecrets" => {
            let name = |n: usize| VariableName::parse(&format!("{}{n:03}", "N".repeat(125))).expect("a name");
            let names = (0..1_000).map(|n| SecretName::new(own.clone(), name(n)));
            let outcomes: Vec<_> = names.map(|name| ImportOutcome { name, action: ImportAction::Skipped }).collect();
            let results = outcomes
                .iter()
                .map(|outcome| v1::ImportResult { name: outcome.name.to_string(), action: Action::Skipped as i32 });
            (v1::ImportSecretsResponse { results: results.collect() }.encoded_len(), outcomes.bytes_max())
        }
        "Manifests/SetManifest" | "References/SetReference" => {
            let kind = if method.starts_with('M') { DeclarationKind::Manifest } else { DeclarationKind::Reference };
            let pattern = format!("{own}/workspaces/{}/{}/{}", id(), kind.collection(), id());
            let variables = (0..200).map(|n| Declared {
                variable: VariableName::parse(&format!("{}{n:03}", "N".repeat(125))).expect("a name"),
                required: true,
                description: "d".repeat(limits::MANIFEST_VARIABLE_DESCRIPTION_BYTES),
            });
            let new =
                NewDeclaration { description: "d".repeat(limits::DESCRIPTION_BYTES), variables: variables.collect() };
            let name = DeclarationName::parse(&pattern).expect("a name");
            let shown = vault.set_declaration(&call, name, Ok(new)).await.expect("set");
            let bound = shown.bytes_max();
            match kind {
                DeclarationKind::Manifest => (to_manifest(shown).encoded_len(), bound),
                DeclarationKind::Reference => (to_reference(shown).encoded_len(), bound),
            }
        }
        "Secrets/CloneSecrets" | "Secrets/CreateSecret" | "Secrets/UpdateSecret" => {
            let long = "N".repeat(128);
            let shown = vault.create_secret(&call, own.clone(), Ok(large(&long))).await;
            let shown = match shown {
                Ok(shown) => shown,
                Err(Error::SecretExists(names)) => vault.get_secret(&call, names[0].clone()).await.expect("there"),
                Err(error) => panic!("{error}"),
            };
            let cloned_from = format!("{own}/workspaces/{}/secrets/{long}", id());
            let shown = ShownSecret { meta: crate::record::SecretMeta { cloned_from, ..shown.meta }, ..shown };
            let bound = shown.bytes_max();
            (to_secret(shown).encoded_len(), bound)
        }
        "Tokens/ExchangeStartToken" | "Tokens/IssueToken" => {
            let holder = principal(&format!("{own}/workspaces/{}/servers/{}", id(), id()));
            let description = "d".repeat(limits::TOKEN_DESCRIPTION_BYTES);
            let new = NewToken { ttl: None, description, start: None };
            let operator = world.call(vault, OPERATOR).await;
            let issued: IssuedToken = vault.issue_token(&operator, holder, Ok(new)).await.expect("issued");
            let token = issued.token.expose().to_owned();
            let message = v1::IssueTokenResponse { token, metadata: Some(to_token(&issued.entry)) };
            (message.encoded_len(), issued.bytes_max())
        }
        other => panic!("{other} is not tried"),
    }
}

#[tokio::test]
async fn no_answer_to_a_change_is_larger_than_reckoned_before_it() {
    let descriptors = FileDescriptorSet::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("compiled in");
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    let all = services
        .flat_map(|service| service.method.iter().map(move |method| format!("{}/{}", service.name(), method.name())));
    let mut all: Vec<_> = all.collect();
    all.sort();
    let mut known: Vec<_> = [WRITES, SHORT, OTHERS].concat();
    known.sort_unstable();
    assert_eq!(all, known, "a new method belongs in one of the lists");

    let world = World::new().await;
    let vault = world.vault().await;
    for pattern in [organization().to_string(), format!("{}/workspaces/-", organization())] {
        world.grant(&vault, USER, Permission::SecretsManage, &pattern).await;
    }
    world
        .grant(&vault, OPERATOR, Permission::WorkloadsIssue, &format!("{}/workspaces/-/servers/-", organization()))
        .await;
    for method in WRITES {
        let (sent, reckoned) = largest(&world, &vault, method).await;
        assert!(sent > 200 && sent <= reckoned, "{method}: {sent} bytes, reckoned as {reckoned}");
    }
}

#[tokio::test]
async fn a_clone_whose_answer_could_not_be_sent_clones_nothing() {
    let world = World::new().await;
    let vault = world.vault().await;
    let (source, destination) = (Scope::parse("projects/p").expect("a scope"), organization());
    for scope in [&source, &destination] {
        world.grant(&vault, USER, Permission::SecretsManage, scope.as_str()).await;
    }
    let call = world.call(&vault, USER).await;
    let entries = (0..300).map(|n| ImportEntry {
        variable: VariableName::parse(&format!("N{n}")).expect("a name"),
        value: Some(value("v")),
        kind: None,
        description: None,
    });
    let import = Import { entries: entries.collect(), conflict: Conflict::Fail, validate_only: false, sharing: None };
    vault.import_secrets(&call, source.clone(), Ok(import)).await.expect("imported");
    let lines = world.audit.phases("test").len();
    let clone = |names: Vec<SecretName>, scopes: Vec<Scope>| CloneRequest {
        names,
        scopes,
        destination: destination.clone(),
        replace: false,
        sharing: Ok(Some(SharedWith::Only((0..250).map(|n| format!("{n:03}")).collect()))),
    };
    let refused = vault.clone_secrets(&call, clone(Vec::new(), vec![source])).await;
    assert!(matches!(refused.map(drop), Err(Error::TooMany(text)) if text.contains("4 MiB")));
    assert!(!world.audit.phases("test")[lines..].contains(&Phase::Done), "nothing was done");
    let there =
        vault.get_secret(&call, SecretName::new(destination.clone(), VariableName::parse("N0").expect("a name")));
    assert!(there.await.is_err());
    let one = vault.clone_secrets(&call, clone(vec![secret("projects/p/secrets/N0")], Vec::new())).await;
    assert_eq!(one.expect("fewer fit").secrets.len(), 1);
}
