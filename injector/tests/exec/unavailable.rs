//! A server that fails, denies, or does not answer.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use tonic::Code;

use crate::{
    fake::Script,
    run::{bare, fails, injector, run, succeeds, text, token},
};

/// Longer than the limit given in these tests, and shorter than any other limit of the injector.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn what_may_pass_is_tried_again() {
    let failures = vec![Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded];
    let server = Script { failures, ..Script::of(&[("A", "secret")]) }.start();
    assert_eq!(text(&succeeds(injector(&server).args(["--", "sh", "-c", "echo $A"]))), "secret\n");
    assert_eq!(server.calls().len(), 4);
}

#[test]
fn what_will_not_pass_fails_at_once() {
    let cases = [
        (Code::PermissionDenied, 77),
        (Code::Unauthenticated, 77),
        (Code::InvalidArgument, 64),
        (Code::Internal, 70),
        (Code::NotFound, 70),
        (Code::FailedPrecondition, 70),
        (Code::Unimplemented, 70),
        (Code::DataLoss, 70),
    ];
    for (code, exit) in cases {
        let server = Script { failures: vec![code; 2], ..Script::of(&[]) }.start();
        let lines = fails(injector(&server).args(["--", "true"]), exit);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("as scripted") && lines[0].contains(&server.address), "{lines:?}");
        assert_eq!(server.calls().len(), 1, "{code:?}");
    }
}

#[test]
fn a_failure_that_stays_ends_at_the_deadline() {
    let server = Script { failures: vec![Code::Unavailable; 1_000], ..Script::of(&[]) }.start();
    let begin = Instant::now();
    let lines = fails(injector(&server).args(["--timeout", "1s", "--", "true"]), 69);
    assert!(begin.elapsed() < AT_ONCE);
    assert!(lines[0].contains("as scripted"), "{lines:?}");
    assert!(server.calls().len() > 1);
}

#[test]
fn a_call_without_answer_ends_at_the_deadline() {
    let server = Script { silent: true, ..Script::of(&[]) }.start();
    let begin = Instant::now();
    fails(injector(&server).args(["--timeout", "300ms", "--", "true"]), 69);
    assert!(begin.elapsed() >= Duration::from_millis(300) && begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn a_black_hole_ends_at_the_deadline() {
    // The kernel accepts connections; nobody ever reads or writes.
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let authority = hole.local_addr().expect("its address");
    for scheme in ["http", "https"] {
        let begin = Instant::now();
        let mut command = bare(crate::run::INJECTOR);
        command.env("COFFER_TOKEN", token()).args([
            "--timeout",
            "300ms",
            "--address",
            &format!("{scheme}://{authority}"),
        ]);
        fails(command.args(["--", "true"]), 69);
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
}

#[test]
fn nobody_there_is_69_and_names_the_address() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = format!("unix://{}/none.sock", directory.path().display());
    let mut command = bare(crate::run::INJECTOR);
    command.env("COFFER_TOKEN", token()).args(["--timeout", "200ms", "--address", &address, "--", "true"]);
    let lines = fails(&mut command, 69);
    assert!(lines[0].contains(&address), "{lines:?}");
}

#[test]
fn verbose_tells_each_failed_attempt() {
    let server = Script { failures: vec![Code::Unavailable; 2], ..Script::of(&[]) }.start();
    let output = run(injector(&server).args(["-v", "--", "true"]));
    assert!(output.status.success());
    assert_eq!(text(&output.stderr).matches("attempt failed: as scripted").count(), 2);
}
