//! What the command leaves behind: reaped, stopped, and nobody's zombie.

use std::{fs, process::Command};

use nix::sys::signal::Signal;

use crate::{
    fake::Script,
    run::{INJECTOR, PATH, injector, token},
    supervised::{Supervised, supervise, until},
};

const STAY: [&str; 2] = ["--on-change", "restart"];

/// The processes whose parent is this one, each with its state.
fn children(parent: i32) -> Vec<(i32, char)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name stands in parentheses and may hold anything.
        let rest: Vec<_> = stat.rsplit(')').next().expect("a rest").split_whitespace().collect();
        if rest[1].parse() == Ok(parent) {
            found.push((pid, rest[0].chars().next().expect("a state")));
        }
    }
    found
}

#[test]
fn orphans_are_adopted_and_reaped() {
    let server = Script::default().start();
    // Forks twice, in a session of its own, so that neither group nor parent would know of it.
    let script = "(setsid sh -c 'sleep 0.3' &); echo ready; trap 'exit 0' TERM; while :; do sleep 0.02; done";
    let mut run = supervise(&server, &STAY, script);
    assert_eq!(run.line(), "ready");
    let pid = run.pid().as_raw();
    until("the orphan to be adopted", || (children(pid).len() > 1).then_some(()));
    until("it to be reaped", || (children(pid).len() == 1).then_some(()));
    assert!(children(pid).iter().all(|(_, state)| *state != 'Z'));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), Some(0));
}

#[test]
fn what_is_left_of_the_group_goes_with_the_command() {
    let server = Script::default().start();
    for (what, left) in [
        ("a willing one", "sleep 1000"),
        ("one that ignores its stop", "sh -c 'trap \"\" TERM; while :; do sleep 0.05; done'"),
    ] {
        let flags = [&STAY[..], &["--grace", "200ms"]].concat();
        let mut run = supervise(&server, &flags, &format!("{left} & echo $!; sleep 0.1; exit 6"));
        let pid = run.line();
        assert_eq!(run.code(), Some(6), "{what}");
        let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
        until(what, gone);
    }
}

#[test]
fn a_closed_stdin_is_the_commands_own_business() {
    let server = Script::default().start();
    let mut run = supervise(&server, &STAY, "exec <&- ; echo closed; exit 0");
    assert_eq!((run.line(), run.code()), ("closed".to_owned(), Some(0)));
}

#[test]
fn descriptors_and_signals_are_as_for_the_bare_command() {
    let server = Script::default().start();
    // No pipeline: the shell holds its pipe's ends for a moment.
    let script = "for fd in /proc/$$/fd/*; do printf '%s ' \"${fd##*/}\"; done; echo; grep -E 'Sig(Blk|Ign)' /proc/$$/status | tr -d '\\t'";
    let seen = |run: Supervised| {
        let descriptors = run.line();
        let signals = [run.line(), run.line()].map(|line| {
            let (name, mask) = line.split_once(':').expect("a mask");
            // 32 and 33 are the C library's own: its posix_spawn always ignores them.
            let mask = u64::from_str_radix(mask, 16).expect("hex") & 0x7fff_ffff;
            (name.to_owned(), mask)
        });
        (descriptors, signals)
    };
    let mut bare = Command::new("sh");
    bare.env_clear().env("PATH", PATH).args(["-c", script]);
    assert_eq!(seen(supervise(&server, &STAY, script)), seen(Supervised::of(bare)));
}

#[test]
fn it_is_right_as_the_first_process_of_a_pid_namespace() {
    let server = Script::default().start();
    let inside = |script: &str| {
        let mut command = Command::new("unshare");
        command.env_clear().env("PATH", PATH).env("COFFER_ADDRESS", &server.address).env("COFFER_TOKEN", token());
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", INJECTOR])
            .args(STAY)
            .args(["--", "sh", "-c", script]);
        let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
        assert!(
            probe.is_ok_and(|probe| probe.status.success()),
            "this test needs unshare (util-linux) and the right to make a pid namespace: run it as root"
        );
        Supervised::of(command)
    };
    let script = "cat /proc/1/comm; (setsid sh -c 'sleep 0.2' &); sleep 0.6
        grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l; exit 11";
    let mut run = inside(script);
    assert_eq!((run.line(), run.line().trim().to_owned()), ("coffer-inject".to_owned(), "0".to_owned()));
    assert_eq!(run.code(), Some(11));

    // A TERM to the first process of a namespace does nothing unless that process catches it.
    let mut run = inside("trap 'echo bye; exit 4' TERM; echo ready; kill -TERM 1; while :; do sleep 0.02; done");
    assert_eq!((run.line(), run.line()), ("ready".to_owned(), "bye".to_owned()));
    assert_eq!(run.code(), Some(4));
}

#[test]
fn the_commands_user_cannot_read_the_injectors_token() {
    let server = Script::of(&[("A", "one")]).start();
    // Root may read everything, so this is tried as somebody else, from a place that everybody may enter.
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    let binary = directory.path().join("coffer-inject");
    let copied = Command::new("sh")
        .args(["-c", "cp \"$1\" \"$2\" && chmod 755 \"$2\" \"$(dirname \"$2\")\"", "sh", INJECTOR])
        .arg(&binary)
        .status();
    assert!(copied.expect("started").success());
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", PATH).env("COFFER_ADDRESS", &server.address).env("COFFER_TOKEN", token());
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(STAY);
    command.args([
        "--",
        "sh",
        "-c",
        "cat /proc/$PPID/environ 2>/dev/null | tr '\\0' '\\n' | grep -c COFFER_TOKEN; id -u",
    ]);
    let run = Supervised::of(command);
    assert_eq!(run.line(), "0", "this test needs setpriv (util-linux) and root; {:?}", run.said());
    assert_eq!(run.line(), "65534");
    drop(injector(&server));
}
