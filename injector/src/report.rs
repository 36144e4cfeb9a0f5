//! The one module that prints. Stdout is the workload's: only `--help`, `--version` and a dry run write to it.

use std::io::{self, Write as _};

use crate::{Exit, Failure};

/// Prints one line on stderr. A server's or a file name's text cannot add lines or steer a terminal.
pub(crate) fn line(text: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = io::stderr().write_all(format!("coffer-inject: {}\n", one_line(text)).as_bytes());
}

/// Prints one line on stderr if it was asked for.
pub(crate) fn verbose(wanted: bool, text: impl FnOnce() -> String) {
    if wanted {
        line(&text());
    }
}

/// Prints what was asked for on stdout. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Internal, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Escapes control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_stays_on_its_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[2Jc ä"), "a\\nb\\r\\u{1b}[2Jc ä");
    }
}
