//! The real binary against a server with canned answers: how answers are shown, and what is said beside them.

#[path = "served/fake.rs"]
mod fake;
#[path = "served/operations.rs"]
mod operations;

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use coffer_client::health::health_check_response::ServingStatus;
use coffer_proto::v1::import_secrets_request::Conflict;
use fake::Fake;
use operations::Ending;
use rustix::process::Signal;

/// Exit code, stdout and stderr.
fn coffer(server: &Fake, args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(args)
        .env_clear()
        .env("COFFER_ADDRESS", &server.address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A program that refuses its arguments ends before it reads.
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    (output.status.code(), stdout, stderr)
}

const IMPORT: &[&str] = &["secret", "import", "projects/p"];
const CONFLICT_HINT: &str =
    "hint: --on-conflict skip keeps what exists, --on-conflict replace gives it the new values\n";

#[test]
fn a_preview_shows_every_row_and_then_that_the_import_would_fail() {
    let server = Fake::start();
    let preview = [IMPORT, &["--preview"]].concat();
    let (code, stdout, stderr) = coffer(&server, &preview, "A=1\nB=2\nC=3\n");
    let expected = "ACTION    SECRET\n\
                    conflict  projects/p/secrets/A\n\
                    conflict  projects/p/secrets/B\n\
                    created   projects/p/secrets/C\n\
                    \n\
                    3 secrets: 1 created, 0 replaced, 0 skipped, 2 in conflict; preview: nothing was written\n";
    assert_eq!((code, stdout.as_str()), (Some(73), expected), "{stderr}");
    assert_eq!(stderr, format!("error: 2 names exist: nothing would be imported\n{CONFLICT_HINT}"));

    let (code, stdout, stderr) = coffer(&server, &[&preview[..], &["--output", "json"]].concat(), "A=1\nC=3\n");
    assert_eq!(code, Some(73), "{stderr}");
    let error: serde_json::Value = serde_json::from_str(&stderr).expect("JSON");
    assert_eq!((&error["error"]["kind"], &error["error"]["exit_code"]), (&"exists".into(), &73.into()));
    let json: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&json["results"][0]["action"], &json["results"][1]["action"]), (&"conflict".into(), &"created".into()));
    let imports = server.imports.lock().expect("no panic while it was held");
    assert!(imports.iter().all(|import| import.validate_only && import.entries.iter().all(|e| e.value.is_empty())));
}

#[test]
fn a_preview_without_conflicts_is_good() {
    let server = Fake::start();
    for (options, stdin, counts) in [
        (&[][..], "C=3\n", "1 secret: 1 created, 0 replaced, 0 skipped; preview"),
        (&["--on-conflict", "skip"], "A=1\n", "1 secret: 0 created, 0 replaced, 1 skipped; preview"),
        (&["--on-conflict", "replace"], "A=1\n", "1 secret: 0 created, 1 replaced, 0 skipped; preview"),
    ] {
        let (code, stdout, stderr) = coffer(&server, &[IMPORT, &["--preview"], options].concat(), stdin);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{options:?}");
        assert!(stdout.contains(counts), "{options:?}: {stdout}");
    }
}

#[test]
fn an_import_itself_never_skips_unasked() {
    let server = Fake::start();
    let (code, stdout, stderr) = coffer(&server, IMPORT, "A=1\nC=3\n");
    assert_eq!((code, stdout.as_str()), (Some(73), ""));
    assert_eq!(stderr, format!("error: refused\n{CONFLICT_HINT}"));
    let imports = server.imports.lock().expect("no panic while it was held");
    assert!(imports.iter().all(|import| import.conflict() == Conflict::Fail && !import.validate_only));
}

#[test]
fn what_makes_an_operator_is_told_with_the_grant() {
    let server = Fake::start();
    let (code, stdout, stderr) = coffer(&server, &["grant", "create", "users/a", "operator"], "");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("permission  operator\n"), "{stdout}");
    assert!(stderr.starts_with("note: ") && stderr.contains("token that an operator issued"), "{stderr}");
    let (code, _, stderr) = coffer(&server, &["grant", "create", "users/a", "secrets:read", "projects/p"], "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn who_issues_tokens_is_told_to_those_who_may_not() {
    let server = Fake::start();
    for (principal, hint) in [
        ("projects/p/servers/web", "hint: workload tokens are issued by services with workloads:issue\n"),
        ("users/a", "hint: tokens of users and services are issued by operators, and by services with tokens:issue\n"),
    ] {
        let (code, _, stderr) = coffer(&server, &["token", "issue", principal], "");
        assert_eq!((code, stderr), (Some(77), format!("error: refused\n{hint}")), "{principal}");
    }
}

#[test]
fn a_refused_redaction_does_not_wait_for_its_input_to_end() {
    let server = Fake::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["redact", "projects/p/servers/web"])
        .env_clear()
        .env("COFFER_ADDRESS", &server.address)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // Open for as long as the program may take, as a pipe from something that goes on is.
    let stdin = child.stdin.take().expect("piped");
    let (ended, end) = mpsc::channel();
    let waits = std::thread::spawn(move || {
        let output = child.wait_with_output().expect("it ends");
        let _ = ended.send(output);
    });
    let output = end.recv_timeout(Duration::from_secs(20));
    drop(stdin);
    waits.join().expect("no panic");
    let output = output.expect("it waits for its input");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && stderr.starts_with("error: "), "{stderr}");
}

#[test]
fn a_backup_has_its_name_only_when_it_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("coffer.backup");
    let backup = |server: &Fake, options: &[&str]| {
        let args = [&["store", "backup", path.to_str().expect("UTF-8")], options].concat();
        coffer(server, &args, "")
    };
    let names = || std::fs::read_dir(dir.path()).expect("readable").count();
    for (ending, exit, error) in [
        (Ending::Early, 1, "error: the backup ended after 5 of 10 bytes\n"),
        (Ending::Error, 69, "error: the server ends"),
    ] {
        let (code, stdout, stderr) = backup(&Fake::ending(ending), &[]);
        assert_eq!((code, stdout.as_str()), (Some(exit), ""), "{stderr}");
        assert!(stderr.starts_with(error), "{stderr}");
        assert_eq!(names(), 0, "nothing is left of it");
    }
    let server = Fake::start();
    let (code, stdout, stderr) = backup(&server, &[]);
    assert_eq!((code, stdout.as_str()), (Some(0), "snapshot 1.7, 2 records, 10 B\n"), "{stderr}");
    assert_eq!(stderr, format!("backed up to {}\n", path.display()), "no bar where there is no terminal");
    assert_eq!(std::fs::read(&path).expect("there"), b"0123456789");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);

    let (code, stdout, stderr) = coffer(&server, &["store", "backup", "-"], "");
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "0123456789", "snapshot 1.7, 2 records, 10 B\n"));

    let (code, _, stderr) = backup(&server, &[]);
    assert_eq!(code, Some(73));
    assert_eq!(stderr, format!("error: {}: it exists\nhint: --replace replaces it\n", path.display()));
    // A replacement that fails leaves what was there.
    let (code, _, _) = backup(&Fake::ending(Ending::Early), &["--replace"]);
    assert_eq!((code, std::fs::read(&path).expect("there")), (Some(1), b"0123456789".to_vec()));
    let (code, _, stderr) = backup(&server, &["--replace"]);
    assert_eq!((code, names()), (Some(0), 1), "{stderr}");
}

#[test]
fn a_backup_that_is_told_to_end_leaves_nothing() {
    let server = Fake::ending(Ending::Never);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("coffer.backup"), "the last one").expect("a file");
        std::fs::write(dir.path().join("coffer.backup.part"), "not ours").expect("a file");
        let mut backup = Command::new(env!("CARGO_BIN_EXE_coffer"));
        let backup = backup.args(["store", "backup", "--replace", "coffer.backup"]).current_dir(dir.path());
        let backup = backup.env_clear().env("COFFER_ADDRESS", &server.address);
        let backup = backup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = backup.spawn().expect("the binary starts");
        let names = || std::fs::read_dir(dir.path()).expect("readable").count();
        let deadline = Instant::now() + Duration::from_secs(60);
        while names() == 2 {
            assert!(Instant::now() < deadline, "it begins");
            std::thread::yield_now();
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).expect("told");
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), stderr.as_str()), (Some(1), "error: told to end: there is no backup\n"));
        assert_eq!(names(), 2, "nothing is left of it");
        assert_eq!(std::fs::read(dir.path().join("coffer.backup")).expect("there"), b"the last one");
        assert_eq!(std::fs::read(dir.path().join("coffer.backup.part")).expect("there"), b"not ours");
    }
}

#[test]
fn a_rotation_is_told_when_it_is_done_and_not_before() {
    let rotate = ["key", "rotate", "data"];
    let (code, stdout, stderr) = coffer(&Fake::start(), &rotate, "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "rotated data keys: done 2026-01-31 23:59 UTC, 3\n");
    let (code, stdout, stderr) = coffer(&Fake::ending(Ending::Early), &rotate, "");
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr, "error: the server's answer ends before the rotation does\n");
}

/// Nobody may listen there.
const NOBODY: &str = "unix:///nonexistent/coffer.sock";

#[test]
fn each_of_several_servers_says_whether_it_serves() {
    let (serving, waiting) = (Fake::start(), Fake::saying(ServingStatus::NotServing, ServingStatus::NotServing));
    let cut_off = Fake::saying(ServingStatus::Serving, ServingStatus::NotServing);
    let status = |addresses: &[&str], options: &[&str]| {
        coffer(&serving, &[&["status", "--address", &addresses.join(",")], options].concat(), "")
    };
    let (up, down) = (serving.address.as_str(), waiting.address.as_str());
    let (code, stdout, stderr) = status(&[NOBODY, down, up], &[]);
    let expected = format!(
        "no answer at {NOBODY}: No such file or directory (os error 2)\nnot serving at {down}\nserving at {up}\n"
    );
    assert_eq!((code, stdout, stderr.as_str()), (Some(1), expected, ""));
    let (code, stdout, stderr) = status(&[up, up], &[]);
    assert_eq!((code, stdout, stderr.as_str()), (Some(0), format!("serving at {up}\n").repeat(2), ""));
    let apart = cut_off.address.as_str();
    for others in [&[][..], &[up], &[down]] {
        let (code, stdout, stderr) = status(&[&[apart], others].concat(), &[]);
        let told = format!("serving workloads only at {apart}: the store is out of reach; the server's log says why\n");
        assert!(stdout.starts_with(&told), "{stdout}");
        assert_eq!((code, stderr.as_str()), (Some(1), ""));
    }
    let (code, stdout, stderr) = status(&[down, NOBODY], &["--output", "json"]);
    let error: serde_json::Value = serde_json::from_str(&stderr).expect("JSON");
    assert_eq!((code, &error["error"]["message"]), (Some(69), &"none of 2 servers serves now".into()));
    assert!(
        error["error"]["hint"].as_str().is_some_and(|hint| hint.starts_with("is the server running there")),
        "{stderr}"
    );
    let shown: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    let expected = serde_json::json!({"servers": [
        {"address": down, "status": "not serving", "problem": null},
        {"address": NOBODY, "status": "no answer", "problem": "No such file or directory (os error 2)"},
    ]});
    assert_eq!(shown, expected);
    let (code, stdout, stderr) = status(&[down], &[]);
    assert_eq!((code, stdout.as_str()), (Some(69), ""));
    assert_eq!(stderr, format!("error: the server at {down} does not serve now\n"));
    // What is wrong here is no server's fault.
    let (code, stdout, stderr) = status(&["https://127.0.0.1:1", up], &["--ca-file", "/nonexistent"]);
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    assert!(stderr.starts_with("error: CA file /nonexistent: "), "{stderr}");
}

#[test]
fn an_operator_sees_which_of_several_servers_answered() {
    let server = Fake::start();
    let addresses = [NOBODY, &server.address].join(",");
    let asked = ["store", "status", "--address", &addresses];
    let (code, stdout, stderr) = coffer(&server, &asked, "");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let line = stdout.lines().next().unwrap_or_default();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["Server", &server.address]);
    let (_, stdout, _) = coffer(&server, &[&asked[..], &["--output", "json"]].concat(), "");
    let shown: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(shown["address"], server.address.as_str());
    let (code, stdout, stderr) = coffer(&Fake::ending(Ending::Error), &["store", "status"], "");
    assert_eq!((code, stdout.as_str()), (Some(69), ""));
    assert!(stderr.contains("hint: the server's log says why and since when"), "{stderr}");
}
