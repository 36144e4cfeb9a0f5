//! The workload cannot tell that it was started by the injector: compared with the same command started directly.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::MetadataExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Command, Stdio},
};

use nix::sys::signal::{SigSet, Signal};

use crate::{
    fake::{Fake, Script},
    run::{INJECTOR, bare, injector, run, succeeds, text, token},
};

/// A user without rights.
const ANYBODY: u32 = 65534;

/// The same words, started directly and by the injector, each by a shell that first does `setup`.
fn both(server: &Fake, setup: &str, words: &[&str]) -> (String, String) {
    let script = format!("{setup}\nexec \"$@\"");
    let mut direct = bare("/bin/sh");
    direct.args(["-c", &script, "sh"]).args(words);
    let mut injected = bare("/bin/sh");
    injected.env("COFFER_ADDRESS", &server.address).env("COFFER_TOKEN", token());
    injected.args(["-c", &script, "sh", INJECTOR, "--"]).args(words);
    (text(&succeeds(&mut direct)), text(&succeeds(&mut injected)))
}

/// The lines of /proc/self/status that an exec passes on.
fn passed_on(status: &str) -> Vec<&str> {
    let fields =
        ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:", "Umask:", "Threads:", "NoNewPrivs:", "Seccomp:", "CapEff:"];
    let lines: Vec<_> = status.lines().filter(|line| fields.iter().any(|field| line.starts_with(field))).collect();
    assert_eq!(lines.len(), fields.len(), "{status}");
    lines
}

#[test]
fn signals_and_umask_are_passed_on() {
    let server = Script::of(&[]).start();
    // SIGUSR2 blocked here, SIGHUP ignored and SIGTERM's handler reset by the shell. SIGPIPE must not stay ignored.
    let (direct, injected) = std::thread::spawn(move || {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGUSR2);
        blocked.thread_block().expect("blocked");
        both(&server, "trap '' HUP; trap : TERM; umask 027", &["cat", "/proc/self/status"])
    })
    .join()
    .expect("no panic");
    assert_eq!(passed_on(&injected), passed_on(&direct));
    let mask = |name: &str| {
        let line = injected.lines().find(|line| line.starts_with(name)).expect("a line");
        u64::from_str_radix(line.split_whitespace().nth(1).expect("a number"), 16).expect("a mask")
    };
    let bit = |signal: Signal| 1 << (signal as u32 - 1);
    assert_eq!(mask("SigBlk:") & bit(Signal::SIGUSR2), bit(Signal::SIGUSR2));
    assert_eq!(mask("SigIgn:") & bit(Signal::SIGHUP), bit(Signal::SIGHUP));
    assert_eq!(mask("SigIgn:") & bit(Signal::SIGPIPE), 0);
}

/// The injector forbids itself core files; the workload must not notice, however it is started.
#[test]
fn the_limit_of_core_files_is_passed_on() {
    let server = Script::of(&[]).start();
    let ask = "ulimit -S -c; ulimit -H -c; readlink /proc/self/fd/0 >/dev/null && echo readable";
    for setup in ["ulimit -S -c 100", "ulimit -c 200", "ulimit -S -c 0"] {
        let (direct, injected) = both(&server, setup, &["sh", "-c", ask]);
        assert_eq!(injected, direct);
        let script = format!("{setup}; exec {INJECTOR} --on-change signal -- sh -c '{ask}'");
        let mut supervised = bare("/bin/sh");
        supervised.env("COFFER_ADDRESS", &server.address).env("COFFER_TOKEN", token()).args(["-c", &script]);
        assert_eq!(text(&succeeds(&mut supervised)), direct);
    }
}

/// A supervisor, which stays, and which other processes of its user may neither attach to nor read.
#[test]
fn the_injector_itself_writes_no_core_file_and_cannot_be_read() {
    let server = Script::of(&[]).start();
    let mut command = injector(&server);
    command.args(["--on-change", "signal", "--", "sh", "-c", "echo started; read end"]);
    let is_root = rustix::process::geteuid().is_root();
    // Without other rights than anybody's: what belongs to root below /proc then tells that it is not dumpable.
    if is_root {
        command.uid(ANYBODY).gid(ANYBODY);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "started\n");
    let supervisor = format!("/proc/{}", child.id());
    let limits = std::fs::read_to_string(format!("{supervisor}/limits")).expect("readable");
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(limit.split_whitespace().nth(4), Some("0"), "{limit}");
    let children = std::fs::read_to_string(format!("{supervisor}/task/{}/children", child.id())).expect("readable");
    let workload = format!("/proc/{}", children.trim());
    let owner = |process: &str| std::fs::metadata(format!("{process}/environ")).expect("it runs").uid();
    let runs_as = if is_root { ANYBODY } else { rustix::process::geteuid().as_raw() };
    assert_eq!((owner(&supervisor), owner(&workload)), (0, runs_as), "undumpable is root's, the workload its user's");
    drop(child.stdin.take());
    child.wait().expect("ended");
}

#[test]
fn descriptors_are_passed_on_and_none_is_added() {
    let server = Script::of(&[]).start();
    for words in [
        &["ls", "/proc/self/fd"][..],
        &["sh", "-c", "grep -H flags /proc/self/fdinfo/[0-2] /proc/self/fdinfo/7; cat <&7"],
    ] {
        let (direct, injected) = both(&server, "exec 7<<END\ninherited\nEND", words);
        assert_eq!(injected, direct);
        assert!(injected.contains('7') || injected.contains("inherited"), "{injected}");
    }
}

#[test]
fn the_tokens_descriptor_is_read_and_closed() {
    let server = Script::of(&[("A", "secret")]).start();
    let script =
        format!("exec 7<<END\n{}\nEND\nexec {INJECTOR} --token-fd 7 -- sh -c 'echo $A; ls /proc/self/fd'", token());
    let mut command = bare("/bin/sh");
    command.env("COFFER_ADDRESS", &server.address).args(["-c", &script]);
    let printed = text(&succeeds(&mut command));
    assert!(printed.starts_with("secret\n"), "{printed}");
    assert!(!printed.lines().any(|line| line == "7"), "{printed}");
    assert_eq!(server.calls()[0].authorization, format!("Bearer {}", token()));
}

#[test]
fn a_nonblocking_stdin_stays_as_it_is() {
    let server = Script::of(&[]).start();
    for nonblocking in [false, true] {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        if nonblocking {
            let flags = rustix::fs::fcntl_getfl(&reader).expect("flags");
            rustix::fs::fcntl_setfl(&reader, flags | rustix::fs::OFlags::NONBLOCK).expect("set");
        }
        let mut command = injector(&server);
        let printed = succeeds(command.args(["--", "grep", "flags", "/proc/self/fdinfo/0"]).stdin(reader));
        let flags = text(&printed);
        let flags = u32::from_str_radix(flags.split_whitespace().nth(1).expect("a number"), 8).expect("octal");
        assert_eq!(flags & rustix::fs::OFlags::NONBLOCK.bits() != 0, nonblocking);
    }
}

#[test]
fn process_id_directory_and_arguments_are_the_same() {
    let server = Script::of(&[]).start();
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = injector(&server);
    command.current_dir(&directory).stdout(Stdio::piped()).args([
        "--",
        "sh",
        "-c",
        "echo $$; pwd -P; cat /proc/$$/cmdline",
    ]);
    let mut child = command.args(["a b", "", "-x"]).spawn().expect("started");
    let mut printed = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut printed).expect("read");
    assert!(child.wait().expect("ended").success());
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], child.id().to_string());
    assert_eq!(lines[1], directory.path().canonicalize().expect("its path").to_str().expect("text"));
    assert_eq!(lines[2], "sh\0-c\0echo $$; pwd -P; cat /proc/$$/cmdline\0a b\0\0-x\0");
}

#[test]
fn stdin_and_stdout_are_the_workloads_byte_for_byte() {
    let server = Script::of(&[]).start();
    let mut command = injector(&server);
    let mut child = command.args(["--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let sent = content.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&sent).expect("written"));
    let output = child.wait_with_output().expect("ended");
    writing.join().expect("written");
    assert!(output.status.success());
    assert!(output.stdout == content);
}

#[test]
fn every_exit_code_is_the_workloads() {
    let server = Script::of(&[]).start();
    for code in 0..=255 {
        let status = injector(&server).args(["--", "sh", "-c", &format!("exit {code}")]).status().expect("started");
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn a_death_by_signal_is_the_workloads() {
    let server = Script::of(&[]).start();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGPIPE] {
        let kill = format!("kill -{} $$", signal as i32);
        let output = run(injector(&server).args(["--", "sh", "-c", &kill]));
        assert_eq!(output.status.signal(), Some(signal as i32));
    }
}

/// What std itself passes on to a child is what the comparisons above rest on.
#[test]
fn the_comparison_starts_from_a_default_sigpipe() {
    let status = text(&succeeds(Command::new("cat").arg("/proc/self/status")));
    let ignored = status.lines().find(|line| line.starts_with("SigIgn:")).expect("a line");
    let mask = u64::from_str_radix(ignored.split_whitespace().nth(1).expect("a number"), 16).expect("a mask");
    assert_eq!(mask & (1 << (Signal::SIGPIPE as u32 - 1)), 0);
}
