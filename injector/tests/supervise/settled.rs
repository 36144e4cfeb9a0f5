//! What the command runs with is what it should run with in the end, and what the server is told.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use coffer_proto::token::{Token, TokenKind};
use nix::sys::signal::Signal;
use tonic::Code;

use crate::{
    fake::{Fake, Script, WORKLOAD},
    run::injector,
    supervised::{Supervised, supervise, until},
};

/// Prints what it was given and then waits for its end.
const SHOW: &str = "echo \"A=$A\"; while :; do sleep 0.05; done";
const QUICK: [&str; 4] = ["--on-change", "restart", "--debounce", "50ms"];
const A_WHILE: Duration = Duration::from_millis(700);

/// Waits until these starts were told of.
fn told(server: &Fake, revisions: &[&str]) {
    until(&format!("starts with {revisions:?}"), || (server.starts() == revisions).then_some(()));
}

#[test]
fn a_fetch_that_is_refused_once_is_tried_again() {
    let script = Script { good_first: 1, failures: vec![Code::PermissionDenied; 2], ..Script::of(&[("A", "one")]) };
    let server = script.start();
    let run = supervise(&server, &QUICK, SHOW);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert!(run.problem().contains("cannot be fetched, the command runs on; trying again"));
    assert_eq!(run.line(), "A=two");
    assert_eq!(run.said(), Vec::<String>::new(), "it is said once");
}

#[test]
fn an_outage_is_said_once_and_that_it_is_over() {
    let server = Script::of(&[("A", "one")]).start();
    let run = supervise(&server, &QUICK, SHOW);
    assert_eq!(run.line(), "A=one");
    server.be_away(true);
    let lost = "changes cannot be followed, the command runs on; trying again: as scripted";
    assert_eq!(run.problem(), format!("coffer-inject: {lost}"));
    server.be_away(false);
    assert_eq!(run.problem(), "coffer-inject: changes are followed again");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "A=two");
    assert_eq!(run.said(), Vec::<String>::new());
}

#[test]
fn what_changes_during_a_restart_is_not_lost_with_its_end() {
    let script = Script { good_first: 2, failures: vec![Code::PermissionDenied; 2], ..Script::of(&[("A", "one")]) };
    let server = script.start();
    let command = "trap 'echo stopping' TERM; trap 'exit 0' USR1; echo \"A=$A\"; while :; do sleep 0.02; done";
    let run = supervise(&server, &QUICK, command);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "stopping");
    server.change(&[("A", "three")]);
    until("it to be refused twice", || (server.calls().len() >= 4).then_some(()));
    run.signal(Signal::SIGUSR1);
    assert_eq!((run.line(), run.line()), ("A=two".to_owned(), "stopping".to_owned()));
    run.signal(Signal::SIGUSR1);
    assert_eq!(run.line(), "A=three");
}

#[test]
fn what_was_refused_is_given_once_it_can_be_though_nothing_changes() {
    let server = Script::of(&[("A", "one")]).start();
    let run = supervise(&server, &QUICK, SHOW);
    assert_eq!(run.line(), "A=one");
    server.miss(&["NEEDED"]);
    server.change(&[("A", "two")]);
    assert!(run.problem().contains("runs on with what it has"));
    assert!(run.problem().contains("NEEDED: required by a manifest"));
    until("it to be tried again", || (server.calls().len() >= 3).then_some(()));
    assert_eq!(server.starts(), ["r1"], "nothing was started");
    server.miss(&[]);
    assert_eq!(run.line(), "A=two");
    told(&server, &["r1", "r2"]);
    assert_eq!(run.said(), Vec::<String>::new(), "it is said once");
}

#[test]
fn a_restart_is_told_of_when_the_command_starts() {
    let server = Script::of(&[("A", "one")]).start();
    let script = "trap 'echo stopping' TERM; trap 'exit 0' USR1; echo \"A=$A\"; while :; do sleep 0.02; done";
    let run = supervise(&server, &QUICK, script);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "stopping");
    assert!(run.is_silent_for(A_WHILE));
    assert_eq!(server.starts(), ["r1"], "the old one still runs");
    run.signal(Signal::SIGUSR1);
    assert_eq!(run.line(), "A=two");
    told(&server, &["r1", "r2"]);
}

#[test]
fn a_signal_is_told_of_if_the_command_can_have_what_is_new() {
    let root = tempfile::tempdir().expect("a directory");
    let path = |name: &str| root.path().join(name).to_str().expect("text").to_owned();
    let (files, template, rendered) = (path("files"), format!("{}:{}", path("in"), path("out")), path("out"));
    fs::write(root.path().join("in"), "{{A}}\n").expect("written");
    let signal = ["--on-change", "signal", "--change-signal", "usr1", "--debounce", "50ms"];
    for (flags, given) in [
        (vec![], false),
        (vec!["--files", &files], true),
        (vec!["--files", &files, "--env", "B=B"], true),
        (vec!["--template", &template], false),
    ] {
        let server = Script::of(&[("A", "one"), ("B", "x")]).start();
        let script = "trap 'echo told' USR1; echo ready; while :; do sleep 0.02; done";
        let run = supervise(&server, &[&signal[..], &flags].concat(), script);
        assert_eq!(run.line(), "ready");
        server.change(&[("A", "two"), ("B", "y")]);
        assert_eq!(run.line(), "told");
        if given {
            told(&server, &["r1", "r2"]);
        } else {
            assert!(run.is_silent_for(A_WHILE));
            assert_eq!(server.starts(), ["r1"], "{flags:?}: its variables are what they were");
            // Nor does a later change make that good.
            server.change(&[("A", "three"), ("B", "y")]);
            assert_eq!(run.line(), "told");
            assert!(run.is_silent_for(A_WHILE));
            assert_eq!(server.starts(), ["r1"], "{flags:?}");
        }
    }
    assert_eq!(fs::read_to_string(rendered).expect("rendered"), "three\n");
}

#[test]
fn what_only_a_template_holds_is_given_by_a_signal() {
    let root = tempfile::tempdir().expect("a directory");
    let path = |name: &str| root.path().join(name).to_str().expect("text").to_owned();
    fs::write(root.path().join("in"), "{{A}}\n").expect("written");
    let server = Script::of(&[("A", "one"), ("B", "x")]).start();
    let script = "trap 'echo told' USR1; echo ready; while :; do sleep 0.02; done";
    let template = format!("{}:{}", path("in"), path("out"));
    let flags = ["--on-change", "signal", "--change-signal", "usr1", "--debounce", "50ms", "--template", &template];
    let run = supervise(&server, &flags, script);
    assert_eq!(run.line(), "ready");
    server.change(&[("A", "two"), ("B", "x")]);
    assert_eq!(run.line(), "told");
    told(&server, &["r1", "r2"]);
}

#[test]
fn a_start_without_coffer_is_told_of_and_follows_changes_once_it_is_back() {
    let start = Token::generate(TokenKind::Start);
    for token in [crate::run::token(), start.expose()] {
        let root = tempfile::tempdir().expect("a directory");
        let (cache, key) = (root.path().join("cache"), root.path().join("key"));
        fs::write(&key, "0123456789abcdef".repeat(4)).expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
        let server = Script::of(&[("A", "one")]).start();
        let run = || {
            let mut command = injector(&server);
            command.args(QUICK).arg("--cache").arg(&cache).arg("--cache-key-file").arg(&key);
            command.args(["--workload", WORKLOAD, "--timeout", "500ms"]);
            command
        };
        let mut first = run();
        assert!(first.args(["--", "true"]).status().expect("started").success());
        // The start token is used up, and only who did it can know.
        server.be_away(token != start.expose());
        server.lose_exchanges(true);
        let mut command = run();
        command.env("COFFER_TOKEN", token).args(["--", "sh", "-c", SHOW]);
        let run = Supervised::of(command);
        assert_eq!(run.line(), "A=one");
        assert_eq!(server.starts(), ["r1"]);
        server.be_away(false);
        server.lose_exchanges(false);
        told(&server, &["r1", "r1"]);
        server.change(&[("A", "two")]);
        assert_eq!(run.line(), "A=two");
    }
}
