//! Signals reach the command once, and the command's end is the injector's.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    fake::Script,
    run::injector,
    supervised::{Supervised, supervise},
};

const STAY: [&str; 4] = ["--on-change", "restart", "--debounce", "50ms"];

#[test]
fn every_exit_code_is_the_commands() {
    let server = Script::default().start();
    let codes: Vec<i32> = (0..256).collect();
    std::thread::scope(|scope| {
        for part in codes.chunks(64) {
            let server = &server;
            scope.spawn(move || {
                for code in part {
                    let mut command = injector(server);
                    command.args(STAY).args(["--", "sh", "-c", &format!("exit {code}")]);
                    let status = command.status().expect("started");
                    assert_eq!(status.code(), Some(*code));
                }
            });
        }
    });
}

#[test]
fn a_signal_that_ends_the_command_is_told_as_shells_do() {
    let server = Script::default().start();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("HUP", 129), ("PIPE", 141)] {
        let mut run = supervise(&server, &STAY, &format!("kill -{signal} $$"));
        assert_eq!(run.code(), Some(code), "{signal}");
    }
}

#[test]
fn each_signal_arrives_once() {
    let server = Script::default().start();
    let script = "for s in HUP USR1 USR2 INT QUIT WINCH; do trap \"echo $s\" $s; done; trap 'echo TERM; exit 7' TERM
        echo ready; while :; do sleep 0.02; done";
    let mut run = supervise(&server, &STAY, script);
    assert_eq!(run.line(), "ready");
    for (signal, name) in [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGWINCH, "WINCH"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGQUIT, "QUIT"),
    ] {
        run.signal(signal);
        assert_eq!(run.line(), name);
    }
    assert!(run.is_silent_for(Duration::from_millis(200)), "each once");
    run.signal(Signal::SIGTERM);
    assert_eq!((run.line(), run.code()), ("TERM".to_owned(), Some(7)));
}

#[test]
fn what_was_ignored_stays_ignored() {
    let server = Script::of(&[("A", "one-and-only")]).start();
    let show = "grep SigIgn: /proc/$$/status; while :; do sleep 0.02; done";
    for flags in [&STAY[..], &["--mask"]] {
        let injector = injector(&server);
        // As nohup does, and scripts with what they start in the background.
        let mut command = crate::run::bare("/bin/sh");
        command.envs(injector.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\""]).arg(injector.get_program());
        let mut run = Supervised::of({
            command.args(flags).args(["--", "sh", "-c", show]);
            command
        });
        // Two signals above these are the C library's own.
        let line = run.line();
        assert!(line.starts_with("SigIgn:") && line.ends_with("0000007"), "{flags:?}: {line}");
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            run.signal(signal);
        }
        assert!(run.is_silent_for(Duration::from_millis(200)), "it runs on");
        run.signal(Signal::SIGTERM);
        assert_eq!(run.code(), Some(143));
    }
}

#[test]
fn a_second_term_kills() {
    let server = Script::default().start();
    for first in [Signal::SIGTERM, Signal::SIGINT] {
        let script = "trap 'echo ignored' TERM INT; echo ready; while :; do sleep 0.02; done";
        let mut run = supervise(&server, &STAY, script);
        assert_eq!(run.line(), "ready");
        run.signal(first);
        assert_eq!(run.line(), "ignored");
        assert!(run.is_silent_for(Duration::from_millis(200)), "it may take its time");
        run.signal(Signal::SIGTERM);
        assert_eq!(run.code(), Some(137));
    }
}

#[test]
fn a_quit_between_two_terms_changes_nothing() {
    let server = Script::default().start();
    let script = "trap 'echo term' TERM; trap 'echo quit' QUIT; echo ready; while :; do sleep 0.02; done";
    let mut run = supervise(&server, &STAY, script);
    assert_eq!(run.line(), "ready");
    for (signal, told) in [(Signal::SIGQUIT, "quit"), (Signal::SIGTERM, "term"), (Signal::SIGQUIT, "quit")] {
        run.signal(signal);
        assert_eq!(run.line(), told);
    }
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), Some(137));
}

#[test]
fn what_ignores_its_stop_is_killed_after_the_grace() {
    let server = Script::of(&[("A", "one")]).start();
    let flags = [&STAY[..], &["--grace", "300ms"]].concat();
    let script = "trap 'echo ignored' TERM; echo \"A=$A $$\"; while :; do sleep 0.02; done";
    let run = supervise(&server, &flags, script);
    let first = run.line();
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "ignored");
    let second = run.line();
    assert!(first.starts_with("A=one ") && second.starts_with("A=two "), "{first} {second}");
    let old = first.split(' ').nth(1).expect("a pid").to_owned();
    assert!(!std::path::Path::new(&format!("/proc/{old}")).exists(), "the old one is gone before the new one starts");
}

#[test]
fn the_stop_signal_can_be_chosen() {
    let server = Script::of(&[("A", "one")]).start();
    let flags = [&STAY[..], &["--stop-signal", "QUIT"]].concat();
    let script = "trap 'echo quit; exit 0' QUIT; trap '' TERM; echo \"A=$A\"; while :; do sleep 0.02; done";
    let run = supervise(&server, &flags, script);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!((run.line(), run.line()), ("quit".to_owned(), "A=two".to_owned()));
}

#[test]
fn told_to_end_during_a_restart_it_does_not_start_again() {
    let server = Script::of(&[("A", "one")]).start();
    let script = "trap 'echo stopping; while [ -z \"$go\" ]; do sleep 0.02; done; exit 5' TERM
        trap 'go=1' USR1; echo \"A=$A\"; while :; do sleep 0.02; done";
    let mut run = supervise(&server, &STAY, script);
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "stopping");
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGUSR1);
    let code = run.code();
    assert!(matches!(code, Some(5 | 130)), "{code:?}: the command's own end");
}

#[test]
fn a_command_that_ends_by_itself_while_it_is_stopped_is_started_again() {
    let server = Script::of(&[("A", "one")]).start();
    let run = supervise(&server, &STAY, "trap 'exit 42' TERM; echo \"A=$A\"; while :; do sleep 0.02; done");
    assert_eq!(run.line(), "A=one");
    server.change(&[("A", "two")]);
    assert_eq!(run.line(), "A=two");
}

#[test]
fn a_command_that_cannot_be_started_is_told_as_ever() {
    let server = Script::default().start();
    let mut command = injector(&server);
    command.args(STAY).args(["--", "/etc/passwd"]);
    assert_eq!(Supervised::of(command).code(), Some(126));
    let mut command = injector(&server);
    command.args(STAY).args(["--", "no-such-command"]);
    assert_eq!(Supervised::of(command).code(), Some(127));
}
