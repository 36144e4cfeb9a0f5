//! The verbs of `coffer-server`, done and failed, on a store that is full of values.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tempfile::TempDir;

use super::{VALUE, belongs, secret_part};
use crate::harness::{Etcd, Planted, Server, secret, until};

/// Of the store that the verbs read, and what they have been seen to do.
struct Stage {
    home: PathBuf,
    planted: Planted,
    told: Vec<String>,
    done: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl Stage {
    /// Runs a verb to its end. `{home}` stands for the directory of everything.
    fn run(&mut self, line: &str) -> Output {
        let home = self.home.to_str().expect("text");
        let words: Vec<_> = line.split(' ').map(|word| word.replace("{home}", home)).collect();
        let output = Server::command(&[]).args(&words).output().expect("it starts");
        let verb = line.split_once(" -").map_or(line, |(verb, _)| verb).to_owned();
        let seen = if output.status.success() { &mut self.done } else { &mut self.failed };
        seen.insert(verb);
        assert!(output.status.success() || !output.stderr.is_empty(), "{line}: without a word");
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            let told = self.planted.found_in(bytes).into_iter().map(|what| format!("{name} of {line}: {what}"));
            self.told.extend(told);
        }
        output
    }

    fn done(&mut self, line: &str) {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn failed(&mut self, line: &str) {
        assert!(!self.run(line).status.success(), "{line}: it worked");
    }
}

/// Every verb that does something, as the help tells them.
fn verbs() -> BTreeSet<String> {
    let below = |verb: &[&str]| -> Vec<String> {
        let output = Server::command(verb).arg("--help").output().expect("it starts");
        let help = String::from_utf8(output.stdout).expect("text");
        let Some((_, commands)) = help.split_once("\nCommands:\n") else { return Vec::new() };
        let commands = commands.lines().take_while(|line| !line.is_empty());
        let names = commands.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
        names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").map(str::to_owned).collect()
    };
    let mut found = BTreeSet::new();
    for verb in below(&[]) {
        match below(&[&verb]) {
            of if of.is_empty() => drop(found.insert(verb)),
            of => found.extend(of.into_iter().map(|name| format!("{verb} {name}"))),
        }
    }
    found
}

fn private(path: &Path, text: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its own file");
}

/// A store with a secret, its backup, a damaged copy of that, and files that are no keys and no configuration.
async fn stage() -> (Server, Stage) {
    let mut server = Server::builder().args(["--log", "trace"]).start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", VALUE)).await.expect("created");
    let token = server.token("users/manager").await;
    server.cli(&server.operator_token()).args(["store", "backup", "coffer.backup"]).run().ok();
    assert!(server.stop().await.success());
    let home = server.home().to_owned();
    let key = fs::read_to_string(server.key_file()).expect("the key").trim().to_owned();
    let other_key: String = key.chars().rev().collect();
    let mut backup = fs::read(home.join("coffer.backup")).expect("made");
    let middle = backup.len() / 2;
    backup[middle] ^= 1;
    fs::write(home.join("damaged.backup"), &backup).expect("written");
    private(&home.join("other.key"), other_key.as_bytes());
    private(&home.join("no.key"), VALUE.as_bytes());
    private(&home.join("long.key"), format!("{key}{key}").as_bytes());
    fs::write(home.join("config.toml"), "data = \"{home}/data\"\n".replace("{home}", home.to_str().expect("text")))
        .expect("written");
    // A key in the place of a file's name, without quotes, and as the name of a setting.
    for (name, text) in [("a.toml", format!("key_file = {key}")), ("b.toml", format!("data = 1\n{key}"))] {
        fs::write(home.join(name), text).expect("written");
    }
    let tokens = [secret_part(&token), secret_part(&server.operator_token())];
    let texts = [("a value", VALUE), ("the root key", key.as_str()), ("another key", other_key.as_str())];
    let planted = Planted::new(texts.into_iter().chain(tokens.iter().map(|token| ("a token", token.as_str()))));
    let stage = Stage { home, planted, told: Vec::new(), done: BTreeSet::new(), failed: BTreeSet::new() };
    (server, stage)
}

#[tokio::test]
async fn no_verb_of_the_server_tells_a_value_a_token_or_a_key() {
    let (server, mut stage) = stage().await;
    let key = fs::read_to_string(server.key_file()).expect("the key").trim().to_owned();
    let token = server.operator_token();
    let with_key = "--key-file {home}/root.key";
    let store = format!("--data {{home}}/data {with_key} --audit-file {{home}}/audit.log");

    stage.done(&format!("verify {with_key} {{home}}/data"));
    stage.done(&format!("verify {with_key} {{home}}/coffer.backup"));
    stage.done("verify --without-key {home}/coffer.backup");
    stage.failed(&format!("verify {with_key} {{home}}/damaged.backup"));
    stage.failed("verify --key-file {home}/other.key {home}/data");
    stage.failed("verify --key-file {home}/no.key {home}/data");
    stage.failed("verify --key-file {home}/long.key {home}/data");

    stage.done(&format!("audit verify {store}"));
    stage.failed("audit verify --data {home}/data --key-file {home}/other.key --audit-file {home}/audit.log");
    stage.done(&format!("audit show {store} --json").replace(with_key, "").replace("  ", " "));
    stage.done("audit show --data {home}/data --audit-file {home}/audit.log");
    stage.done("audit show --data {home}/data --audit-file {home}/no.key");

    stage.done("restore --data {home}/restored {home}/coffer.backup");
    stage.failed("restore --data {home}/again {home}/damaged.backup");
    stage.failed("restore --data {home}/again {home}/no.key");
    stage.failed("restore --data {home}/data {home}/coffer.backup");

    stage.done(&format!("operator {store} --token-file {{home}}/token-second"));
    stage.failed(&format!("operator {store} --operator {token}"));
    stage.failed("operator --data {home}/data --key-file {home}/other.key --token-file {home}/third");

    stage.done("init --data {home}/new --key-file {home}/new.key --generate-key --token-file {home}/token-new");
    stage.failed("init --data {home}/data --key-file {home}/root.key");
    stage.failed("init --data {home}/newer --key-file {home}/no.key");
    stage.failed("init --data {home}/newer --key-file {home}/root.key --token-file {home}/operator.token");

    stage.done(&format!("check-config --config {{home}}/config.toml {with_key}"));
    for config in ["a.toml", "b.toml", "no.key"] {
        stage.failed(&format!("check-config --config {{home}}/{config} {with_key}"));
        stage.failed(&format!("run --config {{home}}/{config} {with_key}"));
    }
    for verb in ["init", "operator", "run", "check-config"] {
        stage.failed(&format!("{verb} --data {{home}}/data --key-file {key}"));
    }
    in_etcd(&mut stage, &key);
    stage.failed(&format!("verify --key-file {key} {{home}}/data"));
    stage.failed(&format!("init --data {{home}}/newer --key-file {key} --generate-key"));
    stage.failed("run --data {home}/data --key-file {home}/other.key --log trace");
    stage.failed("run --data {home}/data --key-file {home}/no.key --log trace");
    // A key or a token where nothing of the kind belongs. What a setting cannot be, an address or a filter, is shown.
    for word in [VALUE.split(' ').next().expect("a word"), &key, &token] {
        for verb in ["", "init ", "operator ", "audit verify ", "audit show ", "restore ", "verify ", "dev ", "run "] {
            stage.failed(&format!("{verb}--{word}"));
            stage.failed(&format!("{verb}--help={word}"));
            if !["audit verify ", "audit show ", "restore ", "verify "].contains(&verb) {
                stage.failed(&format!("{verb}{word}"));
            }
        }
        stage.failed(&format!("restore --data {{home}}/again --to-time {word} {{home}}/coffer.backup"));
        stage.failed(&format!("restore --data {{home}}/again --to-position {word} {{home}}/coffer.backup"));
        stage.failed(&format!("audit verify {store} --head {word}"));
        stage.failed(&format!("audit show {store} --phase {word}"));
        stage.failed(&format!("audit show {store} --since {word}"));
    }
    dev(&mut stage);
    assert_eq!(stage.told, Vec::<String>::new());

    // A server that serves is what all the others of these tests are.
    stage.done.insert("run".to_owned());
    let verbs = verbs();
    assert!(verbs.is_subset(&stage.done), "not seen to work: {:?}", verbs.difference(&stage.done));
    assert!(verbs.is_subset(&stage.failed), "not seen to fail: {:?}", verbs.difference(&stage.failed));
    let found = stage.planted.found_below(&stage.home);
    let planted_here = ["/other.key: ", "/no.key: ", "/long.key: ", "/a.toml: ", "/b.toml: "];
    let elsewhere: Vec<_> =
        found.iter().filter(|at| !belongs(at) && !planted_here.iter().any(|file| at.contains(file))).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// The verbs that know of etcd, on a store that is moved there.
fn in_etcd(stage: &mut Stage, key: &str) {
    let etcd = Etcd::start(1);
    fs::copy(etcd.config(""), stage.home.join("etcd.toml")).expect("copied");
    let with_key = "--config {home}/etcd.toml --key-file {home}/root.key";
    let audit = "--audit-file {home}/etcd-audit.log";
    stage.failed(&format!("verify {with_key}"));
    stage.failed(&format!("raise-epoch {with_key} {audit}"));
    stage.failed("restore --config {home}/etcd.toml {home}/damaged.backup");
    stage.done("restore --config {home}/etcd.toml {home}/coffer.backup");
    stage.failed("restore --config {home}/etcd.toml {home}/coffer.backup");
    stage.done(&format!("verify {with_key}"));
    stage.failed("verify --config {home}/etcd.toml --key-file {home}/other.key");
    stage.done(&format!("raise-epoch {with_key} {audit}"));
    stage.failed(&format!("raise-epoch --config {{home}}/etcd.toml --key-file {{home}}/other.key {audit}"));
    stage.failed(&format!("raise-epoch --config {{home}}/etcd.toml --key-file {key} {audit}"));
    stage.done(&format!("operator {with_key} {audit} --token-file {{home}}/token-etcd"));
}

/// Its tokens lie in files, and it prints how to use them.
fn dev(stage: &mut Stage) {
    let directory = TempDir::new().expect("a directory");
    let data = directory.path().join("dev");
    let out = directory.path().join("out");
    let file = fs::File::create(&out).expect("a file");
    let mut command = Server::command(&["dev", "--data"]);
    command.arg(&data).stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
    let mut child = command.spawn().expect("it starts");
    until("what to paste", || fs::read_to_string(&out).ok().filter(|text| text.contains("coffer secret")).map(drop));
    let pid = rustix::process::Pid::from_raw(child.id().try_into().expect("a pid")).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("its own child");
    until("its end", || child.try_wait().expect("its own child"));
    let text = fs::read(&out).expect("its output");
    let mut secrets = Vec::new();
    let mut pending = vec![data];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let text = text.trim();
            match text.len() {
                64 => secrets.push(text.to_owned()),
                _ if text.starts_with("cof_") => secrets.push(secret_part(text)),
                _ => {}
            }
        }
    }
    assert!(secrets.len() >= 2, "a key and a token");
    let planted = Planted::new(secrets.iter().map(|secret| ("a secret of dev", secret.as_str())));
    stage.told.extend(planted.found_in(&text).into_iter().map(|what| format!("dev: {what}")));
    stage.done.insert("dev".to_owned());
}
