//! The audit log says who did what to which names, decided how; never a value, hint, description or token. What was done to
//! it is found.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use coffer_proto::v1;
use serde_json::Value;

use crate::harness::{Finished, Server, Tool, secret, until};

/// The lines of the log that are about this method.
fn lines(server: &Server, method: &str) -> Vec<Value> {
    server.audit().into_iter().filter(|line| line.to_string().contains(method)).collect()
}

fn text(line: &Value) -> String {
    line.to_string()
}

#[tokio::test]
async fn a_change_is_announced_before_and_settled_after_and_a_fetch_before_it_leaves() {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    let value = "audited-Vq81-value-of-a-secret";
    let request =
        v1::CreateSecretRequest { description: "audited-description".into(), ..secret("projects/p", "KEY", value) };
    manager.secrets().create_secret(request).await.expect("created");
    let created = lines(&server, "CreateSecret");
    assert_eq!(created.len(), 2, "intent and outcome: {created:#?}");
    for line in &created {
        assert!(text(line).contains("users/manager"), "who: {line}");
        assert!(text(line).contains("projects/p/secrets/KEY"), "what: {line}");
    }
    server.environment("projects/p/servers/s").await;
    let fetched = lines(&server, "FetchEnvironment");
    assert!(!fetched.is_empty());
    assert!(fetched.iter().any(|line| text(line).contains("projects/p/servers/s")), "{fetched:#?}");
    assert!(fetched.iter().any(|line| text(line).contains("KEY")), "which names left: {fetched:#?}");

    let all = std::fs::read_to_string(server.home().join("audit.log")).expect("the log");
    for hidden in [value, "audi…cret", "audited-description", &server.operator_token()] {
        assert!(!all.contains(hidden), "the log holds {hidden:?}");
    }
}

#[tokio::test]
async fn refusals_are_written_down_too() {
    let server = Server::start();
    let eve = server.with("users/eve", &[]).await;
    let list = v1::ListSecretsRequest { parent: "projects/p".into(), ..Default::default() };
    eve.secrets().list_secrets(list).await.map(drop).expect_err("forbidden");
    eve.secrets().create_secret(secret("projects/p", "KEY", "v")).await.map(drop).expect_err("forbidden");
    let refusals: Vec<_> =
        server.audit().into_iter().map(|line| text(&line)).filter(|l| l.contains("users/eve")).collect();
    let denied = |method: &str| refusals.iter().any(|line| line.contains(method) && line.contains("refused"));
    assert!(denied("CreateSecret") && denied("ListSecrets"), "{refusals:#?}");
}

#[tokio::test]
async fn grants_and_tokens_that_lead_to_values_are_marked() {
    let server = Server::start();
    server.grant("users/m", "secrets:manage", "projects/p").await;
    let before = server.audit().len();
    server.grant("services/i", "secrets:inject", "projects/p").await;
    let marked: Vec<_> = server.audit().split_off(before).iter().map(text).collect();
    let plain: Vec<_> = lines(&server, "CreateGrant").iter().map(text).filter(|l| l.contains("users/m")).collect();
    let mark = |line: &String| line.contains("leads_to_values\":true");
    assert!(marked.iter().any(mark), "{marked:#?}");
    assert!(!plain.iter().any(mark), "{plain:#?}");
    server.workload_token("projects/p/servers/s").await;
    let issued: Vec<_> = lines(&server, "IssueToken").iter().map(text).collect();
    assert!(issued.iter().any(|l| l.contains("projects/p/servers/s") && mark(l)), "{issued:#?}");
}

/// `coffer-server audit` on this server's log, while it may run.
fn audit(server: &Server, verb: &str, args: &[&str]) -> Finished {
    let mut tool =
        Tool::new("coffer-server").args(["audit", verb, "--audit-file"]).args([server.home().join("audit.log")]);
    if verb == "verify" {
        tool = tool.args(["--key-file".as_ref(), server.key_file().as_os_str()]);
    }
    tool.args(args).run()
}

/// The server's audit files, in the order of their names: those put aside, then the one in use.
fn files(server: &Server) -> Vec<PathBuf> {
    let names = fs::read_dir(server.home()).expect("there").map(|entry| entry.expect("an entry").path());
    let is_log = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("audit.log.") && ![".head", ".lock"].iter().any(|ending| name.ends_with(ending))
    };
    let mut files: Vec<_> = names.filter(is_log).collect();
    files.sort();
    files.push(server.home().join("audit.log"));
    files
}

/// Writes and reads a few times.
async fn act(server: &Server, name: &str) {
    let manager = server.manager(&["projects/p"]).await;
    for number in 0..5 {
        let value = "audited-value";
        manager
            .secrets()
            .create_secret(secret("projects/p", &format!("{name}_{number}"), value))
            .await
            .expect("created");
    }
}

/// Renames the log as logrotate does, and tells the server.
fn rotate(server: &Server, number: u32) {
    let log = server.home().join("audit.log");
    fs::rename(&log, server.home().join(format!("audit.log.{number}"))).expect("renamed");
    server.signal(rustix::process::Signal::HUP);
    until("a new file that says what goes on there", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("\"continued\"")).then_some(())
    });
}

fn numbered(path: &Path, line: usize) -> String {
    format!("{}:{line}: ", path.display())
}

#[tokio::test]
async fn a_log_is_proved_while_the_server_runs_and_an_edit_is_located() {
    let mut server = Server::start();
    act(&server, "A").await;
    rotate(&server, 1);
    act(&server, "B").await;
    server.kill_and_restart();
    act(&server, "C").await;
    rotate(&server, 2);
    act(&server, "D").await;

    let status = server.operator().operations().get_status(v1::GetStatusRequest {}).await.expect("a status");
    let told = status.into_inner().audit.expect("the log's head");
    assert!(told.healthy);
    let head = format!("{}:{}:{}", told.chain, told.sequence, told.head);
    let proved = audit(&server, "verify", &["--head", &head]);
    let text = proved.text();
    assert_eq!((proved.code, proved.stderr.as_str()), (Some(0), ""), "{text}");
    let chains: Vec<_> = text.lines().filter(|line| line.starts_with("chain ")).collect();
    assert!(chains[0].contains("not ended: the server was killed"), "{text}");
    assert!(chains[1].contains("the server runs"), "{text}");
    assert!(text.contains("verified ") && text.ends_with(" lines in 2 chains\n"), "{text}");

    // One name in one line of the oldest file: somebody hides what they did.
    let file = &files(&server)[0];
    let before = fs::read_to_string(file).expect("a log");
    let line =
        before.lines().position(|line| line.contains("secrets/A_3") && line.contains("\"done\"")).expect("a line");
    let edited: Vec<_> = before
        .lines()
        .enumerate()
        .map(|(number, text)| match number {
            number if number == line => text.replace("users/manager", "users/nobody1"),
            _ => text.to_owned(),
        })
        .collect();
    fs::write(file, edited.join("\n") + "\n").expect("edited");
    let refused = audit(&server, "verify", &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.text().contains(&format!("{}was edited\n", numbered(file, line + 1))), "{}", refused.text());
    assert!(
        refused.stderr.starts_with("error: the audit log is not as it was written: 1 finding"),
        "{}",
        refused.stderr
    );
    fs::write(file, &before).expect("as it was");

    // A line less at the end: the head beside the log knows.
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(audit(&server, "verify", &[]).text().contains("ended in good order"));
    let log = server.home().join("audit.log");
    let whole = fs::read_to_string(&log).expect("a log");
    let end = whole.trim_end().rfind('\n').expect("lines") + 1;
    fs::write(&log, &whole[..end]).expect("cut");
    let cut = audit(&server, "verify", &[]);
    assert_eq!(cut.code, Some(1));
    assert!(cut.text().contains(&numbered(&log, whole.lines().count() - 1)), "{}", cut.text());
    assert!(cut.text().contains("the end is cut off"), "{}", cut.text());

    // The next start finds it, too, and says so in the log, where it stays.
    server.run();
    assert!(server.log().contains("lines were cut off the end of the audit log"), "{}", server.log());
    let later = audit(&server, "verify", &[]);
    assert!(
        later.code == Some(1) && later.text().contains("lines were cut off before the server started here"),
        "{later:?}"
    );
    fs::remove_file(server.key_file()).expect("removed");
    assert!(audit(&server, "verify", &[]).stderr.contains("key file"), "nothing is proved without the key");
}

#[tokio::test]
async fn a_full_log_is_put_aside_and_the_oldest_go() {
    let home = tempfile::TempDir::new().expect("a directory");
    let config = home.path().join("coffer.toml");
    fs::write(&config, "[audit]\nmax_bytes = 65536\nkeep_files = 2\n").expect("a configuration");
    let server = Server::builder().args(["--config".as_ref(), config.as_os_str()]).start_in(home);
    let manager = server.manager(&["projects/p"]).await;
    let list = v1::ListSecretsRequest { parent: "projects/p".into(), ..Default::default() };
    let mut put_aside = std::collections::BTreeSet::new();
    while put_aside.len() < 4 {
        for _ in 0..50 {
            manager.secrets().list_secrets(list.clone()).await.expect("listed");
        }
        put_aside.extend(files(&server).into_iter().rev().skip(1));
        assert!(files(&server).len() <= 3, "two old ones and the one in use");
    }
    assert!(
        put_aside.iter().filter(|path| path.exists()).all(|path| fs::metadata(path).expect("a file").len() >= 65_536)
    );
    let proved = audit(&server, "verify", &[]);
    assert_eq!(proved.code, Some(0), "{}", proved.text());
    assert!(proved.text().contains("the server removed the files before it"), "the oldest are gone: {}", proved.text());
    assert!(server.log().contains("removed an old file of the audit log"), "{}", server.log());
    // One more that somebody else removed is missed.
    fs::remove_file(&files(&server)[0]).expect("removed");
    let missed = audit(&server, "verify", &[]);
    assert_eq!(missed.code, Some(1), "{}", missed.text());
    assert!(missed.text().contains("lines are missing before it"), "{}", missed.text());
    assert_eq!(audit(&server, "verify", &["--partial"]).code, Some(0));
}

/// `coffer-server audit verify` on these files, with no other flags than for the key.
fn verify_files(server: &Server, args: &[&Path]) -> Finished {
    let key_file = server.key_file();
    let args = ["audit".as_ref(), "verify".as_ref(), "--key-file".as_ref(), key_file.as_os_str()]
        .into_iter()
        .chain(args.iter().map(|path| path.as_os_str()));
    Tool::new("coffer-server").args(args).run()
}

#[tokio::test]
async fn what_was_cut_off_is_found_by_the_file_alone_and_nothing_proves_nothing() {
    let mut server = Server::start();
    act(&server, "A").await;
    assert_eq!(server.stop().await.code(), Some(0));
    let (log, head) = (server.home().join("audit.log"), server.home().join("audit.log.head"));
    let whole = fs::read_to_string(&log).expect("a log");
    let proved = verify_files(&server, &[&log]);
    assert_eq!((proved.code, proved.stderr.as_str()), (Some(0), ""), "{}", proved.text());
    let end = whole.trim_end().rfind('\n').expect("lines") + 1;
    fs::write(&log, &whole[..end]).expect("cut");
    let cut = verify_files(&server, &[&log]);
    assert!(cut.code == Some(1) && cut.text().contains("the end is cut off"), "{cut:?}");
    // A file without its head proves no end, and says so.
    let copy = server.home().join("copy");
    fs::write(&copy, &whole).expect("a copy");
    let copied = verify_files(&server, &[&copy]);
    assert!(copied.code == Some(0) && copied.stderr.contains("there is no head beside these files"), "{copied:?}");
    fs::write(&copy, "").expect("emptied");
    let empty = verify_files(&server, &[&copy]);
    assert!(empty.code == Some(1) && empty.stderr.contains("nothing is proved"), "{empty:?}");
    assert!(!empty.text().contains("verified"), "{empty:?}");

    // The log that a server writes has a head, and the next start says for ever that it had none.
    fs::write(&head, "garbage").expect("garbled");
    let garbled = audit(&server, "verify", &[]);
    assert!(garbled.code == Some(1) && garbled.text().contains("it cannot be read"), "{garbled:?}");
    fs::remove_file(&head).expect("removed");
    let missing = audit(&server, "verify", &[]);
    assert!(missing.code == Some(1) && missing.text().contains("there is no such head"), "{missing:?}");
    server.run();
    let later = audit(&server, "verify", &[]);
    assert!(later.code == Some(1) && later.text().contains("the server found no head beside the log"), "{later:?}");
}

#[tokio::test]
async fn a_log_of_another_store_and_one_whose_key_is_gone_are_told_apart_from_a_changed_one() {
    let server = Server::start();
    act(&server, "A").await;
    let data = server.data();
    let here = audit(&server, "verify", &["--data", data.to_str().expect("UTF-8")]);
    assert_eq!((here.code, here.stderr.as_str()), (Some(0), ""), "while the server runs: {}", here.text());
    // Another store with the same key: all of its lines are genuine, and none is this store's.
    let (other, token) = (server.home().join("other"), server.home().join("other.token"));
    let key_file = server.key_file();
    let made = Tool::new("coffer-server")
        .args(["init".as_ref(), "--data".as_ref(), other.as_os_str(), "--key-file".as_ref(), key_file.as_os_str()])
        .args(["--token-file".as_ref(), token.as_os_str()])
        .run();
    assert_eq!(made.code, Some(0), "{made:?}");
    let log = other.join("audit.jsonl");
    assert_eq!(verify_files(&server, &[&log]).code, Some(0));
    let foreign = verify_files(&server, &["--data".as_ref(), &data, "--".as_ref(), &log]);
    assert!(foreign.code == Some(1) && foreign.text().contains("of another store"), "{foreign:?}");
    let mixed = verify_files(&server, &[&log, &server.home().join("audit.log")]);
    assert!(mixed.code == Some(1) && mixed.text().contains("of another store"), "{mixed:?}");

    let wrong = server.home().join("wrong.key");
    fs::write(&wrong, "ab".repeat(32)).expect("a key");
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).expect("chmod");
    let tool = Tool::new("coffer-server").args(["audit", "verify", "--audit-file"]);
    let locked = tool.args([server.home().join("audit.log"), "--key-file".into(), wrong]).run();
    assert_eq!(locked.code, Some(1));
    assert!(locked.stderr.starts_with("error: the audit log cannot be checked to its end"), "{locked:?}");
    assert!(!locked.stderr.contains("not as it was written"), "{locked:?}");
}

#[tokio::test]
async fn commands_without_a_server_use_what_it_is_configured_with() {
    let mut server = Server::start();
    assert_eq!(server.stop().await.code(), Some(0));
    let home = server.home();
    let config = home.join("coffer.toml");
    fs::write(
        &config,
        "data = \"data\"\nkey_file = \"KEY\"\n[audit]\nfile = \"audit.log\"\n"
            .replace("KEY", server.key_file().to_str().expect("UTF-8")),
    )
    .expect("a configuration");
    let run =
        |args: &[&str]| Tool::new("coffer-server").args(args).args(["--config".as_ref(), config.as_os_str()]).run();
    let token = home.join("evil.token");
    let made = run(&["operator", "--operator", "users/evil", "--token-file", token.to_str().expect("UTF-8")]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let own = server.data().join("audit.jsonl");
    assert!(!fs::read_to_string(&own).is_ok_and(|log| log.contains("users/evil")), "not beside the store");
    assert!(fs::read_to_string(home.join("audit.log")).expect("the log").contains("users/evil"));
    assert_eq!(run(&["audit", "verify"]).code, Some(0));
    assert!(run(&["audit", "show"]).ok().contains("users/evil"));
    assert_eq!(run(&["verify", server.data().to_str().expect("UTF-8")]).code, Some(0));

    // Without it a new log begins, which is said.
    drop(fs::remove_file(&own));
    let token = home.join("other.token");
    let made = Tool::new("coffer-server")
        .args(["operator".as_ref(), "--data".as_ref(), server.data().as_os_str(), "--key-file".as_ref()])
        .args([server.key_file().as_os_str(), "--token-file".as_ref(), token.as_os_str()])
        .run();
    assert!(made.code == Some(0) && made.stderr.contains("this began a new audit log"), "{made:?}");
}

#[tokio::test]
async fn people_are_shown_what_they_ask_for() {
    let server = Server::start();
    act(&server, "A").await;
    let eve = server.with("users/eve", &[]).await;
    let list = v1::ListSecretsRequest { parent: "projects/p".into(), ..Default::default() };
    eve.secrets().list_secrets(list).await.map(drop).expect_err("forbidden");

    let all = audit(&server, "show", &[]).ok();
    assert!(all.starts_with("TIME "), "{all}");
    let created: Vec<_> = all.lines().filter(|line| line.contains("CreateSecret")).collect();
    assert_eq!(created.len(), 5, "intent and outcome are one row: {all}");
    assert!(created.iter().all(|line| line.contains("  done  ")), "{all}");
    let eves = audit(&server, "show", &["--principal", "users/eve"]).ok();
    assert_eq!(eves.lines().count(), 2, "{eves}");
    assert!(eves.contains("ListSecrets") && eves.contains("refused") && eves.contains("PERMISSION_DENIED"), "{eves}");
    let named = audit(&server, "show", &["--name", "projects/p/secrets/A_2"]).ok();
    assert_eq!(named.lines().count(), 2, "{named}");
    let below = audit(&server, "show", &["--name", "projects/p/", "--method", "CreateSecret", "--since", "1h"]).ok();
    assert_eq!(below.lines().count(), 6, "{below}");
    assert_eq!(audit(&server, "show", &["--until", "1h"]).ok(), "");
    let lines = audit(&server, "show", &["--json", "--phase", "done", "--method", "CreateSecret"]).ok();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("as it stands in the log");
        assert_eq!(line["phase"], "done");
    }
    assert_eq!(lines.lines().count(), 5);
    let wrong = audit(&server, "show", &["--since", "soon"]);
    assert!(wrong.code == Some(64) && wrong.stderr.starts_with("error: --since must be a time"), "{}", wrong.stderr);
}
