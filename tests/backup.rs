//! An operator backs up, loses, restores and goes on, with the commands of the README and nothing else.

use std::{fs, path::Path};

use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, holds, pairs, refused, secret, server_command, text};

const SCOPE: &str = "projects/shop";
const WORKLOAD: &str = "projects/shop/servers/web";

/// A server with some history: three positions that a restore can tell apart.
struct History {
    server: Server,
    /// Where both secrets had their first value.
    first: String,
    /// A token that was revoked after that.
    revoked: String,
}

async fn history() -> History {
    let server = Server::start();
    let manager = server.manager(&[SCOPE]).await;
    for (name, value) in [("KEPT", "kept-1"), ("LOST", "lost-1")] {
        manager.secrets().create_secret(secret(SCOPE, name, value)).await.expect("created");
    }
    let revoked = server.token("users/manager").await;
    let first = server.store_status().await.position;
    let operator = server.operator();
    let name = format!("tokens/{}", revoked.split('_').nth(2).expect("an id"));
    operator.tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    let update = v1::UpdateSecretRequest {
        name: format!("{SCOPE}/secrets/KEPT"),
        value: Some(b"kept-2".to_vec()),
        ..Default::default()
    };
    manager.secrets().update_secret(update).await.expect("updated");
    let delete = v1::DeleteSecretRequest { name: format!("{SCOPE}/secrets/LOST"), ..Default::default() };
    manager.secrets().delete_secret(delete).await.expect("deleted");
    History { server, first, revoked }
}

#[tokio::test]
async fn a_backup_makes_a_store_that_serves_with_new_tokens_only() {
    let History { mut server, revoked, .. } = history().await;
    let before = server.operator_token();
    let backup = server.home().join("coffer.backup");
    let done = server.cli(&before).args(["store", "backup", "coffer.backup"]).run();
    assert!(done.ok().contains("snapshot 1."));
    // What comes after it is not in it.
    let manager = server.manager(&[SCOPE]).await;
    manager.secrets().create_secret(secret(SCOPE, "LATER", "x")).await.expect("created");
    server.stop().await;

    let data = server.home().join("restored");
    let restored = server_command(&["restore"], &[("--data", &data), ("--", &backup)]);
    assert!(restored.status.success(), "{}", text(&restored));
    assert!(text(&restored).contains("every token of before has ended"), "{}", text(&restored));
    // Not even sealed: then it does not matter which epoch whoever had the backup in between wrote into it.
    for part in fs::read_dir(data.join("snapshots")).expect("there") {
        let bytes = fs::read(part.expect("there").path()).expect("read");
        assert!(holds(&bytes, b"secret/projects/") && !holds(&bytes, b"token/"), "tokens came along");
    }
    server.go_on(("--data", &data));
    assert_eq!(server.environment(WORKLOAD).await, pairs(&[("KEPT", "kept-2")]));
    for token in [&before, &revoked] {
        let over = server.client(token).secrets().list_secrets(v1::ListSecretsRequest::default()).await;
        assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    }
    assert!(server.store_status().await.position.starts_with("2."), "another epoch");
}

#[tokio::test]
async fn a_position_and_a_time_of_the_past_come_back_but_no_revoked_token() {
    let History { mut server, first, revoked } = history().await;
    server.kill();
    for (flag, at) in [("--to-position", first.as_str()), ("--to-time", &time_of(&server, &first))] {
        let data = server.home().join(flag);
        let old = server.home().join("data");
        // So that the second one begins after what was done in the first.
        let log = server.home().join("audit.log");
        let paths: [(&str, &Path); 3] = [("--data", &data), ("--audit-file", &log), ("--", &old)];
        let restored = server_command(&["restore", flag, at], &paths);
        assert!(restored.status.success(), "{flag} {at}: {}", text(&restored));
        server.go_on(("--data", &data));
        assert_eq!(server.environment(WORKLOAD).await, pairs(&[("KEPT", "kept-1"), ("LOST", "lost-1")]), "{flag}");
        let over = server.client(&revoked).secrets().list_secrets(v1::ListSecretsRequest::default()).await;
        assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"), "{flag}");
        server.kill();
    }
}

/// When a position was reached, by the audit log, as an operator would look it up. The log's times are those of the lines
/// around a commit: the `done` line is not before it.
fn time_of(server: &Server, position: &str) -> String {
    let line = server.audit().into_iter().find(|line| line["position"] == position && line["phase"] == "done");
    line.expect("a done line")["time"].as_str().expect("a time").to_owned()
}

#[tokio::test]
async fn a_store_whose_records_are_gone_serves_on() {
    let History { mut server, .. } = history().await;
    let before = server.environment(WORKLOAD).await;
    server.kill();
    fs::remove_dir_all(server.data().join("sled")).expect("removed");
    server.run();
    assert_eq!(server.environment(WORKLOAD).await, before);
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_in_words() {
    let History { mut server, .. } = history().await;
    let (data, new) = (server.data(), server.home().join("new"));
    let refused = |args: &[&str], paths: &[(&str, &Path)]| {
        let output = server_command(args, paths);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(!new.join("format").exists());
        text(&output)
    };
    let told = refused(&["restore"], &[("--data", &new), ("--", &data)]);
    assert!(told.contains("in use") && told.contains("hint: stop its server first"), "{told}");
    server.stop().await;
    let told = refused(&["restore", "--to-position", "1.999"], &[("--data", &new), ("--", &data)]);
    assert!(told.contains("it has nothing of 1.999; it ends at 1."), "{told}");
    let told = refused(&["restore", "--to-time", "2001-01-01T00:00:00Z"], &[("--data", &new), ("--", &data)]);
    assert!(told.contains("there was nothing in it at that time"), "{told}");
    let told = refused(&["restore"], &[("--data", &data), ("--", &data)]);
    assert!(told.contains("hint: a restore never touches what is there"), "{told}");
    let told = refused(&["restore"], &[("--data", &new), ("--", &server.key_file())]);
    assert!(told.contains("root.key: damaged: offset 0"), "{told}");
}
