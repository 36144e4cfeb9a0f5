//! coffer-inject staying with its command, on the real server: restarts by itself, across the server's own death, and with
//! a start token that was good once.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::Child,
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use coffer_client::Client;
use coffer_proto::{limits, token::Token, v1};

use crate::harness::{Server, Tool, refused, secret, until_async, write_private};

const SHOW: &str = "echo \"$KEY\"; while :; do sleep 0.05; done";
const PATIENCE: Duration = Duration::from_secs(90);

/// A command that prints lines, ended with the test.
struct Running(Child, Receiver<String>, Receiver<String>);

impl Running {
    fn new(tool: Tool) -> Self {
        let mut child = tool.spawn();
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        Self(child, lines(stdout), lines(stderr))
    }

    fn line(&self) -> String {
        self.1
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("no line; stderr: {:?}", self.2.try_iter().collect::<Vec<_>>()))
    }

    fn problem(&self) -> String {
        self.2.recv_timeout(PATIENCE).expect("a line on stderr")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0.id().try_into().expect("a pid")).expect("not zero");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(100);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn update(manager: &Client, name: &str, value: &str) {
    let request = v1::UpdateSecretRequest { name: name.into(), value: Some(value.into()), ..Default::default() };
    manager.secrets().update_secret(request).await.expect("updated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_restarts_whoever_inherits_it_also_after_the_server_died() {
    let mut server = Server::start();
    let scopes = ["projects/p", "projects/p/environments/e"];
    let manager = server.manager(&scopes).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    let token = server.workload_token("projects/p/environments/e/servers/s").await;
    // The socket's address survives the server's death.
    let tool = server.inject(&token).env("COFFER_ADDRESS", server.socket());
    let run = Running::new(tool.args(["--on-change", "restart", "--debounce", "50ms", "--", "sh", "-c", SHOW]));
    assert_eq!(run.line(), "one");
    update(&manager, "projects/p/secrets/KEY", "two").await;
    assert_eq!(run.line(), "two");
    let own = secret("projects/p/environments/e", "KEY", "nearer");
    manager.secrets().create_secret(own).await.expect("created");
    assert_eq!(run.line(), "nearer");

    server.kill_and_restart();
    let manager = server.manager(&scopes).await;
    update(&manager, "projects/p/environments/e/secrets/KEY", "after").await;
    assert_eq!(run.line(), "after");

    // What was taken from it does not stop it, and is said once.
    let grant = v1::DeleteScopeRequest { name: "projects/p/environments/e".into(), uid: String::new() };
    let owner = server.with("users/owner", &[("access:manage", "projects/p/environments/e")]).await;
    owner.scopes().delete_scope(grant).await.expect("deleted");
    assert!(run.problem().contains("the command runs on"));
    assert!(run.1.recv_timeout(Duration::from_millis(300)).is_err(), "nothing is started without the right");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_was_deleted_and_created_again_is_another() {
    const NAME: &str = "projects/p/secrets/KEY";
    let mut server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    let token = server.workload_token("projects/p/servers/s").await;
    let tool = server.inject(&token).env("COFFER_ADDRESS", server.socket());
    let run = Running::new(tool.args(["--on-change", "restart", "--debounce", "300ms", "--", "sh", "-c", SHOW]));
    assert_eq!(run.line(), "one");
    let recreate = async |manager: &Client, value: &str| {
        let request = v1::DeleteSecretRequest { name: NAME.into(), ..Default::default() };
        manager.secrets().delete_secret(request).await.expect("deleted");
        manager.secrets().create_secret(secret("projects/p", "KEY", value)).await.expect("created");
    };
    // Both within the debounce: name and version are what they were.
    recreate(&manager, "two").await;
    assert_eq!(run.line(), "two");
    // And while nobody watches.
    let injector = rustix::process::Pid::from_raw(run.0.id().try_into().expect("a pid")).expect("not zero");
    rustix::process::kill_process(injector, rustix::process::Signal::STOP).expect("stopped");
    server.kill_and_restart();
    let manager = server.manager(&["projects/p"]).await;
    recreate(&manager, "three").await;
    rustix::process::kill_process(injector, rustix::process::Signal::CONT).expect("continued");
    assert_eq!(run.line(), "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_token_starts_one_workload_and_its_badge_tells_when_another_must_be_restarted() {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    let issuer = server.with("services/starter", &[("workloads:issue", "projects/p")]).await;
    let request =
        v1::IssueTokenRequest { principal: "projects/p/servers/s".into(), single_use: true, ..Default::default() };
    let start = issuer.tokens().issue_token(request).await.expect("issued").into_inner().token;
    let run = Running::new(server.inject(&start).args([
        "--on-change",
        "restart",
        "--debounce",
        "50ms",
        "--",
        "sh",
        "-c",
        SHOW,
    ]));
    assert_eq!(run.line(), "one");
    let copy = server.inject(&start).args(["--", "true"]).run();
    assert_eq!(copy.code, Some(77), "{}", copy.stderr);
    let direct = server.client(&start).workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    assert_eq!(refused(direct).why().1, "PERMISSION_DENIED");

    // Another one became its command.
    let token = server.workload_token("projects/p/servers/other").await;
    assert_eq!(server.inject(&token).args(["--", "sh", "-c", "echo \"$KEY\""]).run().ok(), "one\n");
    update(&manager, "projects/p/secrets/KEY", "two").await;
    assert_eq!(run.line(), "two");
    let expected =
        [("projects/p/servers/other", true, vec!["KEY".to_owned()]), ("projects/p/servers/s", false, Vec::new())];
    // The restart is told of once the command runs.
    let known = until_async("the restart to be told of", async || {
        let request = v1::ListInstancesRequest { parent: "projects/p".into(), ..Default::default() };
        let known = manager.instances().list_instances(request).await.expect("listed").into_inner().workloads;
        let seen: Vec<_> =
            known.iter().map(|of| (of.workload.as_str(), of.restart_required, of.changed_names.clone())).collect();
        (seen == expected).then_some(known)
    });
    assert!(known.await[1].token_replay_time.is_some(), "the copy raised an alarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_revoked_while_its_command_runs_starts_nothing_from_what_was_kept() {
    const WORKLOAD: &str = "projects/p/servers/s";
    let mut server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    let token = server.workload_token(WORKLOAD).await;
    let (cache, key) = (server.home().join("kept"), server.home().join("kept.key"));
    fs::write(&key, "0123456789abcdef".repeat(4)).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    let start = |server: &Server, options: &[&str]| {
        let tool = server.inject(&token).env("COFFER_ADDRESS", server.socket());
        let tool = tool.args(["--timeout", "2s", "--workload", WORKLOAD]).args(options);
        tool.args([OsStr::new("--cache"), cache.as_os_str(), OsStr::new("--cache-key-file"), key.as_os_str()])
    };
    let run = Running::new(start(&server, &["--on-change", "restart"]).args(["--", "sh", "-c", SHOW]));
    assert_eq!(run.line(), "one");
    assert!(cache.exists());
    let name = format!("tokens/{}", Token::parse(&token).expect("a token").id());
    let issuer = server.with("services/issuer", &[("workloads:issue", WORKLOAD)]).await;
    issuer.tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    until_async("what was kept to be gone", async || (!cache.exists()).then_some(())).await;
    server.kill();
    assert_eq!(start(&server, &[]).args(["--", "true"]).run().code, Some(69), "it lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_runs_with_what_is_old_is_listed_so_until_it_can_have_what_is_new() {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    let token = server.workload_token("projects/p/servers/s").await;
    let flags = ["--on-change", "restart", "--debounce", "50ms", "--", "sh", "-c", SHOW];
    let run = Running::new(server.inject(&token).args(flags));
    assert_eq!(run.line(), "one");
    let variables = vec![v1::ManifestVariable { variable: "NEEDED".into(), required: true, ..Default::default() }];
    let name = "projects/p/manifests/m".to_owned();
    let request = v1::SetManifestRequest { name: name.clone(), variables, ..Default::default() };
    manager.manifests().set_manifest(request).await.expect("set");
    update(&manager, "projects/p/secrets/KEY", "two").await;
    assert!(run.problem().contains("the command, which runs on with what it has"));
    assert!(run.problem().contains("NEEDED: required by a manifest"));
    let restart_required = async || {
        let request = v1::ListInstancesRequest { parent: "projects/p".into(), ..Default::default() };
        let known = manager.instances().list_instances(request).await.expect("listed").into_inner().workloads;
        known.iter().map(|of| of.restart_required).collect::<Vec<_>>()
    };
    assert_eq!(restart_required().await, [true]);
    // No change of the environment tells of this.
    manager.manifests().delete_manifest(v1::DeleteManifestRequest { name }).await.expect("deleted");
    assert_eq!(run.line(), "two");
    until_async("the restart to be told of", async || (restart_required().await == [false]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_that_is_away_for_a_while_costs_no_change() {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    let token = server.workload_token("projects/p/servers/s").await;
    let (file, away) = (server.home().join("own.token"), server.home().join("away.token"));
    write_private(&file, &token);
    let tool = server.inject(&token).args(["--token-file", file.to_str().expect("text")]);
    let run = Running::new(tool.args(["--on-change", "restart", "--debounce", "50ms", "--", "sh", "-c", SHOW]));
    assert_eq!(run.line(), "one");
    // Until the watch is there and has told of it, nothing asks for the token.
    update(&manager, "projects/p/secrets/KEY", "two").await;
    assert_eq!(run.line(), "two");
    fs::rename(&file, &away).expect("renamed");
    update(&manager, "projects/p/secrets/KEY", "three").await;
    let problem = run.problem();
    assert!(problem.contains("the command runs on; trying again") && problem.contains("own.token"), "{problem}");
    fs::rename(&away, &file).expect("renamed");
    assert_eq!(run.line(), "three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_finds_no_place_for_a_watch_says_so_and_follows_once_there_is_one() {
    const WORKLOAD: &str = "projects/p/servers/s";
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "one")).await.expect("created");
    server.grant("services/fleet", "secrets:inject", "projects/p").await;
    let token = server.token("services/fleet").await;
    let client = server.client(&token);
    let request = v1::WatchEnvironmentRequest { workload: WORKLOAD.into(), ..Default::default() };
    let mut taken = Vec::new();
    for _ in 0..limits::PRINCIPAL_STREAMS {
        taken.push(client.workloads().watch_environment(request.clone()).await.expect("a place"));
    }
    let tool = server.inject(&token).args(["--workload", WORKLOAD, "--on-change", "restart", "--", "sh", "-c", SHOW]);
    let run = Running::new(tool);
    assert_eq!(run.line(), "one");
    let watch = Running::new(server.cli(&token).args(["environment", "watch", WORKLOAD]));
    let (injector, cli) = (run.problem(), watch.problem());
    assert!(injector.starts_with("coffer-inject: changes cannot be followed, the command runs on; trying again: "));
    assert!(cli.starts_with("warning: changes cannot be followed; trying again: "), "{cli}");
    for said in [injector, cli] {
        assert!(said.contains("8"), "{said}");
    }
    drop(taken);
    assert_eq!(run.problem(), "coffer-inject: changes are followed again");
    assert_eq!(watch.problem(), "changes are followed again");
    let now = watch.line();
    assert!(now.ends_with("  now"), "{now}");
    update(&manager, "projects/p/secrets/KEY", "two").await;
    assert_eq!(run.line(), "two");
    let change = watch.line();
    assert!(change.ends_with("  changed: KEY") && change[..16] != now[..16], "{now} {change}");
}
