//! Every way in which the injector starts a command, or refuses to: it tells no value, leaves none in a file that was not
//! asked for, and holds none while it stays, but for what it masks.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::Child,
    time::{Duration, Instant},
};

use coffer_proto::v1;

use super::{VALUE, belongs, process, secret_part};
use crate::harness::{Finished, Planted, Server, Tool, secret, until};

const WORKLOAD: &str = "projects/p/servers/s";
/// How long a value may stay in the injector's memory once the command has it.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(5);
/// Another value, after a change.
const CHANGED: &str = "canary-Jd4XmZ8qRw2v \"/+%é\\ Fy61NcKs07LpTa";

struct Stage {
    server: Server,
    address: String,
    token: String,
    /// In memory, for files with values in them.
    given: tempfile::TempDir,
    planted: Planted,
    told: Vec<String>,
    options: BTreeSet<String>,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start();
        let manager = server.manager(&["projects/p"]).await;
        for (name, value) in [("KEY", VALUE), ("OTHER", VALUE)] {
            manager.secrets().create_secret(secret("projects/p", name, value)).await.expect("created");
        }
        let token = server.workload_token(WORKLOAD).await;
        let given = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let cache_key = "0123456789abcdef".repeat(4);
        for (name, text) in [
            ("token", token.as_str()),
            ("in", "key: {{KEY}}"),
            ("unknown", "{{NONE}} w8Kq2ZrTcN7u"),
            ("cache.key", &cache_key),
            ("no.key", VALUE),
            ("no.token", VALUE),
            ("not-executable", VALUE),
        ] {
            private(&given.path().join(name), text);
        }
        let secrets = [secret_part(&token), cache_key];
        let secrets =
            [("a value", VALUE), ("another value", CHANGED), ("the token", &secrets[0]), ("a key", &secrets[1])];
        let planted = Planted::new(secrets);
        let address = server.address();
        Self { server, address, token, given, planted, told: Vec::new(), options: BTreeSet::new() }
    }

    /// The injector with these words, separated by spaces, and then the command's. `{in}` is the directory of files.
    fn tool(&mut self, line: &str, command: &[&str]) -> Tool {
        let given = self.given.path().to_str().expect("text");
        let words: Vec<_> = line.split_whitespace().map(|word| word.replace("{in}", given)).collect();
        self.options.extend(words.iter().filter(|word| word.starts_with("--")).cloned());
        let tool = Tool::new("coffer-inject").env("COFFER_ADDRESS", &self.address);
        let tool = tool.env("COFFER_TOKEN_FILE", self.given.path().join("token")).dir(self.given.path());
        let tool = tool.args(["--verbose"]);
        tool.args(words).args(if command.is_empty() { &[][..] } else { &["--"] }).args(command)
    }

    fn look(&mut self, line: &str, finished: &Finished) {
        for (name, bytes) in [("stdout", &finished.stdout[..]), ("stderr", finished.stderr.as_bytes())] {
            let told = self.planted.found_in(bytes).into_iter().map(|what| format!("{name} of {line}: {what}"));
            self.told.extend(told);
        }
    }

    fn ends(&mut self, line: &str, command: &[&str], code: i32) {
        let finished = self.tool(line, command).run();
        assert_eq!(finished.code, Some(code), "{line}: {}", finished.stderr);
        assert!(!finished.stderr.is_empty(), "{line}: --verbose says something");
        self.look(line, &finished);
    }
}

fn private(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its own file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_tells_a_value() {
    let mut stage = Stage::set().await;
    let has = &["sh", "-c", "[ -n \"$KEY\" ]"][..];
    stage.ends("", has, 0);
    stage.ends("--only KEY --require KEY --keep-existing --ignore-manifest", has, 0);
    stage.ends("--env KEY=renamed", &["sh", "-c", "[ -n \"$renamed\" ]"], 0);
    stage.ends("--dry-run", &[], 0);
    stage.ends("--template {in}/in:{in}/out", &["grep", "-q", "w8Kq2ZrTcN7u", "out"], 0);
    stage.ends("--files {in}/files", &["grep", "-q", "w8Kq2ZrTcN7u", "files/KEY"], 0);
    // On both streams, whole and in an encoding.
    let tells = "echo \"$KEY\"; echo \"<$OTHER>\" >&2; printf %s \"$KEY\" | od -An -v -tx1 | tr -d ' \\n'";
    stage.ends("--mask", &["sh", "-c", tells], 0);
    let cache = format!("--workload {WORKLOAD} --cache {{in}}/cache --cache-key-file {{in}}/cache.key");
    let cached = format!("{cache} --cache-max-age 1h --address {}", stage.server.socket());
    stage.ends(&cached, has, 0);
    stage.ends(&format!("{cache} --address http://127.0.0.1:1 --timeout 100ms"), has, 69);

    stage.ends("--require NONE", has, 78);
    stage.ends("--only NONE", has, 78);
    stage.ends("--template {in}/unknown:{in}/never", has, 78);
    stage.ends("--template {in}/in:/proc/never", has, 65);
    stage.ends("--files /proc/never", has, 65);
    stage.ends("--env KEY=LD_PRELOAD", has, 64);
    stage.ends("--workload projects/p/servers/other", has, 77);
    stage.ends("--token-file {in}/no.token", has, 77);
    stage.ends("--address http://127.0.0.1:1 --timeout 100ms", has, 69);
    stage.ends(&format!("--workload {WORKLOAD} --cache {{in}}/cache --cache-key-file {{in}}/no.key"), has, 64);
    stage.ends("", &["no-such-command-anywhere"], 127);
    stage.ends("", &["{in}/not-executable"], 127);
    stage.ends("--mask", &["sh", "-c", "exit 70"], 70);
    // What is no option, and where nothing belongs.
    let word = VALUE.split(' ').next().expect("a word");
    let token = stage.token.clone();
    for word in [word, &token] {
        for line in [format!("--{word}"), word.to_owned(), format!("--token={word}"), format!("--mask={word}")] {
            stage.ends(&line, has, 64);
        }
        for option in
            ["only", "env", "timeout", "workload", "on-change", "stop-signal", "splay", "token-fd", "template"]
        {
            stage.ends(&format!("--{option} {word}"), has, 64);
        }
    }
    stage.ends(&format!("--token-file {token}"), has, 77);
    stage.options.retain(|option| !option.contains('=') && !option.contains(word) && !option.contains(&token));
    supervised(&mut stage).await;
    assert_eq!(stage.told, Vec::<String>::new());

    let help = Tool::new("coffer-inject").args(["--help"]).run().ok();
    let known: BTreeSet<_> = help
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches("-v, ").strip_prefix("--"))
        .filter_map(|line| line.split([' ', '\n']).next())
        .map(|name| format!("--{name}"))
        .filter(|name| {
            !["--help", "--", "--verbose", "--ca-file", "--token-fd"].contains(&name.as_str()) && name.len() > 2
        })
        .collect();
    let driven = |name: &String| stage.options.contains(name);
    let missing: Vec<_> = known.iter().filter(|name| !driven(name)).collect();
    assert!(known.len() > 15 && missing.is_empty(), "options that are not driven: {missing:?}");
    assert!(stage.server.stop().await.success());
    stage.ends(&format!("{cached} --timeout 500ms"), has, 0);
    no_file_holds_any(&stage);
    assert_eq!(stage.told, Vec::<String>::new());
}

/// While the injector stays: it holds no value once the command has it, is told none below /proc, and tells none when the
/// command is started anew, signalled or stopped.
async fn supervised(stage: &mut Stage) {
    let told = "--debounce 10ms --splay 1ms --grace 5s --stop-signal TERM --change-signal USR1";
    let (start, changed) = (VALUE, CHANGED);
    for (number, (on_change, more)) in
        [("restart", ""), ("signal", "--template {in}/in:{in}/followed"), ("exit", ""), ("restart", "--mask")]
            .into_iter()
            .enumerate()
    {
        let line = format!("--on-change {on_change} {told} {more}");
        update(stage, start).await;
        let script = "trap 'echo told' USR1; echo \"started $1\"; while :; do sleep 0.02; done";
        let mut child = stage.tool(&line, &["sh", "-c", script, "sh", &number.to_string()]).spawn();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line_of = || {
            let mut text = String::new();
            stdout.read_line(&mut text).expect("readable");
            text
        };
        assert_eq!(line_of(), format!("started {number}\n"));
        look_into(stage, &child, more == "--mask");
        update(stage, changed).await;
        match on_change {
            "restart" => assert_eq!(line_of(), format!("started {number}\n"), "{line}"),
            "signal" => assert_eq!(line_of(), "told\n", "{line}"),
            _ => {}
        }
        if on_change != "exit" {
            look_into(stage, &child, more == "--mask");
            let pid = rustix::process::Pid::from_raw(child.id().try_into().expect("a pid")).expect("not zero");
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("its own child");
        }
        let code = until("the injector to end", || child.try_wait().expect("its own child")).code();
        assert_eq!(code, Some(if on_change == "exit" { 75 } else { 143 }), "{line}");
        let output = child.wait_with_output().expect("its own child");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        stage.look(&line, &Finished { code, stdout: output.stdout, stderr });
    }
}

async fn update(stage: &Stage, value: &str) {
    let manager = stage.server.client(&stage.server.token("users/manager").await);
    let name = "projects/p/secrets/KEY".to_owned();
    let request = v1::UpdateSecretRequest { name, value: Some(value.into()), ..Default::default() };
    manager.secrets().update_secret(request).await.expect("updated");
}

/// The token it needs again and again, and what it masks it looks for.
fn look_into(stage: &mut Stage, injector: &Child, masks: bool) {
    stage.told.extend(process::told(injector.id(), &stage.planted));
    if masks {
        return;
    }
    let values = Planted::new([("a value", VALUE), ("another value", CHANGED)]);
    let begun = Instant::now();
    // The command may speak before the injector has put away what it gave it.
    let found = until("the injector to forget", || match process::remembered(injector.id(), &values) {
        Ok(found) if !found.is_empty() && begun.elapsed() < FORGOTTEN_WITHIN => None,
        looked => Some(looked),
    });
    match found {
        Ok(found) => stage.told.extend(found),
        #[allow(clippy::print_stderr, reason = "what is left out says so")]
        Err(error) => eprintln!("the injector's memory is not searched in this run: {error}"),
    }
}

/// But those that values were to be written to.
fn no_file_holds_any(stage: &Stage) {
    let found = stage.planted.found_below(stage.given.path());
    let asked_for =
        ["/token: ", "/in: ", "/unknown: ", "/cache.key: ", "/no.key: ", "/no.token: ", "/not-executable: ", "/out: "];
    let asked_for = [&asked_for[..], &["/files/KEY: ", "/files/OTHER: ", "/followed: "]].concat();
    let elsewhere: Vec<_> = found.iter().filter(|at| !asked_for.iter().any(|file| at.contains(file))).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    assert!(stage.given.path().join("cache").exists(), "the cache was searched");
    let found = stage.planted.found_below(stage.server.home());
    let elsewhere: Vec<_> = found.iter().filter(|at| !belongs(&at.replace("the token", "a token"))).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}
