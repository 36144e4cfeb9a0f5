//! The only module that writes to the terminal: data on stdout, everything else on stderr.

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

pub(crate) use coffer_proto::escape;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

/// Programs read stderr: one JSON object a line.
static STDERR_IS_JSON: AtomicBool = AtomicBool::new(false);

/// From here on errors and remarks are JSON, one object a line.
pub(crate) fn stderr_as_json() {
    STDERR_IS_JSON.store(true, Ordering::Relaxed);
}

/// What a command has to say: printed only when it is done.
#[derive(Default)]
pub(crate) struct Report {
    /// Data, for stdout. Wiped afterwards: it may hold values.
    pub(crate) data: Zeroizing<String>,
    /// Remarks, for stderr, one line each.
    pub(crate) notes: Vec<String>,
    /// Whether what was asked turned out false: exit code 1 without an error.
    pub(crate) negative: bool,
    /// What is wrong with what was shown: said after it, and how the program ends.
    pub(crate) failure: Option<Failure>,
}

impl Report {
    /// Data only.
    pub(crate) fn data(text: impl Into<String>) -> Self {
        Self { data: Zeroizing::new(text.into()), ..Self::default() }
    }

    /// With a remark for people.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// Prints a report. A reader that has seen enough (`| head`) is no error.
pub(crate) fn report(report: &Report) -> Result<(), Failure> {
    for note in &report.notes {
        remark(note);
    }
    data(&report.data)
}

/// Prints data to stdout.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// Prints bytes to stdout as they are: what a stream gives back of what it was given.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::failed(format!("stdout: {error}")))
}

/// Prints a line to stderr. If nobody can read it, nobody can be told.
pub(crate) fn remark(line: &str) {
    if STDERR_IS_JSON.load(Ordering::Relaxed) {
        return object(&json!({ "note": line.strip_prefix("note: ").unwrap_or(line) }));
    }
    let _ = writeln!(io::stderr().lock(), "{}", escape::text(line));
}

/// Prints why a command failed.
pub(crate) fn failure(failure: &Failure) {
    if STDERR_IS_JSON.load(Ordering::Relaxed) {
        let (exit, reason) = (failure.exit(), failure.reason().map(|reason| reason.as_str()));
        return error(exit, failure.message(), failure.hint_text(), reason);
    }
    for line in failure.message().lines() {
        let start = if failure.message().starts_with(line) { "error: " } else { "  " };
        remark(&format!("{start}{line}"));
    }
    if let Some(hint) = failure.hint_text() {
        remark(&format!("hint: {hint}"));
    }
}

/// Prints text that clap has laid out.
pub(crate) fn usage(text: &str) {
    if STDERR_IS_JSON.load(Ordering::Relaxed) {
        // How it is used follows after an empty line.
        let said = text.split("\n\n").next().unwrap_or(text);
        let said = said.strip_prefix("error: ").unwrap_or(said);
        return error(Exit::Usage, said, Some("--help shows how it is used"), None);
    }
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn error(exit: Exit, message: &str, hint: Option<&str>, reason: Option<&str>) {
    let (code, kind) = (exit as u8, exit.name());
    object(&json!({
        "error": { "exit_code": code, "kind": kind, "reason": reason, "message": message, "hint": hint }
    }));
}

fn object(value: &Value) {
    let _ = writeln!(io::stderr().lock(), "{}", escape::json(&value.to_string()));
}

/// Asks a question on stderr, without a line break.
pub(crate) fn question(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{}", escape::text(text)).and_then(|()| stderr.flush());
}

/// What stdout is. Two facts: a terminal over a serial line, or just opened, may not know its width.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terminal {
    /// Whether what is printed is seen as it comes.
    pub(crate) is_terminal: bool,
    /// Its width in cells, for layout only.
    pub(crate) width: Option<usize>,
}

/// The terminal on stdout, if it is one.
pub(crate) fn terminal() -> Terminal {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return Terminal::default();
    }
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    Terminal { is_terminal: true, width: (columns > 0).then_some(columns) }
}
