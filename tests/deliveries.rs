//! coffer-inject on the real server, delivering otherwise than by variables, or while the server is away.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use coffer_client::Client;
use coffer_proto::{token::Token, v1};

use crate::harness::{Server, Tool, binary, forms_of, occurrences, secret};

const WORKLOAD: &str = "projects/p/servers/s";

async fn stage() -> (Server, Client, String) {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    let token = server.workload_token(WORKLOAD).await;
    (server, manager, token)
}

async fn put(manager: &Client, scope: &str, name: &str, value: &str) {
    manager.secrets().create_secret(secret(scope, name, value)).await.expect("created");
}

fn file(server: &Server, name: &str, mode: u32, content: &str) -> PathBuf {
    let path = server.home().join(name);
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    path
}

/// The directory of a test, as an option's value.
fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[tokio::test]
async fn two_children_of_one_agent_see_their_own_plugins_and_nothing_of_each_other() {
    let server = Server::start();
    let scopes = ["accounts/a", "accounts/a/plugins/github", "accounts/a/plugins/slack"];
    let manager = server.manager(&scopes).await;
    put(&manager, scopes[0], "ACCOUNT_KEY", "the account's").await;
    put(&manager, scopes[1], "API_KEY", "github's").await;
    put(&manager, scopes[1], "GITHUB_ORG", "acme").await;
    put(&manager, scopes[2], "API_KEY", "slack's").await;
    let mut token_files = Vec::new();
    for (name, scope) in [("agent", "accounts/a"), ("github", scopes[1]), ("slack", scopes[2])] {
        let token = server.workload_token(&format!("{scope}/sandboxes/{name}")).await;
        token_files.push(file(&server, &format!("{name}.token"), 0o600, &token));
    }

    // The agent starts both at once, each with its own token, and hands its own environment on.
    let agent = r#"
        "$0" --token-file "$2" -- sh -c 'env | sort > github.env' & github=$!
        "$0" --token-file "$3" -- sh -c 'env | sort > slack.env' & slack=$!
        wait $github && wait $slack
        # A plugin's token is its own workload's, whatever is asked for with it.
        "$0" --token-file "$2" --workload accounts/a/plugins/slack/sandboxes/slack -- env; echo "crossed: $?"
        "$0" --token-file "$2" --workload accounts/a/sandboxes/agent -- env; echo "upward: $?"
    "#;
    let agent_file = file(&server, "agent.sh", 0o600, agent);
    let mut outer = std::process::Command::new("/bin/sh");
    outer.args(["-c", &fs::read_to_string(agent_file).expect("text")]).arg(binary("coffer-inject"));
    outer.args(&token_files).current_dir(server.home()).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C");
    outer.env("COFFER_ADDRESS", server.address()).env("COFFER_TOKEN_FILE", &token_files[0]).env("COFFER_EXTRA", "x");
    let output = outer.output().expect("started");
    let stdout = String::from_utf8(output.stdout).expect("text");
    assert_eq!(stdout, "crossed: 77\nupward: 77\n", "{}", String::from_utf8_lossy(&output.stderr));

    let seen = |name: &str| {
        let text = fs::read_to_string(server.home().join(name)).expect("the child ran");
        let kept = text.lines().filter(|line| !["PWD=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(seen("github.env"), ["API_KEY=github's", "GITHUB_ORG=acme", "LANG=C", "PATH=/usr/bin:/bin"]);
    assert_eq!(seen("slack.env"), ["API_KEY=slack's", "LANG=C", "PATH=/usr/bin:/bin"]);
}

#[tokio::test]
async fn files_and_templates_follow_the_secrets_at_each_start() {
    let (server, manager, token) = stage().await;
    put(&manager, "projects/p", "DB_PASSWORD", "pässword\n{{DB_USER}}").await;
    put(&manager, "projects/p", "DB_USER", "app").await;
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let (directory, template, out) =
        (memory.path().join("d"), memory.path().join("in"), format!("{}/out", memory.path().display()));
    fs::write(&template, "{{DB_USER}}:{{ DB_PASSWORD }}").expect("written");
    let both = format!("{}:{out}", template.display());
    let start = || {
        let finished = server.inject(&token).args(["--files", text(&directory), "--template", &both]);
        let script = "cd \"$0\"; ls; cat DB_PASSWORD; echo; cat ../out; echo; env | grep -c ^DB_";
        finished.args(["--", "sh", "-c", script, text(&directory)]).run()
    };
    let told = |printed: crate::harness::Finished| {
        assert_eq!(printed.stderr, "");
        printed.text()
    };
    let expected = "DB_PASSWORD\nDB_USER\npässword\n{{DB_USER}}\napp:pässword\n{{DB_USER}}\n0\n";
    assert_eq!(told(start()), expected);

    let name = "projects/p/secrets/DB_PASSWORD".to_owned();
    let update = v1::UpdateSecretRequest { name, value: Some(b"new".to_vec()), ..Default::default() };
    manager.secrets().update_secret(update).await.expect("updated");
    assert_eq!(told(start()), "DB_PASSWORD\nDB_USER\nnew\napp:new\n0\n");
    let name = "projects/p/secrets/DB_USER".to_owned();
    manager.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await.expect("deleted");
    let refused = start();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("DB_USER: named by the template"), "{}", refused.stderr);
    let without = server.inject(&token).args(["--files", text(&directory), "--", "ls", text(&directory)]).run().ok();
    assert_eq!(without, "DB_PASSWORD\n");
}

/// JSON and TOML by their readers, the shell's word by the shell.
#[tokio::test]
async fn a_template_writes_values_in_the_form_of_its_file() {
    const HARD: &str = "p\"'\\\n$HOME {{DB}} %41 \u{7f}ü😀";
    let (server, manager, token) = stage().await;
    put(&manager, "projects/p", "DB", HARD).await;
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let path = |name: &str| format!("{}/{name}", memory.path().display());
    for (name, template) in [
        ("json", "{\"db\": {{DB|json}}}"),
        ("toml", "db = {{DB|toml}}\n"),
        ("sh", "DB={{ DB | sh }}\n"),
        ("url", "{{DB|url}}"),
    ] {
        fs::write(path(&format!("{name}.in")), template).expect("written");
    }
    let templates: Vec<_> = ["json", "toml", "sh", "url"]
        .into_iter()
        .flat_map(|name| ["--template".to_owned(), format!("{}:{}", path(&format!("{name}.in")), path(name))])
        .collect();
    let script = "cat \"$0/json\"; printf '\\001'; cat \"$0/toml\"; printf '\\001'; . \"$0/sh\"; printf '%s\\001' \"$DB\"; cat \"$0/url\"";
    let started =
        server.inject(&token).args(&templates).args(["--", "sh", "-c", script, text(memory.path())]).run().ok();
    let parts: Vec<_> = started.split('\u{1}').collect();
    let json: serde_json::Value = serde_json::from_str(parts[0]).expect("JSON");
    let toml: toml::Table = toml::from_str(parts[1]).expect("TOML");
    assert_eq!((json["db"].as_str(), toml["db"].as_str(), parts[2]), (Some(HARD), Some(HARD), HARD));
    assert_eq!(parts[3], "p%22%27%5C%0A%24HOME%20%7B%7BDB%7D%7D%20%2541%20%7F%C3%BC%F0%9F%98%80");

    fs::write(path("json.in"), "{\"db\":\n{{ DB|json}}}").expect("written");
    let refused = server.inject(&token).args(&templates).args(["--", "true"]).run();
    assert_eq!(refused.code, Some(64), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("line 2: DB has") || refused.stderr.contains("line 2: DB is no placeholder"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn a_manifests_variable_is_missed_before_the_start() {
    let server = Server::start();
    let scope = "accounts/a/plugins/github";
    let manager = server.manager(&[scope]).await;
    put(&manager, scope, "API_KEY", "k").await;
    let variable =
        |name: &str, required| v1::ManifestVariable { variable: name.into(), required, ..Default::default() };
    let manifest = v1::SetManifestRequest {
        name: format!("{scope}/manifests/plugin"),
        variables: vec![variable("API_KEY", true), variable("API_ORG", true), variable("API_PROXY", false)],
        ..Default::default()
    };
    manager.manifests().set_manifest(manifest).await.expect("set");
    let token = server.workload_token(&format!("{scope}/servers/s")).await;
    for words in [&["--", "echo", "started"][..], &["--dry-run"]] {
        let finished = server.inject(&token).args(words).run();
        assert_eq!((finished.code, finished.text().as_str()), (Some(78), ""), "{}", finished.stderr);
        let missing: Vec<_> = finished.stderr.lines().collect();
        assert!(missing.len() == 1 && missing[0].contains("API_ORG: required by a manifest"), "{missing:?}");
    }
    let ignored = server.inject(&token).args(["--ignore-manifest", "--", "echo", "started"]).run();
    assert!(ignored.stderr.contains("warning: API_ORG: required by a manifest"), "{}", ignored.stderr);
    assert_eq!(ignored.ok(), "started\n");
    put(&manager, scope, "API_ORG", "o").await;
    assert_eq!(server.inject(&token).args(["--", "echo", "started"]).run().ok(), "started\n");
}

#[tokio::test]
async fn a_workload_starts_without_the_server_and_not_without_its_right() {
    const VALUE: &str = "the-value-that-is-kept";
    let (mut server, manager, token) = stage().await;
    put(&manager, "projects/p", "KEY", VALUE).await;
    let key = file(&server, "cache.key", 0o600, &"0123456789abcdef".repeat(4));
    let kept = server.home().join("kept");
    fs::create_dir(&kept).expect("made");
    let cache = kept.join("cache");
    // The socket's address is the same after each start of the server.
    let start = |server: &Server| -> Tool {
        let tool = server.inject(&token).env("COFFER_ADDRESS", server.socket()).args(["--timeout", "2s"]);
        let tool = tool.args(["--cache", text(&cache), "--cache-key-file", text(&key), "--workload", WORKLOAD]);
        tool.args(["--", "printenv", "KEY"])
    };
    assert_eq!(start(&server).run().ok(), format!("{VALUE}\n"));
    assert_eq!(occurrences(&kept, &forms_of(VALUE)), Vec::<String>::new(), "it can be read");

    server.kill();
    let away = start(&server).run();
    assert!(away.stderr.contains("starting with what was kept"), "{}", away.stderr);
    assert_eq!(away.ok(), format!("{VALUE}\n"));

    server.run();
    let id = Token::parse(&token).expect("a token").id().to_owned();
    let name = format!("tokens/{id}");
    let issuer = server.with("services/issuer", &[("workloads:issue", WORKLOAD)]).await;
    issuer.tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    let denied = start(&server).run();
    assert_eq!(denied.code, Some(77), "{}", denied.stderr);
    assert!(denied.stderr.contains("deleted, because coffer denies") && !cache.exists(), "{}", denied.stderr);
    server.kill();
    assert_eq!(start(&server).run().code, Some(69), "it lives on");
}
