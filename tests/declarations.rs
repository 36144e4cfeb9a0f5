//! What tools use and what workloads expect: references guard deletes, manifests say what is missing.

use coffer_client::Client;
use coffer_proto::v1::{self, SecretKind};
use prost::Message as _;
use tonic::Code;

use crate::harness::{Server, forms_of, occurrences, refused, secret};

const PROJECT: &str = "projects/p";
const CHILD: &str = "projects/p/environments/e";
const PLUGIN: &str = "accounts/ada/plugins/github";
const EVERY_PLUGIN: &str = "accounts/-/plugins/github";

fn reference(name: &str, variables: &[&str]) -> v1::SetReferenceRequest {
    let variables = variables.iter().map(|name| (*name).to_owned()).collect();
    v1::SetReferenceRequest { name: name.to_owned(), variables, ..Default::default() }
}

fn variable(name: &str, required: bool) -> v1::ManifestVariable {
    v1::ManifestVariable { variable: name.to_owned(), required, description: format!("what {name} is") }
}

fn manifest(name: &str, variables: &[(&str, bool)]) -> v1::SetManifestRequest {
    let variables = variables.iter().map(|(name, required)| variable(name, *required)).collect();
    v1::SetManifestRequest { name: name.to_owned(), variables, ..Default::default() }
}

fn deletion(scope: &str, name: &str) -> v1::DeleteSecretRequest {
    v1::DeleteSecretRequest { name: format!("{scope}/secrets/{name}"), ..Default::default() }
}

async fn references_of(client: &Client, parent: &str) -> Vec<(String, Vec<String>)> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListReferencesRequest { parent: parent.into(), page_size: 2, page_token };
        let page = client.references().list_references(request).await.expect("listed").into_inner();
        assert!(page.references.len() <= 2);
        all.extend(page.references.into_iter().map(|one| (one.name, one.variables)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn a_secret_in_use_is_deleted_with_force_only() {
    let server = Server::start();
    let manager = server.manager(&[PROJECT]).await;
    manager.secrets().create_secret(secret(PROJECT, "KEY", "v")).await.expect("created");
    manager.secrets().create_secret(secret(PROJECT, "UNUSED", "v")).await.expect("created");
    let tool = v1::SetReferenceRequest {
        description: "The weather tool".into(),
        texts: vec!["Bearer {{KEY}} of {{ OTHER }}, not {{this one}}".into(), "{{KEY}}".into()],
        ..reference("projects/p/references/weather", &["ENV_KEY"])
    };
    let set = manager.references().set_reference(tool).await.expect("set").into_inner();
    assert_eq!(set.variables, ["ENV_KEY", "KEY", "OTHER"]);
    assert_eq!((set.description.as_str(), set.updater.as_str()), ("The weather tool", "users/manager"));
    assert!(set.create_time.is_some() && set.create_time == set.update_time);

    let refusal = refused(manager.secrets().delete_secret(deletion(PROJECT, "KEY")).await);
    assert_eq!(refusal.why(), (Code::FailedPrecondition, "SECRET_REFERENCED"));
    assert!(refusal.message.contains("projects/p/references/weather"), "{}", refusal.message);
    manager.secrets().delete_secret(deletion(PROJECT, "UNUSED")).await.expect("nothing uses it");
    let forced = v1::DeleteSecretRequest { force: true, ..deletion(PROJECT, "KEY") };
    manager.secrets().delete_secret(forced).await.expect("forced");
    let is_forced = |line: &serde_json::Value| line["details"]["force"] == "true" && line["phase"] == "done";
    assert_eq!(server.audit().iter().filter(|line| is_forced(line)).count(), 1, "and it is said who forced it");

    manager.secrets().create_secret(secret(PROJECT, "KEY", "again")).await.expect("created");
    let again = reference("projects/p/references/weather", &["OTHER"]);
    let again = manager.references().set_reference(again).await.expect("replaced").into_inner();
    assert_eq!((again.create_time, again.variables), (set.create_time, vec!["OTHER".to_owned()]));
    manager.secrets().delete_secret(deletion(PROJECT, "KEY")).await.expect("not used any more");
}

#[tokio::test]
async fn what_is_inherited_is_guarded_where_it_arrives() {
    let mut server = Server::start();
    let manager = server.manager(&[PROJECT]).await;
    let child = server.with("users/child", &[("secrets:manage", CHILD)]).await;
    manager.secrets().create_secret(secret(PROJECT, "KEY", "v")).await.expect("created");
    let name = format!("{CHILD}/references/tool");
    child.references().set_reference(reference(&name, &["KEY"])).await.expect("set");

    // The project's manager may not read the environment: they learn that it is used, and not by what.
    let refusal = refused(manager.secrets().delete_secret(deletion(PROJECT, "KEY")).await);
    assert_eq!(refusal.why(), (Code::FailedPrecondition, "SECRET_REFERENCED"));
    assert!(refusal.message.contains("a reference that you may not see"), "{}", refusal.message);
    assert!(!refusal.message.contains("environments"), "{}", refusal.message);
    server.grant("users/manager", "secrets:read", CHILD).await;
    server.kill_and_restart();
    let manager = server.manager(&[PROJECT]).await;
    let child = server.with("users/child", &[]).await;
    let refusal = refused(manager.secrets().delete_secret(deletion(PROJECT, "KEY")).await);
    assert!(refusal.message.contains(&name) && !refusal.message.contains("not see"), "{}", refusal.message);

    // An environment's own secret is what the name stands for there.
    child.secrets().create_secret(secret(CHILD, "KEY", "own")).await.expect("created");
    manager.secrets().delete_secret(deletion(PROJECT, "KEY")).await.expect("shadowed");
    let refusal = refused(child.secrets().delete_secret(deletion(CHILD, "KEY")).await);
    assert_eq!(refusal.reason, "SECRET_REFERENCED");
    let request = v1::DeleteReferenceRequest { name: name.clone() };
    child.references().delete_reference(request.clone()).await.expect("removed");
    child.secrets().delete_secret(deletion(CHILD, "KEY")).await.expect("not used any more");
    let refusal = refused(child.references().delete_reference(request).await);
    assert_eq!(refusal.why(), (Code::NotFound, "REFERENCE_NOT_FOUND"));
}

#[tokio::test]
async fn a_scopes_list_has_what_covers_it_and_a_patterns_what_stands_on_it() {
    let server = Server::start();
    let grants = [("secrets:manage", "projects/-"), ("secrets:manage", PROJECT)];
    let manager = server.with("users/manager", &grants).await;
    let names = [
        "projects/-/references/a",
        "projects/-/references/z",
        "projects/p/references/b",
        "projects/p/references/c",
        "projects/q/references/d",
    ];
    for name in names {
        manager.references().set_reference(reference(name, &["B", "A", "B"])).await.expect("set");
    }
    manager.manifests().set_manifest(manifest("projects/p/manifests/b", &[("A", true)])).await.expect("set");
    let listed = async |parent: &str| -> Vec<String> {
        references_of(&manager, parent).await.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(listed(PROJECT).await, names[..4]);
    assert_eq!(listed("projects/-").await, names[..2]);
    assert_eq!(listed("projects/other").await, names[..2]);
    let (_, variables) = &references_of(&manager, PROJECT).await[0];
    assert_eq!(variables, &["A", "B"], "in order, each once");

    // A reader of one project lists that project, and not the pattern.
    let reader = server.with("users/reader", &[("secrets:read", PROJECT)]).await;
    assert_eq!(references_of(&reader, PROJECT).await.len(), 4);
    let request = v1::ListReferencesRequest { parent: "projects/-".into(), ..Default::default() };
    assert_eq!(refused(reader.references().list_references(request).await).code, Code::PermissionDenied);
    let on_all = reference("projects/-/references/a", &["A"]);
    let one = server.with("users/one", &[("secrets:manage", PROJECT)]).await;
    assert_eq!(refused(one.references().set_reference(on_all).await).code, Code::PermissionDenied);
    let request = v1::DeleteReferenceRequest { name: "projects/-/references/a".into() };
    assert_eq!(refused(one.references().delete_reference(request).await).code, Code::PermissionDenied);
}

/// A publisher writes once what every installation of its plugin needs.
#[tokio::test]
async fn a_publishers_manifest_says_what_an_installation_misses() {
    let mut server = Server::start();
    let publisher = server.with("services/github", &[("secrets:manage", EVERY_PLUGIN)]).await;
    let wanted = [("TOKEN", true), ("ORG", true), ("PROXY", false)];
    let name = format!("{EVERY_PLUGIN}/manifests/v1");
    let set = publisher.manifests().set_manifest(manifest(&name, &wanted)).await.expect("set").into_inner();
    let order: Vec<_> = set.variables.iter().map(|one| (one.variable.as_str(), one.required)).collect();
    assert_eq!(order, [("ORG", true), ("PROXY", false), ("TOKEN", true)]);
    server.kill_and_restart();

    let ada = server.with("users/ada", &[]).await;
    let missing = async |parent: &str| {
        let request = v1::GetSecretStatsRequest { parent: parent.into() };
        let stats = ada.secrets().get_secret_stats(request).await.expect("stats").into_inner();
        (stats.scopes, stats.total, stats.missing)
    };
    assert_eq!(missing(PLUGIN).await, (0, 0, 2), "nothing is there yet");
    assert_eq!(missing("accounts/ada/plugins/-").await, (0, 0, 0), "nor is the plugin");
    assert_eq!(missing("accounts/ada/plugins/other").await, (0, 0, 0));
    let request = v1::ListManifestsRequest { parent: PLUGIN.into(), ..Default::default() };
    let listed = ada.manifests().list_manifests(request).await.expect("listed").into_inner().manifests;
    assert_eq!(listed, [set]);

    ada.secrets().create_secret(secret(PLUGIN, "TOKEN", "v")).await.expect("created");
    assert_eq!(missing(PLUGIN).await, (1, 1, 1));
    assert_eq!(missing("accounts/ada/plugins/-").await, (1, 1, 1));
    let client = server.client(&server.workload_token("accounts/ada/plugins/github/servers/mcp").await);
    let fetched = client.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    assert_eq!(fetched.expect("fetched").into_inner().missing_required, ["ORG"]);
    ada.secrets().create_secret(secret(PLUGIN, "ORG", "v")).await.expect("created");
    assert_eq!(missing(PLUGIN).await, (1, 2, 0));

    let publisher = server.with("services/github", &[]).await;
    let request = v1::DeleteManifestRequest { name };
    publisher.manifests().delete_manifest(request.clone()).await.expect("removed");
    let refusal = refused(publisher.manifests().delete_manifest(request).await);
    assert_eq!(refusal.why(), (Code::NotFound, "MANIFEST_NOT_FOUND"));
}

#[tokio::test]
async fn what_is_inherited_is_not_missing() {
    let server = Server::start();
    let (organization, workspaces) = ("organizations/o", "organizations/o/workspaces/-");
    let manager = server.manager(&[organization, workspaces]).await;
    let shared = v1::Sharing {
        mode: v1::sharing::Mode::Only.into(),
        workspaces: vec!["organizations/o/workspaces/with".into()],
    };
    let request = v1::CreateSecretRequest { sharing: Some(shared), ..secret(organization, "KEY", "v") };
    manager.secrets().create_secret(request).await.expect("created");
    for id in ["with", "without"] {
        let place = format!("organizations/o/workspaces/{id}");
        manager.secrets().create_secret(secret(&place, "OWN", "v")).await.expect("created");
    }
    let name = format!("{workspaces}/manifests/m");
    manager.manifests().set_manifest(manifest(&name, &[("KEY", true), ("OWN", true)])).await.expect("set");
    for (parent, expected) in [("with", 0), ("without", 1), ("-", 1), ("new", 2)] {
        let parent = format!("organizations/o/workspaces/{parent}");
        let request = v1::GetSecretStatsRequest { parent: parent.clone() };
        let stats = manager.secrets().get_secret_stats(request).await.expect("stats").into_inner();
        assert_eq!(stats.missing, expected, "{parent}");
    }
}

#[tokio::test]
async fn a_clone_tells_what_the_destination_lacks() {
    let server = Server::start();
    let places = ["projects/p", "projects/q", "projects/q/environments/-"];
    let manager = server.manager(&places).await;
    for (place, name) in [("projects/p", "KEY"), ("projects/p", "MORE"), ("projects/q", "THERE")] {
        manager.secrets().create_secret(secret(place, name, "v")).await.expect("created");
    }
    let uses = ["KEY", "MORE", "THERE", "NOWHERE"];
    manager.references().set_reference(reference("projects/p/references/tool", &uses)).await.expect("set");
    for (destination, expected) in
        [("projects/q/environments/e", &["MORE", "NOWHERE"][..]), ("projects/q", &["MORE", "NOWHERE"])]
    {
        let (names, destination) = (vec!["projects/p/secrets/KEY".into()], destination.into());
        let request = v1::CloneSecretsRequest { names, destination, ..Default::default() };
        let cloned = manager.secrets().clone_secrets(request).await.expect("cloned").into_inner();
        assert_eq!(
            (cloned.secrets.len(), &cloned.missing_references[..]),
            (1, &expected.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()[..])
        );
    }
    // What stands on the sources goes nowhere.
    assert_eq!(references_of(&manager, "projects/q").await, []);
}

#[tokio::test]
async fn bad_declarations_are_refused_by_field() {
    let server = Server::start();
    let manager = server.manager(&[PROJECT, "organizations/o"]).await;
    let (raw, token) = (server.raw(), server.token("users/manager").await);
    let field = async |method: &str, request: Vec<u8>| {
        let refusal = refused(raw.call(&format!("/coffer.v1.{method}"), Some(&token), request).await);
        assert_eq!(refusal.code, Code::InvalidArgument, "{method}: {refusal:?}");
        refusal.field().to_owned()
    };
    let name = "projects/p/references/r";
    let many: Vec<String> = (0..501).map(|n| format!("V{n}")).collect();
    let long = "d".repeat(1025);
    let references = [
        ("name", reference("projects/p/manifests/r", &["A"])),
        ("name", reference("projects/p/references/R", &["A"])),
        ("name", reference("projects/p/servers/s/references/r", &["A"])),
        ("variables", reference(name, &[])),
        ("variables", v1::SetReferenceRequest { texts: vec!["no names {{here}}".into()], ..reference(name, &[]) }),
        ("variables[1]", reference(name, &["A", "a"])),
        ("variables", v1::SetReferenceRequest { variables: many, ..reference(name, &[]) }),
        ("texts", v1::SetReferenceRequest { texts: vec![String::new(); 1001], ..reference(name, &["A"]) }),
        ("description", v1::SetReferenceRequest { description: long.clone(), ..reference(name, &["A"]) }),
    ];
    for (at, (expected, request)) in references.into_iter().enumerate() {
        assert_eq!(field("References/SetReference", request.encode_to_vec()).await, expected, "reference {at}");
    }
    let name = "projects/p/manifests/m";
    let many: Vec<_> = (0..201).map(|n| variable(&format!("V{n}"), true)).collect();
    let described = |text: String| v1::ManifestVariable { description: text, ..variable("A", true) };
    let manifests = [
        ("name", manifest("projects/p/references/m", &[("A", true)])),
        ("name", manifest("organizations/o/manifests/m", &[("A", true)])),
        ("variables", manifest(name, &[])),
        ("variables[0].variable", manifest(name, &[("", true)])),
        ("variables[1].variable", manifest(name, &[("A", true), ("LD_PRELOAD", true)])),
        ("variables[1].variable", manifest(name, &[("A", true), ("A", false)])),
        ("variables", v1::SetManifestRequest { variables: many, ..manifest(name, &[]) }),
        (
            "variables[0].description",
            v1::SetManifestRequest { variables: vec![described("d".repeat(257))], ..manifest(name, &[]) },
        ),
        (
            "variables[0].description",
            v1::SetManifestRequest { variables: vec![described("\u{1b}".into())], ..manifest(name, &[]) },
        ),
        ("description", v1::SetManifestRequest { description: long, ..manifest(name, &[("A", true)]) }),
    ];
    for (at, (expected, request)) in manifests.into_iter().enumerate() {
        assert_eq!(field("Manifests/SetManifest", request.encode_to_vec()).await, expected, "manifest {at}");
    }
    let list = v1::ListReferencesRequest { parent: PROJECT.into(), page_token: "x".into(), ..Default::default() };
    assert_eq!(field("References/ListReferences", list.encode_to_vec()).await, "page_token");
    let list = v1::ListManifestsRequest { parent: PROJECT.into(), page_size: -1, ..Default::default() };
    assert_eq!(field("Manifests/ListManifests", list.encode_to_vec()).await, "page_size");
    manager.references().set_reference(reference("organizations/o/references/r", &["A"])).await.expect("these may");
}

/// Her own account, and no grant that anybody gave: so the account has a limit of its own.
#[tokio::test]
async fn an_account_and_its_plugins_hold_so_many() {
    let server = Server::start();
    let ada = server.with("users/ada", &[]).await;
    for n in 0..1_000 {
        let on = ["accounts/ada", "accounts/ada/plugins/-", PLUGIN][n % 3];
        let request = reference(&format!("{on}/references/r{n}"), &["A"]);
        ada.references().set_reference(request).await.expect("set");
    }
    for on in ["accounts/ada", "accounts/ada/plugins/new"] {
        let refusal =
            refused(ada.references().set_reference(reference(&format!("{on}/references/more"), &["A"])).await);
        assert_eq!(refusal.why(), (Code::FailedPrecondition, "TOO_MANY"));
    }
    ada.references().set_reference(reference("accounts/ada/references/r0", &["B"])).await.expect("one that is there");
}

/// People paste a whole header where a template belongs.
#[tokio::test]
async fn texts_are_neither_kept_nor_written_down() {
    let mut server = Server::builder().args(["--log", "trace"]).start();
    let manager = server.manager(&[PROJECT]).await;
    let pasted = "canary-Rk82hXq0-ls";
    let plain = v1::CreateSecretRequest { kind: SecretKind::Plain.into(), ..secret(PROJECT, "KEY", "v") };
    manager.secrets().create_secret(plain).await.expect("created");
    let texts = vec![format!("Bearer {pasted} {{{{KEY}}}}"), format!("{{{{{pasted}}}}}")];
    let request = v1::SetReferenceRequest { texts, ..reference("projects/p/references/r", &[]) };
    manager.references().set_reference(request).await.expect("set");
    assert_eq!(references_of(&manager, PROJECT).await[0].1, ["KEY"]);
    assert!(server.stop().await.success());
    assert_eq!(occurrences(server.home(), &forms_of(pasted)), Vec::<String>::new());
}
