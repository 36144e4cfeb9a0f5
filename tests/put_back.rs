//! The directory of a store is replaced by an earlier copy of itself, whole in every part: its audit log knows better.

use std::{fs, path::Path, process::Command};

use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, done, not_done, refused, secret};

const SCOPE: &str = "projects/shop";
/// What every refusal says.
const PUT_BACK: &str = "an earlier copy was put in the place of the store";
/// And what helps.
const WAY_OUT: &str = "coffer-server restore DATA --data NEW --audit-file FILE";

fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp").success());
}

/// A command on the store, its key and its audit log.
fn on_store(server: &Server, verb: &[&str], store: (&str, &Path)) -> Command {
    let mut command = Server::command(verb);
    if !store.0.is_empty() {
        command.arg(store.0);
    }
    command.arg(store.1).arg("--key-file").arg(server.key_file());
    command.arg("--audit-file").arg(server.home().join("audit.log"));
    command
}

fn restored(server: &Server, name: &str) -> std::path::PathBuf {
    let to = server.home().join(name);
    let mut restore = Server::command(&["restore", "--data"]);
    restore.arg(&to).arg("--audit-file").arg(server.home().join("audit.log")).arg("--").arg(server.data());
    done(&mut restore);
    to
}

#[tokio::test]
async fn an_earlier_copy_of_a_store_is_refused_until_its_tokens_are_ended() {
    let mut server = Server::start();
    server.manager(&[SCOPE]).await.secrets().create_secret(secret(SCOPE, "A", "1")).await.expect("created");
    let token = server.token("users/manager").await;
    server.stop().await;
    let earlier = server.home().join("earlier");
    copy(&server.data(), &earlier);
    server.run();
    let name = format!("tokens/{}", token.split('_').nth(2).expect("an id"));
    server.operator().tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    server.kill();
    // What a crash leaves is no earlier copy.
    server.run();
    server.stop().await;
    copy(&earlier, &server.data());
    // Rotated by somebody else: the newest file says nothing.
    fs::rename(server.home().join("audit.log"), server.home().join("audit.log.1")).expect("renamed");
    fs::write(server.home().join("audit.log"), "").expect("a file");

    let data = server.data();
    let audit = on_store(&server, &["audit", "verify"], ("--data", &data));
    for mut command in [
        on_store(&server, &["run", "--listen", "127.0.0.1:0"], ("--data", &data)),
        on_store(&server, &["operator"], ("--data", &data)),
        on_store(&server, &["verify"], ("", &data)),
        audit,
    ] {
        let said = not_done(&mut command);
        assert!(said.contains(PUT_BACK) && said.contains(WAY_OUT), "{command:?}: {said}");
    }
    // Twice from the same source: the second one begins after what was done in the first.
    for (name, epoch) in [("first", "2."), ("second", "3.")] {
        let to = restored(&server, name);
        done(&mut on_store(&server, &["verify"], ("", &to)));
        server.go_on(("--data", &to));
        assert!(server.store_status().await.position.starts_with(epoch), "{name}");
        let over = server.client(&token).secrets().list_secrets(v1::ListSecretsRequest::default()).await;
        assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"), "{name}");
        let manager = server.manager(&[SCOPE]).await;
        manager.secrets().create_secret(secret(SCOPE, "B", "1")).await.expect("created");
        server.stop().await;
        done(&mut on_store(&server, &["audit", "verify"], ("--data", &to)));
    }
    let said =
        not_done(&mut on_store(&server, &["run", "--listen", "127.0.0.1:0"], ("--data", &server.home().join("first"))));
    assert!(said.contains(PUT_BACK), "the second one has taken its place: {said}");
}
