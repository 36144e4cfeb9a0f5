//! `--mask`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    fake::Script,
    run::{injector, run, text},
};

const VALUE: &str = "hunter2-hunter2";
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_the_command_prints_has_no_encrypted_value() {
    let server = Script::of(&[("A", VALUE), ("SHORT", "1")]).start();
    let script = "echo out $A $SHORT; echo err $A >&2; printf %s $A | base64; exit 7";
    let output = run(injector(&server).args(["--mask", "--", "sh", "-c", script]));
    assert_eq!(text(&output.stdout), "out {{A}} 1\n{{A}}\n");
    assert_eq!(text(&output.stderr), "err {{A}}\n");
    assert_eq!(output.status.code(), Some(7), "its exit code is the command's");
}

#[test]
fn all_of_a_long_output_arrives() {
    let server = Script::of(&[("A", VALUE)]).start();
    let script = "i=0; while [ $i -lt 5000 ]; do echo $i $A; i=$((i+1)); done";
    let output = run(injector(&server).args(["--mask", "--", "sh", "-c", script]));
    let expected: String = (0..5000).map(|number| format!("{number} {{{{A}}}}\n")).collect();
    assert!(output.status.success() && text(&output.stdout) == expected);
}

#[test]
fn a_reader_that_leaves_ends_the_command() {
    let server = Script::of(&[("A", VALUE)]).start();
    let mut command = crate::run::bare("/bin/sh");
    let injector = injector(&server);
    command.envs(injector.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-c", "\"$0\" --mask -- yes \"$1\" | head -n 1"]).arg(injector.get_program()).arg(VALUE);
    let output = run(&mut command);
    assert_eq!(text(&output.stdout), "{{A}}\n");
}

/// Prints more than one pipe holds and less than the pipes between do, so that the command can end before it is read.
const PRINT: &str = "echo $$ >&2; head -c 100000 /dev/zero | tr '\\0' x";

/// Runs that, and waits until the command has ended.
fn printed() -> (Child, BufReader<ChildStderr>) {
    let server = Script::of(&[("A", VALUE)]).start();
    let mut command = injector(&server);
    command.args(["--mask", "--", "sh", "-c", PRINT]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut pid = String::new();
    stderr.read_line(&mut pid).expect("a line");
    let process = format!("/proc/{}", pid.trim());
    let began = Instant::now();
    while Path::new(&process).exists() {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        thread::park_timeout(Duration::from_millis(5));
    }
    (child, stderr)
}

#[test]
fn a_reader_that_takes_its_time_gets_all() {
    let (mut child, mut stderr) = printed();
    let began = Instant::now();
    // Longer than what is left behind is waited for.
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(child.try_wait().expect("our own child"), None, "it waits for its reader");
        thread::park_timeout(Duration::from_millis(5));
    }
    let mut read = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut read).expect("text");
    assert_eq!(read.len(), 100_000);
    assert!(child.wait().expect("ended").success());
    let mut said = String::new();
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
}

#[test]
fn a_reader_that_reads_no_more_can_be_given_up() {
    let (mut child, mut stderr) = printed();
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), Signal::SIGTERM).expect("it waits");
    assert!(child.wait().expect("ended").success(), "the command's own end");
    let mut said = String::new();
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(said, "coffer-inject: --mask: told to end before all that the command printed was read\n");
}

#[test]
fn what_is_left_behind_is_not_waited_for_and_that_is_said() {
    let server = Script::of(&[("A", VALUE)]).start();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let script = "setsid sh -c 'echo $$ > \"$1\"; exec sleep 60' sh \"$1\" & until [ -s \"$1\" ]; do :; done; echo $A";
    let output = run(injector(&server).args(["--mask", "--", "sh", "-c", script, "sh"]).arg(file.path()));
    let pid = std::fs::read_to_string(file.path()).expect("a pid");
    let _ = kill(Pid::from_raw(pid.trim().parse().expect("a pid")), Signal::SIGKILL);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(stdout, "{{A}}\n");
    assert_eq!(stderr, "coffer-inject: --mask: a process that the command left behind prints to nobody from here on\n");
}
