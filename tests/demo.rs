//! The demo that the README sends people to: it runs to its end, and leaves nothing behind when it is interrupted.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::harness::{until, until_within};

fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/demo.sh"));
    command.env("TMPDIR", temporary).stdin(Stdio::null()).process_group(0);
    command
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("readable").next().is_none()
}

#[test]
fn it_runs_to_its_end_and_cleans_up() {
    let temporary = TempDir::new().expect("a directory");
    let output = demo(temporary.path()).output().expect("it starts");
    let transcript = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{transcript}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(transcript.ends_with("== Done\n"), "{transcript}");
    assert!(is_empty(temporary.path()));

    let readme = include_str!("../README.md");
    let shown = readme
        .split("```console\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().into_iter().flat_map(str::lines));
    let printed: Vec<_> = transcript.lines().map(without_dates).collect();
    let invented: Vec<_> =
        shown.map(without_dates).filter(|line| !line.is_empty() && !printed.contains(line)).collect();
    assert!(invented.is_empty(), "the README shows what the demo does not print: {invented:#?}");
}

#[test]
fn on_three_servers_over_etcd_it_loses_one_of_each_and_runs_to_its_end() {
    let temporary = TempDir::new().expect("a directory");
    let output = demo(temporary.path()).arg("--etcd").output().expect("it starts");
    let transcript = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{transcript}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(transcript.ends_with("== Done\n"), "{transcript}");
    assert!(is_empty(temporary.path()));
}

/// Neither the day nor the time of day is part of a behaviour.
fn without_dates(line: &str) -> String {
    let is_date = |word: &str| word.len() == 10 && word.split('-').count() == 3 && word.starts_with("20");
    let is_time = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    line.split_whitespace().filter(|word| !is_date(word) && !is_time(word)).collect::<Vec<_>>().join(" ")
}

#[test]
fn interrupted_it_cleans_up_as_well() {
    let temporary = TempDir::new().expect("a directory");
    let mut child = demo(temporary.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    until_within(Duration::from_secs(300), "its build and its server", || {
        let inside = fs::read_dir(temporary.path()).expect("readable").next()?.expect("readable").path();
        inside.join("address").exists().then_some(())
    });
    let group = Pid::from_raw(child.id().try_into().expect("a pid")).expect("not zero");
    kill_process_group(group, Signal::INT).expect("its own child");
    let status = child.wait().expect("its own child");
    assert!(!status.success());
    assert!(is_empty(temporary.path()));
    until("all of its processes to be gone", || rustix::process::test_kill_process_group(group).err().map(drop));
}
