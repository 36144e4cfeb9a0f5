//! coffer-inject on the real server: what a workload gets, byte for byte, and when it is not started at all.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use coffer_client::Client;
use coffer_proto::v1::{self, SecretKind};

use crate::harness::{Server, secret};

const WORKLOAD: &str = "projects/p/servers/s";

async fn stage() -> (Server, Client, String) {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    let token = server.workload_token(WORKLOAD).await;
    (server, manager, token)
}

async fn put(manager: &Client, name: &str, value: &str) {
    manager.secrets().create_secret(secret("projects/p", name, value)).await.expect("created");
}

#[tokio::test]
async fn values_arrive_byte_for_byte() {
    let (server, manager, token) = stage().await;
    let odd = "\n lines\r\n\ttabs  'quotes\" $HOME `x` \\n \u{1b}[0m é 漢字 \u{202e} trailing \n\n";
    let long: String = "0123456789abcdé".chars().cycle().take(60_000).collect();
    put(&manager, "ODD", odd).await;
    put(&manager, "LONG", &long).await;
    put(&manager, "EXACTLY_64_KIB", &"k".repeat(64 * 1024)).await;
    let run = |name: &str| server.inject(&token).args(["--", "printenv", name]).run().ok();
    assert_eq!(run("ODD"), format!("{odd}\n"));
    assert_eq!(run("LONG"), format!("{long}\n"));
    assert_eq!(run("EXACTLY_64_KIB").len(), 64 * 1024 + 1);
}

#[tokio::test]
async fn a_workload_of_each_kind_of_scope_gets_its_own() {
    let server = Server::start();
    let scopes = [
        ("organizations/o/workspaces/w", "servers"),
        ("projects/p", "sandboxes"),
        ("projects/p/environments/e", "servers"),
        ("accounts/a", "sandboxes"),
        ("accounts/a/plugins/g", "servers"),
    ];
    for (scope, kind) in scopes {
        let manager = server.manager(&[scope]).await;
        manager.secrets().create_secret(secret(scope, "MINE", scope)).await.expect("created");
        let token = server.workload_token(&format!("{scope}/{kind}/s")).await;
        let printed = server.inject(&token).args(["--", "sh", "-c", "printf %s \"$MINE\""]).run().ok();
        assert_eq!(printed, scope);
    }
}

#[tokio::test]
async fn the_environment_is_the_inherited_one_and_the_secrets_without_coffers_own() {
    let (server, manager, token) = stage().await;
    put(&manager, "MODE", "secret").await;
    let inject = || server.inject(&token).env("MODE", "inherited").env("HOME", "/home/x").env("COFFER_EXTRA", "1");
    let lines = |tool: crate::harness::Tool| {
        let text = tool.run().ok();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let path = "PATH=/usr/local/bin:/usr/bin:/bin";
    assert_eq!(lines(inject().args(["--", "env"])), ["HOME=/home/x", "MODE=secret", path]);
    assert_eq!(lines(inject().args(["--keep-existing", "--", "env"])), ["HOME=/home/x", "MODE=inherited", path]);
    put(&manager, "OTHER", "o").await;
    assert_eq!(
        lines(inject().args(["--only", "OTHER", "--", "env"])),
        ["HOME=/home/x", "MODE=inherited", "OTHER=o", path]
    );
}

#[tokio::test]
async fn a_running_workload_keeps_the_old_value_and_a_restarted_one_has_the_new() {
    let (server, manager, token) = stage().await;
    put(&manager, "KEY", "old").await;
    // Prints the value it has whenever it is asked for by a file.
    let script = "n=0; while [ ! -e stop ]; do if [ -e ask ]; then rm ask; echo \"$KEY\"; fi; sleep 0.01; done";
    let mut child = server.inject(&token).args(["--", "sh", "-c", script]).spawn();
    let mut answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut ask = || {
        std::fs::write(server.home().join("ask"), "").expect("asked");
        answers.next().expect("an answer").expect("text")
    };
    assert_eq!(ask(), "old");
    let update = v1::UpdateSecretRequest {
        name: "projects/p/secrets/KEY".into(),
        value: Some(b"new".to_vec()),
        ..Default::default()
    };
    manager.secrets().update_secret(update).await.expect("updated");
    assert_eq!(ask(), "old", "an environment is never changed under a running program");
    std::fs::write(server.home().join("stop"), "").expect("asked");
    assert!(child.wait().expect("its end").success());
    let again = server.inject(&token).args(["--", "sh", "-c", "echo \"$KEY\""]).run();
    assert_eq!(again.ok(), "new\n");
}

#[tokio::test]
async fn exit_codes_say_what_was_wrong() {
    let (mut server, manager, token) = stage().await;
    put(&manager, "KEY", "v").await;
    let code = |args: &[&str]| {
        let finished = server.inject(&token).args(args).run();
        assert!(finished.stdout.is_empty(), "the workload was started: {}", finished.text());
        assert!(!finished.stderr.is_empty(), "no word about it");
        finished.code
    };
    assert_eq!(code(&["--nonsense", "--", "echo"]), Some(64));
    assert_eq!(code(&[]), Some(64));
    assert_eq!(code(&["--", "no-such-command-anywhere"]), Some(127));
    let plain_file = server.home().join("plain");
    std::fs::write(&plain_file, "x").expect("written");
    std::fs::set_permissions(&plain_file, std::fs::Permissions::from_mode(0o644)).expect("set");
    assert_eq!(code(&["--", plain_file.to_str().expect("text")]), Some(126));
    assert_eq!(code(&["--workload", "projects/p/servers/other", "--", "echo", "started"]), Some(77));
    assert_eq!(code(&["--require", "MISSING", "--", "echo", "started"]), Some(78));
    assert_eq!(code(&["--only", "MISSING", "--", "echo", "started"]), Some(78));
    for status in [0, 1, 3, 64, 77, 127, 255] {
        let args = ["--".to_owned(), "sh".to_owned(), "-c".to_owned(), format!("exit {status}")];
        assert_eq!(server.inject(&token).args(args).run().code, Some(status), "the workload's own code");
    }
    let address = server.address();
    server.kill();
    let start = Instant::now();
    let gone = server.home().join(format!("token-{}", token.split('_').nth(2).expect("an id")));
    let unavailable = crate::harness::Tool::new("coffer-inject")
        .env("COFFER_ADDRESS", address)
        .env("COFFER_TOKEN_FILE", gone)
        .args(["--timeout", "1s", "--", "echo", "started"])
        .run();
    assert_eq!((unavailable.code, unavailable.stdout.is_empty()), (Some(69), true), "{}", unavailable.stderr);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_token_that_others_can_read_is_refused() {
    let (server, _, token) = stage().await;
    let open = server.home().join("open.token");
    std::fs::write(&open, &token).expect("written");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("set");
    let open = open.to_str().expect("text");
    for tool in [
        server.inject(&token).args(["--token-file", open, "--timeout", "1s", "--", "echo", "started"]),
        server.cli(&token).args(["environment", "fetch", "--token-file", open]),
    ] {
        let refused = tool.run();
        assert_eq!((refused.code, refused.stdout.is_empty()), (Some(77), true), "{}", refused.stderr);
        assert!(refused.stderr.contains("others can read it (mode 0644): chmod 600"), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn a_revoked_token_starts_nothing() {
    let (server, manager, token) = stage().await;
    put(&manager, "KEY", "v").await;
    let issuer = server.with("services/issuer", &[]).await;
    let name = format!("tokens/{}", token.split('_').nth(2).expect("an id"));
    issuer.tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    let finished = server.inject(&token).args(["--", "echo", "started"]).run();
    assert_eq!((finished.code, finished.text().as_str()), (Some(77), ""), "{}", finished.stderr);
}

#[tokio::test]
async fn it_waits_for_a_server_that_comes_back() {
    let (mut server, manager, token) = stage().await;
    put(&manager, "KEY", "v").await;
    server.kill();
    // The address file still holds the socket, which is the same after a restart.
    let socket = server.socket();
    let waiting =
        server.inject(&token).env("COFFER_ADDRESS", socket).args(["--", "sh", "-c", "printf %s \"$KEY\""]).spawn();
    server.run();
    let output = waiting.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"v"[..]));
}

#[tokio::test]
async fn a_dry_run_names_everything_and_shows_no_value() {
    let (server, manager, token) = stage().await;
    put(&manager, "KEY", "never-shown-4711").await;
    let plain =
        v1::CreateSecretRequest { kind: SecretKind::Plain.into(), ..secret("projects/p", "OPEN", "plain-4712") };
    manager.secrets().create_secret(plain).await.expect("created");
    let finished = server.inject(&token).args(["--dry-run", "--", "echo", "started"]).run();
    let all = format!("{}{}", finished.text(), finished.stderr);
    assert!(all.contains("KEY") && all.contains("projects/p/secrets/KEY"), "{all}");
    assert!(!all.contains("never-shown-4711") && !all.contains("started"), "{all}");
    assert_eq!(finished.code, Some(0));
}

#[tokio::test]
async fn a_whole_scope_of_secrets_fits_one_start() {
    let (server, manager, token) = stage().await;
    // 512 KiB of values in 1,000 secrets: what a scope may hold, and with inherited ones still below the kernel's limit.
    for part in 0..5 {
        let entries = (0..200)
            .map(|n| v1::ImportEntry {
                secret_id: format!("S_{}", part * 200 + n),
                value: vec![b'v'; 512],
                ..Default::default()
            })
            .collect();
        let request = v1::ImportSecretsRequest { parent: "projects/p".into(), entries, ..Default::default() };
        manager.imports().import_secrets(request).await.expect("imported");
    }
    let count = server.inject(&token).args(["--", "sh", "-c", "env | grep -c '^S_'"]).run().ok();
    assert_eq!(count, "1000\n");
}
