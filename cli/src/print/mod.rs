//! The only module that writes to the terminal: data on stdout, everything else on stderr.

pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

use std::io::{self, IsTerminal as _, Write as _};

pub(crate) use coffer_proto::escape;
use zeroize::Zeroizing;

use crate::failure::Failure;

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
    let _ = writeln!(io::stderr().lock(), "{}", escape::text(line));
}

/// Prints why a command failed.
pub(crate) fn failure(failure: &Failure) {
    remark(&format!("error: {}", failure.message()));
    if let Some(hint) = failure.hint_text() {
        remark(&format!("hint: {hint}"));
    }
}

/// Prints text that clap has laid out.
pub(crate) fn usage(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
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
