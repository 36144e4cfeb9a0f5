//! `--cache`: a start while coffer is away.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use tonic::Code;

use crate::{
    fake::{Fake, Script, WORKLOAD},
    run::{fails, injector, run, text},
};

struct Case {
    root: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let key = root.path().join("key");
        fs::write(&key, "0123456789abcdef".repeat(4)).expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
        Self { root }
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    fn command(&self, server: &Fake) -> Command {
        let mut command = injector(server);
        command.arg("--cache").arg(self.file()).arg("--cache-key-file").arg(self.root.path().join("key"));
        command.args(["--timeout", "1s"]).env("COFFER_WORKLOAD", WORKLOAD);
        command
    }

    /// A command that prints the secret.
    fn start(&self, server: &Fake, options: &[&str]) -> Output {
        run(self.command(server).args(options).args(["--", "sh", "-c", "echo $A"]))
    }
}

/// Answers once, and then fails like this.
fn then(code: Code) -> Fake {
    let server = Script { good_first: 1, failures: vec![code; 1_000], ..Script::of(&[("A", "hunter2")]) };
    server.start()
}

#[test]
fn a_workload_starts_while_coffer_is_away() {
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded] {
        let case = Case::new();
        let server = then(code);
        let first = case.start(&server, &[]);
        assert_eq!((text(&first.stdout).as_str(), text(&first.stderr).as_str()), ("hunter2\n", ""));
        assert_eq!(fs::metadata(case.file()).expect("kept").permissions().mode() & 0o7777, 0o600);
        let kept = fs::read(case.file()).expect("kept");
        assert!(!kept.windows(7).any(|window| window == b"hunter2"), "it can be read");
        let second = case.start(&server, &[]);
        assert_eq!((second.status.code(), text(&second.stdout).as_str()), (Some(0), "hunter2\n"));
        let stderr = text(&second.stderr);
        assert!(stderr.lines().count() == 1 && stderr.contains("starting with what was kept"), "{stderr}");
        assert_eq!(fs::read(case.file()).expect("kept"), kept, "what was used is not kept anew");
    }
}

#[test]
fn a_denied_workload_does_not_live_on() {
    for (code, exit) in [(Code::PermissionDenied, 77), (Code::Unauthenticated, 77), (Code::NotFound, 70)] {
        let case = Case::new();
        let server = then(code);
        assert!(case.start(&server, &[]).status.success());
        let lines = fails(case.command(&server).args(["--", "true"]), exit);
        assert!(lines.len() == 2 && lines[0].contains("deleted, because coffer denies"), "{lines:?}");
        assert!(!case.file().exists(), "{code:?}");
    }
}

#[test]
fn other_failures_neither_use_nor_delete_it() {
    let case = Case::new();
    let server = then(Code::Internal);
    assert!(case.start(&server, &[]).status.success());
    fails(case.command(&server).args(["--", "true"]), 70);
    assert!(case.file().exists());
}

#[test]
fn what_is_kept_is_one_workloads_and_not_for_ever() {
    let case = Case::new();
    let server = then(Code::Unavailable);
    assert!(case.start(&server, &[]).status.success());
    let lines = |command: &mut Command| fails(command.args(["--", "true"]), 69);
    let other = lines(case.command(&server).args(["--workload", "projects/p/servers/other"]));
    assert!(other[0].contains("of another key, workload or address"), "{other:?}");
    fs::write(case.root.path().join("key"), "f".repeat(64)).expect("written");
    assert!(lines(&mut case.command(&server))[0].contains("of another key, workload or address"));
}

#[test]
fn it_is_checked_as_an_answer_is() {
    let case = Case::new();
    let server = then(Code::Unavailable);
    assert!(case.start(&server, &[]).status.success());
    let lines = fails(case.command(&server).args(["--require", "NONE", "--", "true"]), 78);
    assert!(lines[1].contains("NONE: required"), "{lines:?}");
}

#[test]
fn a_dry_run_leaves_it_alone() {
    let case = Case::new();
    let server = then(Code::Unavailable);
    assert!(run(case.command(&server).arg("--dry-run")).status.success());
    assert!(!case.file().exists());
    fails(case.command(&server).arg("--dry-run"), 69);
}

#[test]
fn what_it_needs_is_said() {
    let case = Case::new();
    let server = Script::of(&[]).start();
    let mut command = injector(&server);
    command.arg("--cache").arg(case.file()).arg("--cache-key-file").arg(case.root.path().join("key"));
    assert!(fails(command.args(["--", "true"]), 64)[0].contains("--workload or COFFER_WORKLOAD"));
    fs::set_permissions(case.root.path().join("key"), fs::Permissions::from_mode(0o644)).expect("set");
    assert!(fails(case.command(&server).args(["--", "true"]), 64)[0].contains("key: must be readable by its owner"));
    fails(injector(&server).args(["--cache", "x", "--", "true"]), 64);
    assert_eq!(server.calls().len(), 0, "the server was asked");
}
