//! What a server needs to reach etcd may change while it runs.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use coffer_proto::v1;
use tonic::Code;

use crate::harness::{COFFER, Etcd, Server, secret, until_async};

const SCOPE: &str = "projects/p";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_of_etcd_is_taken_while_the_server_runs() {
    let etcd = Etcd::start(1);
    etcd.guard("first-of-root", "first-of-coffer", &["coffer/"]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    fs::write(&file, "first-of-coffer\n").expect("written");
    let password_file = format!("user = \"{COFFER}\"\npassword_file = \"{}\"", file.display());

    let config = etcd.config(&password_file);

    set_mode(&file, 0o644);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let refused = Server::command(&["init", "--generate-key", "--config", config.to_str().expect("a path")])
        .args(["--key-file", &path("key"), "--audit-file", &path("audit.log")])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("can be read by everyone"), "{said}");

    // As secrets are mounted for a group.
    set_mode(&file, 0o640);
    let server = Server::builder().on(config).start();
    let manager = server.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "BEFORE", "v")).await.expect("created");

    etcd.change_password("first-of-root", "second-of-coffer");
    until_async("the first password to be of no use", async || {
        manager.secrets().list_secrets(list()).await.err().filter(|status| status.code() == Code::Unavailable)
    })
    .await;
    // One that is refused is tried again, also when nothing of it changes but who may read it.
    set_mode(&file, 0o644);
    fs::write(&file, "second-of-coffer\n").expect("written");
    until_async("the second to be refused", async || server.log().contains("are not read again").then_some(())).await;
    set_mode(&file, 0o640);
    until_async("the second to be used", async || manager.secrets().list_secrets(list()).await.ok()).await;
    manager.secrets().create_secret(secret(SCOPE, "AFTER", "v")).await.expect("created");
}

fn list() -> v1::ListSecretsRequest {
    v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() }
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).expect("its own file");
}
