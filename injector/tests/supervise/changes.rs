//! What a change does, and what it leaves alone.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use coffer_proto::token::{Token, TokenKind};
use tonic::Code;

use crate::{
    fake::{Fake, Script, WORKLOAD},
    run::{fails, injector},
    supervised::{Supervised, supervise, until},
};

/// Prints what it was given and then waits for its end.
const SHOW: &str = "echo \"A=$A\"; while :; do sleep 0.05; done";
const QUICK: [&str; 4] = ["--on-change", "restart", "--debounce", "50ms"];
/// Longer than anything here takes that should happen.
const A_WHILE: Duration = Duration::from_millis(700);

#[test]
fn a_change_restarts_the_command_with_the_new_value() {
    let server = Script::of(&[("A", "one")]).start();
    let run = supervise(&server, &QUICK, SHOW);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "A=two");
    server.change(&[("A", "three"), ("B", "new")]);
    assert_eq!(run.line(), "A=three");
    assert_eq!(run.said(), Vec::<String>::new(), "all went well");
}

#[test]
fn a_burst_of_changes_is_one() {
    let server = Script::of(&[("A", "0")]).start();
    let run = supervise(&server, &["--on-change", "restart", "--debounce", "400ms"], SHOW);
    assert_eq!(run.line(), "A=0");
    for n in 1..=5 {
        server.change(&[("A", &n.to_string())]);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert_eq!(run.line(), "A=5");
    assert!(run.is_silent_for(A_WHILE));
}

#[test]
fn only_what_is_delivered_counts() {
    let server = Script::of(&[("A", "one"), ("B", "x")]).start();
    let run = supervise(&server, &[&QUICK[..], &["--only", "A"]].concat(), SHOW);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "one"), ("B", "y")]);
    assert!(run.is_silent_for(A_WHILE), "B is left out");
    server.change(&[("A", "two"), ("B", "y")]);
    assert_eq!(run.line(), "A=two");
}

#[test]
fn a_signal_instead_and_files_written_first() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("memory");
    let files = directory.path().join("secrets");
    let files = files.to_str().expect("text");
    let server = Script::of(&[("A", "one")]).start();
    let script = format!("trap 'cat {files}/A; echo' USR1; cat {files}/A; echo; while :; do sleep 0.05; done");
    let flags = ["--on-change", "signal", "--change-signal", "usr1", "--debounce", "50ms", "--files", files];
    let run = supervise(&server, &flags, &script);
    assert_eq!(run.line(), "one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "two");
}

#[test]
fn what_the_command_locks_holds_up_neither_changes_nor_signals() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("memory");
    let files = directory.path().join("secrets");
    let files = files.to_str().expect("text");
    let server = Script::of(&[("A", "one")]).start();
    let script = format!("exec 9<{files}; flock 9; trap 'exit 5' TERM; {SHOW}");
    let mut run = supervise(&server, &[&QUICK[..], &["--files", files, "--env", "A=A"]].concat(), &script);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "A=two");
    run.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.code(), Some(5));
}

#[test]
fn a_denial_while_the_command_runs_ends_what_was_kept() {
    let watched = Script::of(&[("A", "one")]);
    let fetched = Script { good_first: 1, failures: vec![Code::PermissionDenied; 100], ..watched.clone() };
    let deny_watch = |server: &Fake| server.refuse(Code::Unauthenticated);
    let deny_fetch = |server: &Fake| server.change(&[("A", "two")]);
    for (script, deny) in [(watched, &deny_watch as &dyn Fn(&Fake)), (fetched, &deny_fetch)] {
        let root = tempfile::tempdir().expect("a directory");
        let (cache, key) = (root.path().join("cache"), root.path().join("key"));
        fs::write(&key, "0123456789abcdef".repeat(4)).expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
        let server = script.start();
        let mut command = injector(&server);
        command.args(QUICK).arg("--cache").arg(&cache).arg("--cache-key-file").arg(&key);
        command.args(["--workload", WORKLOAD, "--", "sh", "-c", SHOW]);
        let run = Supervised::of(command);
        assert_eq!(run.line(), "A=one");
        assert!(cache.exists(), "kept at the start");
        deny(&server);
        until("what was kept to be gone", || (!cache.exists()).then_some(()));
        assert!(run.is_silent_for(Duration::from_millis(100)), "the command runs on");
    }
}

#[test]
fn an_exit_says_what_it_is_for() {
    let server = Script::of(&[("A", "one")]).start();
    let mut run = supervise(&server, &["--on-change", "exit", "--debounce", "50ms"], SHOW);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.code(), Some(75));
}

#[test]
fn what_cannot_be_given_changes_nothing() {
    let server = Script::of(&[("A", "one")]).start();
    let run = supervise(&server, &[&QUICK[..], &["--require", "A"]].concat(), SHOW);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two"), ("LD_PRELOAD", "evil.so")]);
    assert!(run.problem().contains("runs on with what it has"));
    assert!(run.problem().contains("LD_PRELOAD: reserved"));
    server.change(&[("B", "without A")]);
    assert!(run.problem().contains("runs on with what it has"));
    assert!(run.problem().contains("A: required"));
    assert!(run.is_silent_for(Duration::from_millis(200)));
    server.change(&[("A", "three")]);
    assert_eq!(run.line(), "A=three");
}

#[test]
fn the_command_runs_on_while_coffer_is_away_and_misses_nothing() {
    let server = Script::of(&[("A", "one")]).start();
    let mut run = supervise(&server, &QUICK, &format!("trap 'exit 3' TERM; {SHOW}"));
    assert_eq!(run.line(), "A=one");
    server.be_away(true);
    assert!(run.is_silent_for(A_WHILE), "it runs on");
    server.change(&[("A", "two")]);
    server.be_away(false);
    assert_eq!(run.line(), "A=two");
    run.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.code(), Some(3));
}

#[test]
fn output_is_masked_across_restarts() {
    let server = Script::of(&[("A", "first-secret-value")]).start();
    let script = "echo \"$A\"; printf %s \"$A\" | od -An -tx1 | tr -d ' \\n'; echo; while :; do sleep 0.05; done";
    let run = supervise(&server, &[&QUICK[..], &["--mask"]].concat(), script);
    assert_eq!((run.line(), run.line()), ("{{A}}".to_owned(), "{{A}}".to_owned()));
    server.change(&[("A", "second-secret-value")]);
    assert_eq!((run.line(), run.line()), ("{{A}}".to_owned(), "{{A}}".to_owned()));
}

#[test]
fn masking_needs_no_changes_and_keeps_the_exit_code() {
    let server = Script::of(&[("A", "first-secret-value")]).start();
    let mut run = supervise(&server, &["--mask"], "echo \"<$A>\"; echo \"$A!\" >&2; exit 9");
    assert_eq!((run.line(), run.problem()), ("<{{A}}>".to_owned(), "{{A}}!".to_owned()));
    assert_eq!(run.code(), Some(9));
}

#[test]
fn a_start_token_is_exchanged_and_left_to_nobody() {
    let server = Script::of(&[("A", "one")]).start();
    let start = Token::generate(TokenKind::Start);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    fs::write(&file, start.expose()).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    for flags in [&[][..], &QUICK] {
        let server = Script::of(&[("A", "one")]).start();
        let mut command = injector(&server);
        command.env("COFFER_TOKEN", start.expose()).args(flags);
        command.args([
            "--",
            "sh",
            "-c",
            "env; echo end; trap 'exit 0' TERM; while [ $# -gt 0 ]; do sleep 0.05; done",
            "sh",
        ]);
        if !flags.is_empty() {
            command.arg("stay");
        }
        let run = Supervised::of(command);
        let mut seen = String::new();
        while !seen.contains("end") {
            seen += &run.line();
        }
        assert!(seen.contains("A=one") && !seen.contains("COFFER") && !seen.contains("cof_"), "{seen}");
        let session = format!("Bearer {}", crate::run::token());
        assert!(server.calls().iter().all(|call| call.authorization == session), "the session token fetches");
    }
    // A second start with the same token is a copy in other hands.
    let bare = || {
        let mut command = injector(&server);
        command.env_remove("COFFER_TOKEN").arg("--token-file").arg(&file).args(["--", "true"]);
        command
    };
    assert!(bare().status().expect("started").success());
    let problems = fails(&mut bare(), 77);
    assert!(problems[0].contains("used before"), "{problems:?}");
}
