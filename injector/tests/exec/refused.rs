//! What is not started, and how that is said.

use std::path::Path;

use coffer_proto::token::{Token, TokenKind};

use crate::{
    fake::Script,
    run::{bare, fails, injector, text, write_executable},
};

/// Runs a command that leaves a file behind, and returns the lines on stderr if it left none.
fn not_started(script: Script, options: &[&str], code: i32) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    let server = script.start();
    let lines = fails(injector(&server).args(options).args(["--", "touch"]).arg(&trace), code);
    assert!(!trace.exists(), "the command was started");
    lines
}

#[test]
fn every_bad_variable_is_named_and_nothing_is_started() {
    let mut script =
        Script::of(&[("GOOD", "hunter2"), ("LD_PRELOAD", "hunter2"), ("lower", "hunter2"), ("NUL", "hunter2\0")]);
    script.variables.push(("NONE".to_owned(), None));
    let lines = not_started(script, &[], 65);
    let expected =
        ["LD_PRELOAD: reserved", "lower: must match", "NUL: its value must not", "NONE: the server sent no value"];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line}");
    }
    assert!(!lines.concat().contains("hunter2"));
}

#[test]
fn what_is_missing_is_named_and_nothing_is_started() {
    let script = || Script::of(&[("A", "hunter2")]);
    let lines = not_started(script(), &["--require", "A,B", "--require", "C"], 78);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("coffer-inject: B: ") && lines[1].starts_with("coffer-inject: C: "), "{lines:?}");
    assert_eq!(not_started(script(), &["--only", "X"], 78).len(), 1);
    assert!(not_started(script(), &["--only", "A", "--require", "B"], 64)[0].contains("--only leaves it out"));
}

#[test]
fn an_inherited_variable_does_not_meet_a_requirement() {
    let server = Script::of(&[]).start();
    fails(injector(&server).env("A", "inherited").args(["--require", "A", "--", "true"]), 78);
}

#[test]
fn a_total_that_is_too_large_is_refused() {
    let [first, second, third] = [62, 61, 60].map(|kib| "x".repeat(kib * 1024));
    let server = Script::of(&[("THIRD", &third), ("FIRST", &first), ("SECOND", &second)]).start();
    let limited = |kib: u32| {
        let mut command = bare("/bin/sh");
        let mut injector = injector(&server);
        injector.args(["--", "true"]);
        command.envs(injector.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", &format!("ulimit -s {kib} && exec \"$@\""), "sh"]);
        command.arg(injector.get_program()).args(injector.get_args());
        command
    };
    let lines = fails(&mut limited(512), 65);
    assert!(lines[0].contains("the kernel takes 131072") && lines[0].contains("FIRST, SECOND, THIRD"), "{lines:?}");
    assert!(limited(1024).status().expect("started").success(), "256 KiB are enough");
}

#[test]
fn a_command_that_cannot_be_started_is_found_out_before_anything_is_fetched() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").expect("written");
    let cases = [
        ("no-such-command", 127),
        ("/no/such/command", 127),
        ("", 127),
        (plain.to_str().expect("text"), 126),
        ("/", 126),
    ];
    let server = Script::of(&[]).start();
    for (command, code) in cases {
        let lines = fails(injector(&server).args(["--", command]), code);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with(&format!("coffer-inject: {command}: ")), "{lines:?}");
    }
    assert_eq!(server.calls().len(), 0, "the server was asked");
}

#[test]
fn a_file_of_unknown_format_is_not_given_to_a_shell() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    let script = directory.path().join("coffer-test-script");
    write_executable(&script, &format!("touch {}\n", trace.display()));
    let server = Script::of(&[]).start();
    let lines = fails(injector(&server).arg("--").arg(&script), 126);
    assert!(lines[0].contains("cannot be executed: "), "{lines:?}");
    assert!(!trace.exists(), "a shell ran it");
    // The same with an interpreter line is started, and told its own name.
    write_executable(&script, "#!/bin/sh\necho \"$0 $A\"\n");
    let server = Script::of(&[("A", "secret")]).start();
    let mut command = injector(&server);
    let output =
        command.env("PATH", format!("{}:/bin", directory.path().display())).args(["--", "coffer-test-script"]).output();
    assert_eq!(text(&output.expect("started").stdout), format!("{} secret\n", script.display()));
}

#[test]
fn a_missing_interpreter_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("coffer-test-script");
    write_executable(&script, "#!/no/such/interpreter\n");
    let server = Script::of(&[]).start();
    let lines = fails(injector(&server).arg("--").arg(&script), 127);
    assert!(lines[0].contains("the interpreter it names"), "{lines:?}");
}

#[test]
fn usage_errors_are_64_and_ask_nobody() {
    let server = Script::of(&[]).start();
    let cases: &[&[&str]] = &[
        &[],
        &["--"],
        &["true"],
        &["--token", "x", "--", "true"],
        &["--nonsense", "--", "true"],
        &["--address", "http://example.com", "--", "true"],
        &["--address", "ftp://x", "--", "true"],
        &["--workload", "x", "--", "true"],
        &["--timeout", "0s", "--", "true"],
        &["--token-fd", "1", "--", "true"],
        &["--token-file", "a", "--token-fd", "3", "--", "true"],
    ];
    for words in cases {
        assert_eq!(fails(injector(&server).args(*words), 64).len(), 1, "{words:?}");
    }
    let tls = ["--address", "https://127.0.0.1:1", "--ca-file", "/no/such/file", "--", "true"];
    assert!(fails(injector(&server).args(tls), 64)[0].contains("/no/such/file"));
    fails(injector(&server).env("COFFER_TOKEN_FILE", "/f").args(["--", "true"]), 64);
    let missing = fails(bare(crate::run::INJECTOR).args(["--", "true"]), 64);
    assert_eq!(missing.len(), 2, "no address and no token: {missing:?}");
    assert_eq!(server.calls().len(), 0, "the server was asked");
}

#[test]
fn a_token_that_cannot_be_used_is_77() {
    let server = Script::of(&[]).start();
    let directory = tempfile::tempdir().expect("a directory");
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, "hunter2").expect("written");
    for file in [Path::new("/no/such/file"), &garbage] {
        let lines = fails(injector(&server).arg("--token-file").arg(file).args(["--", "true"]), 77);
        assert!(lines[0].contains(&file.display().to_string()) && !lines[0].contains("hunter2"), "{lines:?}");
    }
    fails(injector(&server).args(["--token-fd", "99", "--", "true"]), 77);
    assert_eq!(server.calls().len(), 0, "the server was asked");
}

#[test]
fn what_can_be_refused_without_coffer_uses_no_start_token_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("text").to_owned();
    std::fs::write(path("file"), "{{A}}").expect("written");
    let server = Script::of(&[("A", "hunter2")]).start();
    let start = Token::generate(TokenKind::Start);
    let start = || {
        let mut command = injector(&server);
        command.env("COFFER_TOKEN", start.expose());
        command
    };
    for (flags, code, expected) in [
        (vec!["--dry-run".to_owned()], 64, "--dry-run: the token is a start token"),
        (vec!["--template".to_owned(), format!("{}:{}", path("none"), path("out"))], 64, "none: cannot be read"),
        (
            vec!["--template".to_owned(), format!("{}:{}", path("file"), path("none/out"))],
            65,
            "directory cannot be opened",
        ),
        (vec!["--files".to_owned(), path("file")], 65, "must be a directory"),
        (vec!["--files".to_owned(), path("none/files")], 65, "cannot be used"),
    ] {
        let lines = fails(start().args(&flags).args(["--", "true"]), code);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(expected), "{lines:?}");
    }
    assert!(!directory.path().join("none").exists());
    assert!(start().args(["--", "true"]).status().expect("started").success(), "it is good for the start");
}

#[test]
fn every_way_to_start_says_that_its_token_is_used_up() {
    for flags in [&[][..], &["--mask"], &["--on-change", "restart"]] {
        let server = Script::of(&[("A", "hunter2")]).start();
        let mut command = injector(&server);
        command.env("COFFER_TOKEN", Token::generate(TokenKind::Start).expose());
        let lines = fails(command.args(flags).args(["--require", "B", "--", "true"]), 78);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].ends_with("used its start token up: the next one needs another"), "{lines:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for (flag, expected) in [("--help", "Exit codes"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let printed = text(&crate::run::succeeds(bare(crate::run::INJECTOR).arg(flag)));
        assert!(printed.contains(expected), "{printed}");
    }
}
