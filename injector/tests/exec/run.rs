//! Runs the injector as an entry point would.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
};

use coffer_proto::token::{Token, TokenKind};

use crate::fake::Fake;

/// The injector's binary.
pub(crate) const INJECTOR: &str = env!("CARGO_BIN_EXE_coffer-inject");
/// The search path of every run.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The token of every run.
pub(crate) fn token() -> &'static str {
    static TOKEN: OnceLock<Token> = OnceLock::new();
    TOKEN.get_or_init(|| Token::generate(TokenKind::Workload)).expose()
}

/// An injector with nothing in its environment but a search path and how to reach the server.
pub(crate) fn injector(server: &Fake) -> Command {
    let mut command = bare(INJECTOR);
    command.env("COFFER_ADDRESS", &server.address).env("COFFER_TOKEN", token());
    command
}

/// A command with nothing in its environment but a search path.
pub(crate) fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH);
    command
}

/// Runs it to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().expect("started")
}

/// Runs it to its end, which must be this code, with nothing on stdout. The lines on stderr.
pub(crate) fn fails(command: &mut Command, code: i32) -> Vec<String> {
    let output = run(command);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    assert!(!stderr.contains(token()), "{stderr}");
    for line in stderr.lines() {
        assert!(line.starts_with("coffer-inject: "), "{stderr}");
    }
    stderr.lines().map(str::to_owned).collect()
}

/// Runs it to its end, which must be good, with nothing on stderr. Its stdout.
pub(crate) fn succeeds(command: &mut Command) -> Vec<u8> {
    let output = run(command);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    output.stdout
}

/// As text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Writes an executable file. A shell does it, because a descriptor open for writing here could be inherited by a
/// process that another test starts at this moment, and the file could not be executed (ETXTBSY).
pub(crate) fn write_executable(path: &Path, content: &str) {
    let script = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let status = bare("/bin/sh").args(["-c", script, "sh"]).arg(path).arg(content).status();
    assert!(status.expect("started").success());
}
