//! A store moves from a directory into etcd and back, as the README says it, and nothing is lost or revived on the way.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_client::Client;
use coffer_proto::v1::{self, SecretKind};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Etcd, Server, done, not_done, refused, restore, secret, text, until, write_private};

const SCOPE: &str = "projects/shop";
const WORKLOAD: &str = "projects/shop/servers/web";

fn verify(server: &Server, config: &Path) -> Command {
    let mut command = Server::command(&["verify", "--config"]);
    command.arg(config).arg("--key-file").arg(server.key_file());
    command
}

fn backup(server: &Server, name: &str) -> PathBuf {
    server.cli(&server.operator_token()).args(["store", "backup", name]).run().ok();
    server.home().join(name)
}

/// How many records a verb told of.
fn records(told: &str) -> &str {
    told.split(" records").next().and_then(|before| before.split(' ').next_back()).expect("a number")
}

/// What coffer tells of everything, values included, in an order of its own. What a fetch itself changes is left out.
#[derive(PartialEq)]
struct Contents {
    secrets: Vec<v1::Secret>,
    environment: Vec<(String, String)>,
    environment_revision: String,
    grants: Vec<v1::Grant>,
    references: Vec<v1::Reference>,
    manifests: Vec<v1::Manifest>,
}

async fn contents(server: &Server) -> Contents {
    let environment = server.environment(WORKLOAD).await;
    let manager = server.manager(&[SCOPE]).await;
    let list = v1::ListSecretsRequest { parent: SCOPE.into(), page_size: 200, ..Default::default() };
    let mut secrets = manager.secrets().list_secrets(list).await.expect("listed").into_inner().secrets;
    for secret in &mut secrets {
        (secret.last_injected_time, secret.last_rendered_time) = (None, None);
    }
    let fetcher = server.client(&server.workload_token(WORKLOAD).await);
    let fetched = fetcher.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    let list = v1::ListGrantsRequest { page_size: 200, ..Default::default() };
    let grants = server.operator().access().list_grants(list).await.expect("listed").into_inner().grants;
    let list = v1::ListReferencesRequest { parent: SCOPE.into(), ..Default::default() };
    let references = manager.references().list_references(list).await.expect("listed").into_inner().references;
    let list = v1::ListManifestsRequest { parent: SCOPE.into(), ..Default::default() };
    let manifests = manager.manifests().list_manifests(list).await.expect("listed").into_inner().manifests;
    let environment_revision = fetched.expect("fetched").into_inner().environment_revision;
    Contents { secrets, environment, environment_revision, grants, references, manifests }
}

async fn fill(manager: &Client) {
    for at in 0..40 {
        let name = format!("KEY_{at}");
        let kind = if at % 3 == 0 { SecretKind::Plain } else { SecretKind::Encrypted };
        let request = v1::CreateSecretRequest {
            kind: kind.into(),
            description: format!("the {at}th"),
            ..secret(SCOPE, &name, &format!("value-{at}"))
        };
        manager.secrets().create_secret(request).await.expect("created");
    }
    let reference = v1::SetReferenceRequest {
        name: format!("{SCOPE}/references/tool"),
        variables: vec!["KEY_1".into()],
        ..Default::default()
    };
    manager.references().set_reference(reference).await.expect("set");
    let variable = v1::ManifestVariable { variable: "KEY_2".into(), required: true, description: "needed".into() };
    let manifest = v1::SetManifestRequest {
        name: format!("{SCOPE}/manifests/web"),
        variables: vec![variable],
        ..Default::default()
    };
    manager.manifests().set_manifest(manifest).await.expect("set");
}

fn update(name: &str, value: &str, etag: &str) -> v1::UpdateSecretRequest {
    v1::UpdateSecretRequest {
        name: format!("{SCOPE}/secrets/{name}"),
        value: Some(value.as_bytes().to_vec()),
        etag: etag.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_into_etcd_and_back_with_every_record() {
    let etcd = Etcd::start(1);
    let config = etcd.config("");
    let mut server = Server::start();
    fill(&server.manager(&[SCOPE]).await).await;
    let of_before = server.token("users/manager").await;
    let before = contents(&server).await;
    let first = backup(&server, "first.backup");
    server.stop().await;

    let told = done(&mut restore(&first, ("--config", &config)));
    let count = records(&told).to_owned();
    let sentence = format!("verified: {count} records were read again, and each is as in the source");
    assert!(told.contains(&sentence) && told.contains("into etcd, below coffer/ as 2."), "{told}");
    let again = not_done(&mut restore(&first, ("--config", &config)));
    assert!(again.contains("hint: a restore never touches what is there: give another `etcd.prefix`"), "{again}");
    let whole = done(&mut verify(&server, &config));
    assert!(whole.contains(&format!("{count} records, all open; in etcd, below coffer/")), "{whole}");
    assert!(!is_there(&etcd, "coffer/r/token/", "coffer/r/token0"), "tokens came along");

    server.go_on(("--config", &config));
    assert!(contents(&server).await == before, "the same in etcd");
    let over = server.client(&of_before).secrets().list_secrets(v1::ListSecretsRequest::default()).await;
    assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    // Etags and revisions of before are worth what they were.
    let manager = server.manager(&[SCOPE]).await;
    let old = &before.secrets[0];
    let name = old.name.rsplit('/').next().expect("a name");
    manager.secrets().update_secret(update(name, "changed", &old.etag)).await.expect("it has that etag");
    let stale = manager.secrets().update_secret(update(name, "again", &old.etag)).await;
    assert_eq!(refused(stale).why(), (Code::Aborted, "ETAG_MISMATCH"));
    let watch =
        v1::WatchEnvironmentRequest { environment_revision: before.environment_revision.clone(), ..Default::default() };
    let workload = server.client(&server.workload_token(WORKLOAD).await);
    let mut watch = workload.workloads().watch_environment(watch).await.expect("a watch").into_inner();
    watch.message().await.expect("no error").expect("a change");
    manager.secrets().create_secret(secret(SCOPE, "NEW", "of etcd")).await.expect("created");
    let delete = v1::DeleteSecretRequest { name: format!("{SCOPE}/secrets/KEY_39"), ..Default::default() };
    manager.secrets().delete_secret(delete).await.expect("deleted");
    assert!(watch.message().await.expect("no error").is_some());

    // Verified while somebody writes: each time a scope with a key of its own.
    let manager = server.manager(&["projects/-"]).await;
    let writes = tokio::spawn(async move {
        for at in 0.. {
            manager.secrets().create_secret(secret(&format!("projects/p{at}"), "KEY", "v")).await.expect("created");
        }
    });
    let mut whole = verify(&server, &config);
    let whole = tokio::task::spawn_blocking(move || done(&mut whole)).await.expect("ended");
    assert!(whole.contains("all open; in etcd"), "{whole}");
    writes.abort();
    assert!(writes.await.is_err_and(|ended| ended.is_cancelled()), "it wrote all the time");

    let in_etcd = contents(&server).await;
    let second = backup(&server, "second.backup");
    server.stop().await;
    let data = server.home().join("back");
    let told = done(&mut restore(&second, ("--data", &data)));
    let sentence = format!("verified: {} records were read again, and each is as in the source", records(&told));
    assert!(told.contains(&sentence), "{told}");
    for source in [&second, &data] {
        done(Server::command(&["verify", "--key-file"]).arg(server.key_file()).arg(source));
    }
    server.go_on(("--data", &data));
    assert!(contents(&server).await == in_etcd, "the same in the directory");
}

/// As a job does it that is started again, or twice at once.
#[test]
fn a_store_is_made_once_however_often_that_is_asked_for() {
    let (etcd, home) = (Etcd::start(1), TempDir::new().expect("a directory"));
    let path = |name: &str| home.path().join(name);
    fs::write(path("root.key"), "0".repeat(64)).expect("written");
    fs::set_permissions(path("root.key"), fs::Permissions::from_mode(0o600)).expect("its own file");
    let config = etcd.config("");
    let init = |name: &str| {
        let mut command = Server::command(&["init", "--if-missing", "--config"]);
        command.arg(&config).arg("--key-file").arg(path("root.key"));
        command.arg("--audit-file").arg(path(&format!("{name}.jsonl")));
        command.arg("--token-file").arg(path(&format!("{name}.token")));
        command
    };
    let told = ["first", "second"].map(|name| {
        let mut command = init(name);
        thread::spawn(move || done(&mut command))
    });
    let told = told.map(|told| told.join().expect("no panic"));
    let of = |words: &str| told.iter().filter(|told| told.contains(words)).count();
    assert_eq!((of("made a store in etcd"), of("already: it is left as it is")), (1, 1), "{told:?}");
    let tokens = ["first.token", "second.token"].map(|name| path(name).exists());
    assert!(tokens[0] != tokens[1], "{tokens:?}");
    let again = done(&mut init("again"));
    assert!(again.contains("already: it is left as it is") && !path("again.token").exists(), "{again}");
    let mut plain = Server::command(&["init", "--config"]);
    plain.arg(&config).arg("--key-file").arg(path("root.key")).arg("--audit-file").arg(path("plain.jsonl"));
    assert!(not_done(&mut plain).contains("hint: `init` never touches existing data"));
    let whole = done(Server::command(&["verify", "--config"]).arg(&config).arg("--key-file").arg(path("root.key")));
    assert!(whole.contains("all open; in etcd"), "{whole}");
}

/// A directory's store of some size.
async fn large() -> (Server, PathBuf) {
    let mut server = Server::start();
    let manager = server.manager(&["projects/-"]).await;
    for at in 0..24 {
        let entries = (0..8).map(|n| v1::ImportEntry {
            secret_id: format!("LARGE_{n}"),
            value: vec![b'a' + n; 60_000],
            ..Default::default()
        });
        let request = v1::ImportSecretsRequest {
            parent: format!("projects/p{at}"),
            entries: entries.collect(),
            ..Default::default()
        };
        manager.imports().import_secrets(request).await.expect("imported");
    }
    let data = server.data();
    server.stop().await;
    (server, data)
}

/// Kills a restore when its first records are in etcd; `false` if it was faster.
fn interrupt(etcd: &Etcd, data: &Path, config: &Path) -> bool {
    let mut child = restore(data, ("--config", config)).spawn().expect("coffer-server starts");
    until("the first records", || is_there(etcd, "coffer/r/", "coffer/r0").then_some(()));
    child.kill().expect("its own child");
    child.wait().expect("its own child");
    is_there(etcd, "coffer/restore", "")
}

fn range(from: &str, end: &str) -> String {
    format!(r#""key":"{}","range_end":"{}""#, STANDARD.encode(from), STANDARD.encode(end))
}

fn is_there(etcd: &Etcd, from: &str, end: &str) -> bool {
    etcd.post("kv/range", &format!(r#"{{{},"count_only":true}}"#, range(from, end))).contains("\"count\"")
}

#[tokio::test]
async fn a_restore_that_was_killed_is_no_store_for_anybody_and_begins_anew() {
    let etcd = Etcd::start(1);
    let config = etcd.config("");
    let (server, data) = large().await;
    while !interrupt(&etcd, &data, &config) {
        etcd.post("kv/deleterange", &format!("{{{}}}", range("coffer/", "coffer0")));
    }
    let (key, audit) = (server.key_file(), server.home().join("other-audit.log"));
    for verb in ["run", "init", "operator", "verify", "raise-epoch"] {
        let mut command = Server::command(&[verb, "--config"]);
        command.arg(&config).arg("--key-file").arg(&key);
        if verb != "verify" {
            command.arg("--audit-file").arg(&audit);
        }
        let told = not_done(&mut command);
        assert!(told.contains("a restore below coffer/ was begun and is not finished"), "{verb}: {told}");
        assert!(told.contains("hint: if that restore was interrupted, run it again: it begins anew"), "{verb}: {told}");
    }
    assert!(!audit.exists());
    let told = done(&mut restore(&data, ("--config", &config)));
    let whole = done(&mut verify(&server, &config));
    assert!(whole.contains(&format!(" {} records, all open", records(&told))), "{told}{whole}");
    assert!(!is_there(&etcd, "coffer/restore", ""));
}

#[tokio::test]
async fn what_somebody_else_changed_in_etcd_is_said_by_verify() {
    let etcd = Etcd::start(1);
    let config = etcd.config("");
    let server = Server::builder().on(config.clone()).start();
    let manager = server.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "KEY", "value")).await.expect("created");
    let put = |key: &str, value: &[u8]| {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        etcd.post("kv/put", &format!(r#"{{"key":"{key}","value":"{value}"}}"#));
    };
    let without_key = || {
        let mut command = Server::command(&["verify", "--without-key", "--config"]);
        command.arg(&config);
        command
    };
    assert!(done(&mut without_key()).contains("not opened; in etcd, below coffer/"));
    put("coffer/r/secret/projects/shop:OTHER", b"x");
    for mut command in [verify(&server, &config), without_key()] {
        let told = not_done(&mut command);
        assert!(
            told.contains("etcd, below coffer/: damaged: etcd has the key coffer/r/secret/projects/shop:OTHER"),
            "{told}"
        );
    }
    // A later transaction makes it one of the records: then only the key tells.
    manager.secrets().create_secret(secret(SCOPE, "LATER", "value")).await.expect("created");
    done(&mut without_key());
    let told = not_done(&mut verify(&server, &config));
    assert!(told.contains("error: etcd, below coffer/: secret/projects/shop:OTHER: "), "{told}");
    let no_source = Server::command(&["verify", "--key-file"]).arg(server.key_file()).output().expect("it starts");
    assert_eq!(no_source.status.code(), Some(64));
    assert!(text(&no_source).contains("SOURCE is needed"), "{}", text(&no_source));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_epoch_ends_every_token_on_servers_that_run() {
    let etcd = Etcd::start(1);
    let config = etcd.config("");
    let first = Server::builder().on(config.clone()).start();
    let second = Server::builder().beside(&first);
    let manager = first.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "KEY", "value")).await.expect("created");
    let workload = first.workload_token(WORKLOAD).await;
    let clients = [first.client(&workload), second.client(&workload)];
    for client in &clients {
        client.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await.expect("fetched");
    }
    let audit = first.home().join("raised-audit.log");
    let raise = |config: &Path| {
        let mut command = Server::command(&["raise-epoch", "--config"]);
        command.arg(config).arg("--key-file").arg(first.key_file()).arg("--audit-file").arg(&audit);
        command
    };
    let told = done(&mut raise(&config));
    assert!(
        told.contains("epoch 2 begins at 2.")
            && told.contains("next, for a new token:\n  coffer-server operator --config"),
        "{told}"
    );
    let lines = fs::read_to_string(&audit).expect("an audit log");
    let raised = lines.lines().filter(|line| line.contains(r#""method":"coffer-server/raise-epoch""#));
    assert_eq!(raised.count(), 2, "intent and done: {lines}");
    // Every answer from now on is of the new epoch: the next one waits for it.
    for client in &clients {
        let over = client.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
        assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    }
    let audit_file = first.home().join("operator-audit.log");
    let mut operator = Server::command(&["operator", "--config"]);
    operator.arg(&config).arg("--key-file").arg(first.key_file()).arg("--audit-file").arg(audit_file);
    let operator = operator.output().expect("coffer-server starts");
    assert!(operator.status.success(), "{}", text(&operator));
    write_private(&first.operator_token_file(), std::str::from_utf8(&operator.stdout).expect("text"));
    let manager = first.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "LATER", "value")).await.expect("created");
    assert_eq!(first.environment(WORKLOAD).await.len(), 2);

    let embedded = first.home().join("embedded.toml");
    fs::write(&embedded, "data = \"/nowhere\"\n").expect("written");
    let refused = raise(&embedded).output().expect("coffer-server starts");
    assert_eq!(refused.status.code(), Some(64));
    assert!(
        text(&refused).contains("hint: a store in a directory begins a new epoch when it is restored"),
        "{}",
        text(&refused)
    );
}
