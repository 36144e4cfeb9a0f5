//! What people and scripts read: data on stdout, everything else on stderr.

use std::io::{self, Write as _};

use super::Failure;
use crate::escape;

/// Data, on stdout.
pub(super) fn data(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// For people, on stderr; if nobody reads it there is nobody to tell.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", escape::lines(text));
}

/// A command to go on with, on a line of its own that can be pasted.
pub(super) fn next(why: &str, command: &str) {
    note(&format!("next, {why}:\n  {command}"));
}

/// One `error:` line each, then the hint.
pub(super) fn failure(failure: &Failure) {
    for error in &failure.errors {
        note(&format!("error: {error}"));
    }
    if let Some(hint) = &failure.hint {
        note(&format!("hint: {hint}"));
    }
}
