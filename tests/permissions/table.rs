//! The table: every method of the contract, how to call it on `projects/p`, and which roles may.

use coffer_proto::v1;
use prost::Message as _;

use super::roles::{CANARY, CLONES, Role, SCOPE, Stage, WORKLOAD};
use crate::harness::secret;

/// One method, called one way.
pub(crate) struct Row {
    /// `Secrets/CreateSecret`
    pub(crate) method: &'static str,
    /// The roles it is not refused to.
    pub(crate) allowed: &'static [Role],
    /// Whether its answer may hold encrypted values: of the whole table only a fetch and a template may.
    pub(crate) returns_values: bool,
    /// The request, encoded. Called anew for each role, so that it may prepare what it destroys.
    pub(crate) request: Request,
}

pub(crate) enum Request {
    /// The same for every role.
    Fixed(fn() -> Vec<u8>),
    /// With a name of its own for each role.
    Named(fn(&str) -> Vec<u8>),
    /// On something that the operator makes for each role: the resource's name is given.
    OnGrant(fn(String) -> Vec<u8>),
    OnToken(&'static str, fn(String) -> Vec<u8>),
}

const MANAGER: &[Role] = &[Role::Manager];
const READERS: &[Role] = &[Role::Reader, Role::Manager];
/// Everyone who is recognized: the answer holds only what the caller may see.
const EVERYONE: &[Role] = &[
    Role::User,
    Role::Service,
    Role::Owner,
    Role::Reader,
    Role::Manager,
    Role::ManagerBelow,
    Role::AccessManager,
    Role::Injector,
    Role::WorkloadIssuer,
    Role::TokenIssuer,
    Role::Operator,
    Role::Workload,
    Role::OtherWorkload,
];

/// A pattern of scopes below.
const BELOW: &str = "projects/p/environments/-";

fn name(variable: &str) -> String {
    format!("{SCOPE}/secrets/{variable}")
}

fn grant(principal: &str, permission: &str, pattern: &str) -> Vec<u8> {
    v1::CreateGrantRequest { principal: principal.into(), permission: permission.into(), pattern: pattern.into() }
        .encode_to_vec()
}

fn issue(principal: &str) -> Vec<u8> {
    v1::IssueTokenRequest { principal: principal.into(), ..Default::default() }.encode_to_vec()
}

fn fetch(workload: &str) -> Vec<u8> {
    v1::FetchEnvironmentRequest { workload: workload.into(), ..Default::default() }.encode_to_vec()
}

fn render(workload: &str) -> Vec<u8> {
    let sink = v1::render_template_request::Sink::Header.into();
    let texts = vec!["{{KEPT}}".into()];
    v1::RenderTemplateRequest { workload: workload.into(), texts, sink, ..Default::default() }.encode_to_vec()
}

fn redact(workload: &str) -> Vec<u8> {
    v1::RedactTextRequest { workload: workload.into(), texts: vec![CANARY.into()] }.encode_to_vec()
}

fn redact_part(workload: &str) -> Vec<u8> {
    v1::RedactStreamRequest { workload: workload.into(), part: CANARY.into() }.encode_to_vec()
}

fn set_reference(on: &str) -> Vec<u8> {
    let variables = vec!["ELSEWHERE".into()];
    v1::SetReferenceRequest { name: format!("{on}/references/r"), variables, ..Default::default() }.encode_to_vec()
}

fn set_manifest(on: &str) -> Vec<u8> {
    let variables = vec![v1::ManifestVariable { variable: "WANTED".into(), ..Default::default() }];
    v1::SetManifestRequest { name: format!("{on}/manifests/m"), variables, ..Default::default() }.encode_to_vec()
}

fn watch(workload: &str) -> Vec<u8> {
    v1::WatchEnvironmentRequest { workload: workload.into(), ..Default::default() }.encode_to_vec()
}

fn list_instances(parent: &str) -> Vec<u8> {
    v1::ListInstancesRequest { parent: parent.into(), ..Default::default() }.encode_to_vec()
}

fn watch_instances(parent: &str) -> Vec<u8> {
    v1::WatchInstancesRequest { parent: parent.into() }.encode_to_vec()
}

fn rotate(keys: v1::RotatedKeys) -> Vec<u8> {
    v1::RotateKeysRequest { keys: keys.into() }.encode_to_vec()
}

pub(crate) fn rows() -> Vec<Row> {
    use Request::{Fixed, Named, OnGrant, OnToken};
    let row = |method, allowed, request| Row { method, allowed, returns_values: false, request };
    let mut rows = vec![
        row("Secrets/CreateSecret", MANAGER, Named(|id| secret(SCOPE, id, CANARY).encode_to_vec())),
        row("Secrets/GetSecret", READERS, Fixed(|| v1::GetSecretRequest { name: name("KEPT") }.encode_to_vec())),
        row(
            "Secrets/ListSecrets",
            READERS,
            Fixed(|| v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Secrets/ListSecrets",
            EVERYONE,
            Fixed(|| v1::ListSecretsRequest { parent: "projects/-".into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Secrets/UpdateSecret",
            MANAGER,
            Named(|id| {
                let description = Some(format!("by {id}"));
                let value = Some(CANARY.as_bytes().to_vec());
                v1::UpdateSecretRequest { name: name("KEPT"), description, value, ..Default::default() }.encode_to_vec()
            }),
        ),
        row(
            "Secrets/DeleteSecret",
            MANAGER,
            Fixed(|| v1::DeleteSecretRequest { name: name("OTHER"), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Secrets/DeleteSecret",
            MANAGER,
            Fixed(|| {
                v1::DeleteSecretRequest { name: name("OTHER"), force: true, ..Default::default() }.encode_to_vec()
            }),
        ),
        row(
            "Secrets/CloneSecrets",
            MANAGER,
            Fixed(|| {
                let (names, destination) = (vec![name("KEPT")], CLONES.into());
                v1::CloneSecretsRequest { names, destination, replace: true, ..Default::default() }.encode_to_vec()
            }),
        ),
        row(
            "Secrets/CloneSecrets",
            &[],
            Fixed(|| {
                let (names, destination) = (vec![name("KEPT")], "projects/elsewhere".into());
                v1::CloneSecretsRequest { names, destination, ..Default::default() }.encode_to_vec()
            }),
        ),
        row(
            "Secrets/GetSecretStats",
            READERS,
            Fixed(|| v1::GetSecretStatsRequest { parent: SCOPE.into() }.encode_to_vec()),
        ),
        row(
            "Secrets/DescribeEnvironment",
            READERS,
            Fixed(|| v1::DescribeEnvironmentRequest { name: SCOPE.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Secrets/DescribeEnvironment",
            READERS,
            Fixed(|| v1::DescribeEnvironmentRequest { name: WORKLOAD.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Imports/ImportSecrets",
            MANAGER,
            Named(|id| {
                let entry = v1::ImportEntry { secret_id: id.into(), value: CANARY.into(), ..Default::default() };
                let conflict = v1::import_secrets_request::Conflict::Replace.into();
                v1::ImportSecretsRequest {
                    parent: SCOPE.into(),
                    entries: vec![entry],
                    conflict,
                    validate_only: false,
                    sharing: None,
                }
                .encode_to_vec()
            }),
        ),
        row(
            "Scopes/GetScopeHealth",
            READERS,
            Fixed(|| v1::GetScopeHealthRequest { scope: SCOPE.into(), ..Default::default() }.encode_to_vec()),
        ),
        row("References/SetReference", MANAGER, Fixed(|| set_reference(SCOPE))),
        row("References/SetReference", &[Role::ManagerBelow], Fixed(|| set_reference(BELOW))),
        row("References/SetReference", &[], Fixed(|| set_reference("projects/-"))),
        row(
            "References/ListReferences",
            READERS,
            Fixed(|| v1::ListReferencesRequest { parent: SCOPE.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "References/ListReferences",
            &[Role::ManagerBelow],
            Fixed(|| v1::ListReferencesRequest { parent: BELOW.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "References/DeleteReference",
            MANAGER,
            Fixed(|| v1::DeleteReferenceRequest { name: format!("{SCOPE}/references/r") }.encode_to_vec()),
        ),
        row("Manifests/SetManifest", MANAGER, Fixed(|| set_manifest(SCOPE))),
        row("Manifests/SetManifest", &[Role::ManagerBelow], Fixed(|| set_manifest(BELOW))),
        row("Manifests/SetManifest", &[], Fixed(|| set_manifest("projects/-"))),
        row(
            "Manifests/ListManifests",
            READERS,
            Fixed(|| v1::ListManifestsRequest { parent: SCOPE.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Manifests/DeleteManifest",
            MANAGER,
            Fixed(|| v1::DeleteManifestRequest { name: format!("{SCOPE}/manifests/m") }.encode_to_vec()),
        ),
        row("Instances/ListInstances", READERS, Fixed(|| list_instances(SCOPE))),
        row("Instances/ListInstances", READERS, Fixed(|| list_instances(WORKLOAD))),
        row("Instances/ListInstances", EVERYONE, Fixed(|| list_instances("projects/-"))),
        row("Instances/WatchInstances", READERS, Fixed(|| watch_instances(SCOPE))),
        row("Instances/WatchInstances", EVERYONE, Fixed(|| watch_instances("projects/-"))),
        row("Workloads/WatchEnvironment", &[Role::Injector, Role::Workload], Fixed(|| watch(WORKLOAD))),
        row("Workloads/WatchEnvironment", &[], Fixed(|| watch("projects/p/environments/e/servers/this"))),
        row("Scopes/ListScopes", EVERYONE, Fixed(|| v1::ListScopesRequest::default().encode_to_vec())),
        row(
            "Access/CreateGrant",
            &[Role::AccessManager, Role::Operator],
            Named(|id| grant(&format!("users/{}", id.to_lowercase()), "secrets:read", SCOPE)),
        ),
        row(
            "Access/CreateGrant",
            &[Role::Operator],
            Named(|id| grant(&format!("users/{}", id.to_lowercase()), "secrets:read", "projects/-")),
        ),
        row(
            "Access/CreateGrant",
            &[Role::Operator],
            Named(|id| grant(&format!("services/{}", id.to_lowercase()), "tokens:issue", "users/x")),
        ),
        row(
            "Access/CreateGrant",
            &[Role::Operator],
            Named(|id| grant(&format!("users/{}", id.to_lowercase()), "operator", "")),
        ),
        row(
            "Access/DeleteGrant",
            &[Role::AccessManager, Role::Operator],
            OnGrant(|name| v1::DeleteGrantRequest { name }.encode_to_vec()),
        ),
        row("Access/ListGrants", EVERYONE, Fixed(|| v1::ListGrantsRequest::default().encode_to_vec())),
        row(
            "Access/ListEffectiveAccess",
            &[Role::AccessManager, Role::Operator],
            Fixed(|| v1::ListEffectiveAccessRequest { scope: SCOPE.into(), ..Default::default() }.encode_to_vec()),
        ),
        row(
            "Access/TestPermissions",
            EVERYONE,
            Fixed(|| {
                let permissions = vec!["secrets:read".into(), "secrets:inject".into()];
                v1::TestPermissionsRequest { resource: SCOPE.into(), permissions }.encode_to_vec()
            }),
        ),
        row("Tokens/IssueToken", &[Role::TokenIssuer, Role::Operator], Fixed(|| issue("users/anyone"))),
        row("Tokens/IssueToken", &[Role::Operator], Fixed(|| issue("services/anything"))),
        row("Tokens/IssueToken", &[Role::WorkloadIssuer], Fixed(|| issue("projects/p/servers/new"))),
        // A start token is no role of the table; whoever has another is told so.
        row(
            "Tokens/ExchangeStartToken",
            EVERYONE,
            Fixed(|| v1::ExchangeStartTokenRequest { nonce: vec![7; 32] }.encode_to_vec()),
        ),
        row("Tokens/ListTokens", EVERYONE, Fixed(|| v1::ListTokensRequest::default().encode_to_vec())),
        row(
            "Tokens/RevokeToken",
            &[Role::TokenIssuer, Role::Operator],
            OnToken("users/anyone", |name| v1::RevokeTokenRequest { name }.encode_to_vec()),
        ),
        row(
            "Tokens/RevokeToken",
            &[Role::Operator],
            OnToken("services/anything", |name| v1::RevokeTokenRequest { name }.encode_to_vec()),
        ),
    ];
    let operation = |method, request| row(method, &[Role::Operator], request);
    rows.extend([
        operation("Operations/GetStatus", Fixed(Vec::new)),
        operation("Operations/CreateSnapshot", Fixed(Vec::new)),
        operation("Operations/ListSnapshots", Fixed(Vec::new)),
        operation("Operations/StreamBackup", Fixed(Vec::new)),
        operation("Operations/RotateKeys", Fixed(|| rotate(v1::RotatedKeys::Root))),
        operation("Operations/RotateKeys", Fixed(|| rotate(v1::RotatedKeys::Data))),
    ]);
    let values =
        |allowed, request| Row { method: "Workloads/FetchEnvironment", allowed, returns_values: true, request };
    rows.push(values(&[Role::Injector, Role::Workload], Fixed(|| fetch(WORKLOAD))));
    rows.push(values(&[Role::Injector, Role::OtherWorkload], Fixed(|| fetch("projects/p/servers/other"))));
    rows.push(values(&[], Fixed(|| fetch("projects/p/environments/e/servers/this"))));
    rows.push(values(&[], Fixed(|| fetch("projects/elsewhere/servers/this"))));
    rows.push(Row {
        method: "Templates/RenderTemplate",
        allowed: &[Role::Injector, Role::Workload],
        returns_values: true,
        request: Fixed(|| render(WORKLOAD)),
    });
    rows.push(row("Redactions/RedactText", &[Role::Injector, Role::Workload], Fixed(|| redact(WORKLOAD))));
    rows.push(row("Redactions/RedactText", &[], Fixed(|| redact("projects/elsewhere/servers/this"))));
    rows.push(row("Redactions/RedactStream", &[Role::Injector, Role::Workload], Fixed(|| redact_part(WORKLOAD))));
    // The last, for it leaves nothing behind.
    rows.push(row(
        "Scopes/DeleteScope",
        &[Role::AccessManager],
        Fixed(|| v1::DeleteScopeRequest { name: SCOPE.into(), ..Default::default() }.encode_to_vec()),
    ));
    rows
}

impl Request {
    pub(crate) async fn encoded(&self, stage: &Stage, role: Role) -> Vec<u8> {
        self.encoded_as(stage, &format!("BY_{role:?}").to_uppercase()).await
    }

    /// The same with another id for what it makes.
    pub(crate) async fn encoded_as(&self, stage: &Stage, id: &str) -> Vec<u8> {
        match self {
            Request::Fixed(encode) => encode(),
            Request::Named(encode) => encode(id),
            Request::OnGrant(encode) => {
                let request = v1::CreateGrantRequest {
                    principal: format!("users/for-{}", id.to_lowercase()),
                    permission: "secrets:read".into(),
                    pattern: SCOPE.into(),
                };
                let made = stage.server.operator().access().create_grant(request).await.expect("made");
                encode(made.into_inner().name)
            }
            Request::OnToken(principal, encode) => {
                let token = stage.server.token(principal).await;
                encode(format!("tokens/{}", token.split('_').nth(2).expect("an id")))
            }
        }
    }
}
