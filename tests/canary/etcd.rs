//! Servers whose store is in an etcd that asks for a password, with the history recorded, in good and in bad times: what
//! they say and write holds no value, no key, and neither the password nor the token that etcd gives for it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use coffer_client::Client;
use coffer_proto::v1::{self, RotatedKeys};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::{Code, Status};

use super::{
    HINT, PLAIN, VALUE, belongs,
    contract::{secret_part, shown},
    decoded, process,
};
use crate::harness::{COFFER, Etcd, Finished, Planted, Server, again, occurrences, secret, text, until_async};

const SCOPE: &str = "projects/p";
const WORKLOAD: &str = "projects/p/servers/s";
/// The passwords of etcd: that of root, which coffer never has, coffer's one after the other, and one that is wrong.
const OF_ROOT: &str = "canary-Gm5QvB8tYz3x";
const FIRST: &str = "canary-Wd7LkC2rNf9s";
const SECOND: &str = "canary-Jt4HpX6gVe1u";
const WRONG: &str = "canary-Rb8ZsM3yKq5a";
/// How every token of etcd's begins that is signed by HS256: base64 of `{"alg":"HS256","typ":"JWT"}`.
const TOKEN_OF_ETCD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// What etcd signs them with.
const SIGNING_KEY: &str = "canary-Ua6TnE9wDh2c";
/// How long what is no longer needed may stay in memory.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);

/// What was planted, and where it was told.
struct Told {
    planted: Planted,
    told: Vec<String>,
}

impl Told {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        self.told.extend(self.planted.found_in(bytes).into_iter().map(|what| format!("{place}: {what}")));
    }

    /// An error is looked at, all of it that a caller has.
    fn answer<T>(&mut self, place: &str, answer: Result<T, Status>) -> Option<Code> {
        let status = answer.err()?;
        self.look(place, &shown(&status));
        Some(status.code())
    }

    fn finished(&mut self, line: &str, finished: &Finished) {
        self.look(line, &finished.stdout);
        self.look(line, finished.stderr.as_bytes());
    }

    /// A verb of the server, seen to work or to fail with these words.
    fn verb(&mut self, words: &[&str], expected: &str) -> Output {
        let output = Server::command(words).output().expect("it starts");
        let (line, said) = (words.join(" "), text(&output));
        self.look(&line, said.as_bytes());
        assert_eq!(output.status.success(), !expected.starts_with("error: "), "{line}: {said}");
        assert!(said.contains(expected), "{line}: {said}");
        output
    }
}

/// A file that its owner alone may read.
fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    set_mode(path, 0o600);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its own file");
}

fn path(home: &Path, name: &str) -> String {
    home.join(name).display().to_string()
}

/// The etcd, whose tokens are soon over, with users and a file with coffer's password.
fn guarded(home: &Path, signing_key: &Path) -> Etcd {
    private(signing_key, SIGNING_KEY);
    let tokens = format!("--auth-token=jwt,sign-method=HS256,ttl=2s,priv-key={}", signing_key.display());
    let etcd = Etcd::start_with(1, &[&tokens]);
    etcd.guard(OF_ROOT, FIRST, &["coffer/", "again/"]);
    private(&home.join("password"), &format!("{FIRST}\n"));
    private(&home.join("wrong-password"), WRONG);
    etcd
}

/// The configuration of a server of it.
fn config(etcd: &Etcd, home: &Path, password: &str, more: &str) -> PathBuf {
    etcd.config(&format!("user = \"{COFFER}\"\npassword_file = \"{}\"\n{more}", path(home, password)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_etcd_and_its_history_tell_no_value_password_or_token() {
    let (home, of_etcd) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let etcd = guarded(home.path(), &of_etcd.path().join("signing.key"));
    let history = path(home.path(), "history");
    let good = config(&etcd, home.path(), "password", &format!("history = {history:?}\nmax_stale = \"1m\""));
    let plain = config(&etcd, home.path(), "password", "");
    let again = config(&etcd, home.path(), "password", "prefix = \"again/\"");
    let wrong = config(&etcd, home.path(), "wrong-password", "");
    let [plain, again, wrong] = [plain, again, wrong].map(|path| path.display().to_string());
    let trace = ["--log", "trace"];
    let mut server = Server::builder().on(good).args(trace).start_in(home);
    let mut second = Server::builder().on(plain.clone().into()).args(trace).beside(&server);
    let manager = server.manager(&[SCOPE]).await;
    let tokens = [server.operator_token(), server.token("users/other").await, server.workload_token(WORKLOAD).await];
    let workload = server.client(&tokens[2]);
    let tokens = tokens.map(|token| secret_part(&token));
    let root_key = fs::read_to_string(server.key_file()).expect("the key").trim().to_owned();
    let of_coffer = || {
        let texts = [("a value", VALUE), ("a plain value", PLAIN), ("the root key", root_key.as_str())];
        texts.into_iter().chain(tokens.iter().map(|token| ("a token", token.as_str())))
    };
    let of_etcd = [
        ("root's password of etcd", OF_ROOT),
        ("the first password of etcd", FIRST),
        ("the second password of etcd", SECOND),
        ("the wrong password of etcd", WRONG),
        ("a token of etcd", TOKEN_OF_ETCD),
        ("what etcd signs with", SIGNING_KEY),
    ];
    let planted = Planted::new(of_coffer().chain(of_etcd).chain([("a hint", HINT)]));
    let mut told = Told { planted, told: Vec::new() };

    calls(&mut told, &manager, &workload).await;
    operations(&mut told, &server).await;
    let home = server.home().to_owned();
    let key = path(&home, "root.key");
    refused_by_etcd(&mut told, &wrong, &home);
    locked_out(&mut told, &etcd, &server, &manager, &workload).await;
    second.signal(Signal::HUP);
    cut_off(&mut told, &etcd, &server, &manager, &workload).await;
    works(&second.manager(&[SCOPE]).await).await;
    assert_eq!(second.environment(WORKLOAD).await[0].1, VALUE, "it has the new password, too");

    // A connection that stays may have some of what went through it last in its buffers.
    drop((manager, workload));
    for pid in [server.pid(), second.pid()] {
        told.told.extend(process::told(pid, &told.planted));
        let no_longer_needed = Planted::new(of_coffer().chain([("the first password of etcd", FIRST)]));
        told.told.extend(remembered(pid, &no_longer_needed).await);
    }
    assert!(server.stop().await.success());
    let backup = path(&home, "coffer.backup");
    let with_key = ["--key-file", &key];
    told.verb(
        &[&["check-config", "--config", &plain, "--audit-file", "a"], &with_key[..]].concat(),
        "password_file = ",
    );
    told.verb(&[&["verify", "--config", &plain], &with_key[..]].concat(), "all open; in etcd");
    told.verb(&[&["verify", &history], &with_key[..]].concat(), "all open; a run of the history");
    told.verb(&["restore", "--config", &again, &history], "records were read again");
    told.verb(&["restore", "--config", &again, &backup], "error: ");
    told.verb(&[&["verify", "--config", &again], &with_key[..]].concat(), "all open; in etcd");
    told.verb(&["restore", "--data", &path(&home, "back"), &history], "records were read again");
    assert!(second.stop().await.success());

    assert!(fs::read_dir(&history).expect("a history").count() > 0);
    for server in [&server, &second] {
        assert!(server.log().len() > 1_000, "trace says something: {}", server.log());
        let found = told.planted.found_below(server.home());
        let keeps = |at: &&String| belongs(at) || at.contains("/password: the") || at.contains("/wrong-password: the");
        assert!(found.iter().any(|at| keeps(&at)), "what is there is found");
        told.told.extend(found.iter().filter(|at| !keeps(at)).cloned());
        told.told.extend(occurrences(server.home(), &[decoded(&root_key)]));
    }
    // What etcd itself keeps of its users is its own matter.
    let in_etcd = etcd.home().to_owned();
    told.told.extend(Planted::new(of_coffer().chain([("a hint", HINT)])).found_below(&in_etcd));
    told.told.extend(occurrences(&in_etcd, &[decoded(&root_key)]));
    assert_eq!(told.told, Vec::<String>::new());
}

/// Where somebody who looks for a place for the password may put it.
#[test]
fn a_password_that_stands_where_none_belongs_is_not_repeated() {
    let home = TempDir::new().expect("a directory");
    let mut told = Told { planted: Planted::new([("the password of etcd", FIRST)]), told: Vec::new() };
    let endpoints = "endpoints = [\"http://127.0.0.1:1\"]";
    for (name, etcd, expected) in [
        ("endpoint", format!("endpoints = [\"http://coffer:{FIRST}@127.0.0.1:1\"]"), "no user and password in it"),
        ("user", format!("{endpoints}\nuser = \"coffer:{FIRST}\"\npassword_file = \"/password\""), "`etcd.user`"),
        ("password", format!("{endpoints}\nuser = \"coffer\"\npassword = \"{FIRST}\""), "`etcd.password`"),
        ("list", format!("{endpoints}\nuser = \"coffer\"\npassword_file = [\"{FIRST}\"]"), "`etcd.password_file`"),
        ("bare", format!("{endpoints}\nuser = \"coffer\"\npassword_file = {FIRST}"), "is no TOML: line 5"),
    ] {
        let file = path(home.path(), &format!("{name}.toml"));
        fs::write(&file, format!("store = \"etcd\"\n[etcd]\n{etcd}\n")).expect("written");
        let with_key = ["--config", &file, "--key-file", "/key"];
        let with_audit = [&with_key[..], &["--audit-file", "/audit.log"]].concat();
        for verb in ["check-config", "run", "init", "operator", "raise-epoch"] {
            let output = told.verb(&[&[verb], &with_audit[..]].concat(), "error: ");
            assert!(text(&output).contains(expected), "{name}: {}", text(&output));
        }
        told.verb(&[&["verify"], &with_key[..]].concat(), "error: ");
        told.verb(&["restore", "--config", &file, "/coffer.backup"], "error: ");
    }
    assert_eq!(told.told, Vec::<String>::new());
}

/// What people and workloads ask, answered and refused.
async fn calls(told: &mut Told, manager: &Client, workload: &Client) {
    let plain = v1::CreateSecretRequest { kind: v1::SecretKind::Plain.into(), ..secret(SCOPE, "OPEN", PLAIN) };
    for (request, code) in [
        (secret(SCOPE, "KEY", VALUE), None),
        (plain, None),
        (secret(SCOPE, "KEY", VALUE), Some(Code::AlreadyExists)),
        (secret(SCOPE, "LD_PRELOAD", VALUE), Some(Code::InvalidArgument)),
        (secret("projects/x", "KEY", VALUE), Some(Code::PermissionDenied)),
    ] {
        let answer = again(async || manager.secrets().create_secret(request.clone()).await).await;
        assert_eq!(told.answer("a create", answer), code);
    }
    let update = v1::UpdateSecretRequest {
        name: format!("{SCOPE}/secrets/KEY"),
        value: Some(VALUE.into()),
        ..Default::default()
    };
    let stale = v1::UpdateSecretRequest { etag: VALUE.into(), ..update.clone() };
    assert_eq!(told.answer("an update", manager.secrets().update_secret(update).await), None);
    assert!(told.answer("an update", manager.secrets().update_secret(stale).await).is_some());
    let get = v1::GetSecretRequest { name: format!("{SCOPE}/secrets/KEY") };
    let got = manager.secrets().get_secret(get).await.expect("it stands").into_inner();
    assert_eq!(got.hint, HINT, "the hint is for readers");
    let fetched = workload.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    assert_eq!(fetched.expect("fetched").into_inner().variables[0].value(), VALUE.as_bytes());
}

/// What an operator does with the store and its history.
async fn operations(told: &mut Told, server: &Server) {
    for keys in [RotatedKeys::Data, RotatedKeys::Root] {
        let request = v1::RotateKeysRequest { keys: keys.into() };
        let begun = server.operator().operations().rotate_keys(request).await.expect("begun");
        let mut stream = begun.into_inner();
        while stream.message().await.expect("told").is_some() {}
    }
    for line in ["snapshot create", "snapshot list", "store status", "store backup coffer.backup"] {
        let finished = server.cli(&server.operator_token()).args(line.split(' ')).run();
        assert_eq!(finished.code, Some(0), "{line}: {}", finished.stderr);
        told.finished(line, &finished);
    }
}

/// Everything that reaches etcd, with the wrong password.
fn refused_by_etcd(told: &mut Told, wrong: &str, home: &Path) {
    let [key, audit] = ["root.key", "other-audit.log"].map(|name| path(home, name));
    let with_key = ["--config", wrong, "--key-file", &key];
    let with_audit = [&with_key[..], &["--audit-file", &audit]].concat();
    for verb in [&["verify"][..], &["restore", &path(home, "coffer.backup")]] {
        let with = if verb[0] == "verify" { &with_key[..] } else { &with_key[..2] };
        told.verb(&[verb, with].concat(), "error: ");
    }
    for verb in ["check-config", "run", "operator", "raise-epoch", "init"] {
        let output = told.verb(&[&[verb], &with_audit[..]].concat(), "error: ");
        assert!(text(&output).contains("authentication failed"), "{verb}: {}", text(&output));
    }
}

/// The password is changed at etcd, and later in the file.
async fn locked_out(told: &mut Told, etcd: &Etcd, server: &Server, manager: &Client, workload: &Client) {
    etcd.change_password(OF_ROOT, SECOND);
    fails(told, server, manager, workload).await;
    let file = server.home().join("password");
    set_mode(&file, 0o644);
    fs::write(&file, SECOND).expect("written");
    server.signal(Signal::HUP);
    until_async("the file to be refused", async || server.log().contains("are not read again").then_some(())).await;
    set_mode(&file, 0o600);
    server.signal(Signal::HUP);
    works(manager).await;
}

/// No member answers.
async fn cut_off(told: &mut Told, etcd: &Etcd, server: &Server, manager: &Client, workload: &Client) {
    etcd.signal(Signal::STOP);
    fails(told, server, manager, workload).await;
    etcd.signal(Signal::CONT);
    works(manager).await;
}

/// Waits until the store is out of reach: changes fail, and workloads are answered nevertheless.
async fn fails(told: &mut Told, server: &Server, manager: &Client, workload: &Client) {
    until_async("a change to fail", async || {
        let answer = manager.secrets().create_secret(secret(SCOPE, "NEVER", VALUE)).await;
        let code = told.answer("a create", answer);
        (code == Some(Code::Unavailable)).then_some(())
    })
    .await;
    let list = v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() };
    assert!(told.answer("a list", manager.secrets().list_secrets(list).await).is_some());
    let fetched = workload.workloads().fetch_environment(v1::FetchEnvironmentRequest::default()).await;
    assert_eq!(told.answer("a fetch", fetched), None, "stale, and answered");
    for line in ["status", "store status", "snapshot create"] {
        told.finished(line, &server.cli(&server.operator_token()).args(line.split(' ')).run());
    }
}

/// Waits until the store is within reach again.
async fn works(manager: &Client) {
    let list = || v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() };
    until_async("an answer", async || manager.secrets().list_secrets(list()).await.ok()).await;
}

/// What a server still remembers after a while.
async fn remembered(pid: u32, planted: &Planted) -> Vec<String> {
    let is_gone = async || match process::remembered(pid, planted) {
        Ok(found) => found.is_empty().then_some(Ok(())),
        Err(error) => Some(Err(error)),
    };
    match tokio::time::timeout(FORGOTTEN_WITHIN, until_async("the server to forget", is_gone)).await {
        Ok(Ok(())) => Vec::new(),
        #[allow(clippy::print_stderr, reason = "what is left out says so")]
        Ok(Err(error)) => {
            eprintln!("the server's memory and files are not searched in this run: {error}");
            Vec::new()
        }
        Err(_) => process::remembered(pid, planted).expect("readable before"),
    }
}
