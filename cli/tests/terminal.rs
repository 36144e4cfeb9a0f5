//! What is shown depends on who looks: a terminal is one, whatever it knows of its size.

use std::{
    os::fd::OwnedFd,
    process::{Command, Output, Stdio},
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::tcgetwinsize,
};

/// A terminal without a size, as a new one is: the controlling side, to be kept, and the other.
fn terminal() -> (OwnedFd, OwnedFd) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).expect("granted");
    unlockpt(&controller).expect("unlocked");
    let name = ptsname(&controller, Vec::new()).expect("its name");
    // Never as the terminal that controls the test itself.
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let terminal = open(name, flags, Mode::empty()).expect("the other side");
    let size = tcgetwinsize(&terminal).expect("a size");
    assert_eq!((size.ws_col, size.ws_row), (0, 0));
    (controller, terminal)
}

/// Nobody answers at the address: what is refused on the way there says so with a code of its own.
fn fetch(options: &[&str], stdout: impl Into<Stdio>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["environment", "fetch", "--address", "unix:///nonexistent/coffer.sock"])
        .args(options)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .expect("the binary starts")
}

#[test]
fn values_are_not_printed_to_a_terminal_unless_asked_for() {
    let (_controller, terminal) = terminal();
    let run = |options: &[&str]| fetch(options, terminal.try_clone().expect("another"));
    for options in [&[][..], &["--format", "json"], &["--format", "dotenv"], &["--output", "json"]] {
        let output = run(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{options:?}: {stderr}");
        assert!(stderr.contains("this would print values to a terminal"), "{options:?}: {stderr}");
    }
    for options in ["--reveal", "--dry-run", "--format=names"] {
        assert_eq!(run(&[options]).status.code(), Some(69), "{options}");
    }
    assert_eq!(fetch(&[], Stdio::piped()).status.code(), Some(69));
}
