//! What the workload sees in its environment.

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStringExt as _, process::Command};

use crate::{
    fake::{Script, WORKLOAD},
    run::{INJECTOR, PATH, bare, fails, injector, run, succeeds, text, token},
};

/// The environment that the command prints, and no variable twice.
fn environment(command: &mut Command) -> BTreeSet<Vec<u8>> {
    let printed = succeeds(command.args(["--", "env", "-0"]));
    let entries: Vec<_> = printed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()).collect();
    let names: BTreeSet<_> = entries.iter().map(|entry| entry.split(|b| *b == b'=').next()).collect();
    assert_eq!(names.len(), entries.len(), "a variable twice");
    entries.into_iter().map(<[u8]>::to_vec).collect()
}

fn set(entries: &[&str]) -> BTreeSet<Vec<u8>> {
    entries.iter().map(|entry| entry.as_bytes().to_vec()).collect()
}

#[test]
fn values_arrive_byte_for_byte() {
    let large = "ä".repeat(32 * 1024);
    let values = [
        ("LINES", "-----BEGIN KEY-----\nab\r\n\n-----END KEY-----\n"),
        ("EQUALS", "=a=b=="),
        ("SPACES", "  two  \t"),
        ("QUOTES", "'\"\\`$(reboot)${HOME}%s"),
        ("UNICODE", "pässwörd 🔑 \u{202e}"),
        ("CONTROL", "\u{1}\u{1b}[2J\u{7f}"),
        ("LARGE", large.as_str()),
        ("ONE", "1"),
    ];
    let server = Script::of(&values).start();
    let mut expected: BTreeSet<_> = values.iter().map(|(k, v)| format!("{k}={v}").into_bytes()).collect();
    expected.extend(set(&[&format!("PATH={PATH}")]));
    assert_eq!(environment(&mut injector(&server)), expected);
}

#[test]
fn a_full_scope_over_a_full_scope_fits() {
    // Limits of a scope: 1,000 secrets and 512 KiB of values. Own and inherited together are twice that.
    let value = "v".repeat(524);
    let names: Vec<_> = (0..2_000).map(|number| format!("NAME_{number:04}")).collect();
    let server = Script::of(&names.iter().map(|name| (name.as_str(), value.as_str())).collect::<Vec<_>>()).start();
    assert_eq!(environment(&mut injector(&server)).len(), 2_001);
}

#[test]
fn secrets_replace_inherited_variables_unless_told_otherwise() {
    let server = Script::of(&[("A", "secret"), ("B", "secret")]).start();
    let path = format!("PATH={PATH}");
    let inherited = |command: &mut Command| environment(command.env("A", "inherited").env("C", "inherited"));
    assert_eq!(inherited(&mut injector(&server)), set(&[&path, "A=secret", "B=secret", "C=inherited"]));
    let kept = inherited(injector(&server).arg("--keep-existing"));
    assert_eq!(kept, set(&[&path, "A=inherited", "B=secret", "C=inherited"]));
    let only = inherited(injector(&server).args(["--only", "B"]));
    assert_eq!(only, set(&[&path, "A=inherited", "B=secret", "C=inherited"]));
}

#[test]
fn own_variables_do_not_reach_the_workload() {
    let server = Script::of(&[("A", "secret")]).start();
    let mut command = injector(&server);
    command.env("COFFER_WORKLOAD", WORKLOAD).env("COFFER_ANYTHING", "x");
    assert_eq!(environment(&mut command), set(&[&format!("PATH={PATH}"), "A=secret"]));
}

#[test]
fn inherited_bytes_that_are_no_text_are_kept() {
    let server = Script::of(&[("A", "secret")]).start();
    let odd = OsString::from_vec(b"\xff\n\xc3\x28".to_vec());
    let mut expected = set(&[&format!("PATH={PATH}"), "A=secret"]);
    expected.insert(b"ODD=\xff\n\xc3\x28".to_vec());
    assert_eq!(environment(injector(&server).env("ODD", odd)), expected);
}

/// std cannot start a process with the same variable twice, so this test becomes the injector by execve itself.
#[test]
fn a_variable_inherited_twice_arrives_once() {
    const CHILD: &str = "COFFER_TEST_ADDRESS";
    if let Some(address) = std::env::var_os(CHILD) {
        let words = [INJECTOR, "--", "env", "-0"].map(|word| std::ffi::CString::new(word).expect("no NUL"));
        let address = format!("COFFER_ADDRESS={}", address.to_str().expect("text"));
        let (path, token) = (format!("PATH={PATH}"), format!("COFFER_TOKEN={}", token()));
        let variables = ["TWICE=first", "S=old", &path, &address, &token, "S=older", "TWICE=second"]
            .map(|variable| std::ffi::CString::new(variable).expect("no NUL"));
        let Err(error) = nix::unistd::execve(&words[0], &words, &variables);
        panic!("the injector: {error}");
    }
    let server = Script::of(&[("S", "secret")]).start();
    let name = "values::a_variable_inherited_twice_arrives_once";
    let mut child = bare(std::env::current_exe().expect("this test"));
    let output = run(child.args(["--exact", name, "--nocapture"]).env(CHILD, &server.address));
    let printed = text(&output.stdout);
    let entries: BTreeSet<_> = printed.split(['\0', '\n']).filter(|entry| entry.contains('=')).collect();
    assert_eq!(entries, BTreeSet::from([&format!("PATH={PATH}")[..], "S=secret", "TWICE=first"]), "{printed}");
    assert_eq!(printed.matches("TWICE=").count(), 1);
}

#[test]
fn the_request_names_the_workload_and_carries_the_token() {
    let server = Script::of(&[]).start();
    succeeds(injector(&server).args(["--", "true"]));
    succeeds(injector(&server).args(["--workload", WORKLOAD, "--", "true"]));
    succeeds(injector(&server).env("COFFER_WORKLOAD", WORKLOAD).args(["--", "true"]));
    let calls = server.calls();
    let asked: Vec<_> = calls.iter().map(|call| (call.request.workload.as_str(), call.request.dry_run)).collect();
    assert_eq!(asked, [("", false), (WORKLOAD, false), (WORKLOAD, false)]);
    assert!(calls.iter().all(|call| call.authorization == format!("Bearer {}", token())));
}

#[test]
fn a_host_name_is_resolved() {
    let server = Script::of(&[("A", "secret")]).start();
    let address = server.address.replace("127.0.0.1", "localhost");
    let printed = succeeds(injector(&server).args(["--address", &address, "--", "sh", "-c", "echo $A"]));
    assert_eq!(text(&printed), "secret\n");
}

#[test]
fn an_answer_for_another_workload_is_refused() {
    let server = Script { workload: Some("projects/p/servers/other"), ..Script::of(&[("A", "secret")]) }.start();
    fails(injector(&server).args(["--workload", WORKLOAD, "--", "env"]), 70);
}

#[test]
fn a_dry_run_asks_for_no_values_and_starts_nothing() {
    let server = Script::of(&[("A", "hunter2"), ("LONGER", "hunter2")]).start();
    let expected = "NAME    KIND       VERSION  SOURCE\n\
                    A       encrypted        7  projects/p/secrets/A\n\
                    LONGER  encrypted        7  projects/p/secrets/LONGER\n";
    assert_eq!(text(&succeeds(injector(&server).args(["--dry-run", "--", "echo", "started"]))), expected);
    assert_eq!(text(&succeeds(injector(&server).arg("--dry-run"))), expected);
    fails(injector(&server).args(["--dry-run", "--require", "A,B"]), 78);
    fails(injector(&server).args(["--dry-run", "--", "no-such-command"]), 127);
    assert!(server.calls().iter().all(|call| call.request.dry_run));
}

#[test]
fn a_reader_of_a_dry_run_may_leave() {
    let server = Script::of(&[("A", "hunter2")]).start();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = injector(&server).arg("--dry-run").stdout(writer).output().expect("started");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = injector(&server).arg("--dry-run").stdout(full).output().expect("started");
    assert_eq!(output.status.code(), Some(70));
}

#[test]
fn verbose_tells_what_happens_and_no_value() {
    let server = Script::of(&[("A", "hunter2")]).start();
    let output = run(injector(&server).args(["--verbose", "--", "true"]));
    let stderr = text(&output.stderr);
    assert!(output.status.success());
    assert!(stderr.contains(WORKLOAD) && stderr.contains("revision r1") && stderr.contains("bin/true"), "{stderr}");
    assert!(!stderr.contains("hunter2") && !stderr.contains(token()), "{stderr}");
}
