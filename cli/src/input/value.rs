//! Where a secret's value comes from: never the command line.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use coffer_proto::{
    limits,
    value::{InvalidValue, SecretValue},
};
use zeroize::Zeroizing;

use super::{file, generate, hidden, white_space};
use crate::{failure::Failure, print};

/// Characters of a generated value unless said otherwise: 190 bits.
const GENERATED_CHARS: &str = "32";

/// Sources of a value.
#[derive(clap::Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Value")]
pub(crate) struct Sources {
    /// Take the value from stdin, without the line break at its end (LF or CRLF)
    #[arg(long)]
    value_stdin: bool,
    /// Take the value from a file, every byte of it; `-` is stdin
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// Draw a random value of letters and digits; nobody sees it [N: 32 characters]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = GENERATED_CHARS, value_parser = length)]
    generate: Option<usize>,
}

/// Catches what people write after the name, because that is how other programs take it.
#[derive(clap::Args)]
pub(crate) struct NoValue {
    #[arg(hide = true, value_name = "NOT_A_VALUE", allow_hyphen_values = false)]
    surplus: Vec<OsString>,
}

fn length(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(chars) if (1..=limits::VALUE_BYTES).contains(&chars) => Ok(chars),
        _ => Err(format!("must be a number of characters from 1 to {}", limits::VALUE_BYTES)),
    }
}

impl NoValue {
    /// Refuses values on the command line, without repeating them.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.surplus.is_empty() {
            return Ok(());
        }
        Err(Failure::usage("a value cannot be given on the command line").hint(
            "every user of this machine can see it there, and the shell's history keeps it: leave it out to be asked, \
             or use a pipe, --value-file FILE or --generate; and change this one if it is in use",
        ))
    }
}

impl Sources {
    /// Whether one was chosen.
    pub(crate) fn is_given(&self) -> bool {
        self.value_stdin || self.value_file.is_some() || self.generate.is_some()
    }

    /// The value: from the source that was chosen, otherwise asked for on a terminal, otherwise from stdin. Empty ones
    /// are refused.
    pub(crate) fn read(&self, prompt: &str) -> Result<SecretValue, Failure> {
        self.read_unless_empty(prompt)?.ok_or_else(|| refused(InvalidValue::Empty))
    }

    /// The same; none if it is empty, which is how a person says to leave it alone.
    pub(crate) fn read_unless_empty(&self, prompt: &str) -> Result<Option<SecretValue>, Failure> {
        if let Some(chars) = self.generate {
            return generate::alphanumeric(chars).map(Some);
        }
        let bytes = if let Some(path) = &self.value_file {
            file::path_or_stdin(path, limits::VALUE_BYTES)?
        } else if !self.value_stdin && io::stdin().is_terminal() {
            ask(prompt)?
        } else {
            piped_bytes()?
        };
        checked(bytes)
    }

    /// What stands in a pipe, if stdin is one and it is not empty: `pass show db | coffer secret update NAME`. Never
    /// asks, and a stdin that is closed or /dev/null gives nothing.
    pub(crate) fn piped() -> Result<Option<SecretValue>, Failure> {
        if io::stdin().is_terminal() {
            return Ok(None);
        }
        checked(piped_bytes()?)
    }
}

/// Bytes that a line break at the end may have.
const LINE_BREAK_BYTES_MAX: usize = 2;

fn piped_bytes() -> Result<Zeroizing<Vec<u8>>, Failure> {
    Ok(without_line_break(file::stdin(limits::VALUE_BYTES + LINE_BREAK_BYTES_MAX)?))
}

/// Shows how much arrived: a paste may have been cut on its way, or hold more than was meant.
fn ask(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bytes = hidden::ask(prompt)?;
    let lines = bytes.split(|byte| *byte == b'\n').count();
    match (bytes.len(), lines) {
        (0, _) => {}
        (1, _) => print::remark("received 1 line, 1 byte"),
        (bytes, 1) => print::remark(&format!("received 1 line, {bytes} bytes")),
        (bytes, lines) => print::remark(&format!("received {lines} lines, {bytes} bytes")),
    }
    Ok(bytes)
}

fn without_line_break(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

fn checked(mut bytes: Zeroizing<Vec<u8>>) -> Result<Option<SecretValue>, Failure> {
    match SecretValue::new(std::mem::take(&mut *bytes)) {
        Ok(value) => {
            if let Some(what) = white_space::at_the_ends(&value) {
                print::remark(&format!("note: the value {what}, which is kept"));
            }
            Ok(Some(value))
        }
        Err(InvalidValue::Empty) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: InvalidValue) -> Failure {
    Failure::usage(format!("value: {error}"))
}

/// The bytes to send.
pub(crate) fn to_wire(value: &SecretValue) -> Vec<u8> {
    value.expose().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn trimmed(text: &str) -> Vec<u8> {
        without_line_break(Zeroizing::new(text.as_bytes().to_vec())).to_vec()
    }

    #[test]
    fn one_line_break_goes() {
        assert_eq!(trimmed("value\n"), b"value");
        assert_eq!(trimmed("value\n\n"), b"value\n");
        assert_eq!(trimmed("  value "), b"  value ");
        assert_eq!(trimmed("value\r\n"), b"value");
        assert_eq!(trimmed("value\r\n\r\n"), b"value\r\n");
        assert_eq!(trimmed("value\n\r\n"), b"value\n");
        assert_eq!(trimmed("value\r"), b"value\r");
        assert_eq!(trimmed("\r\n"), b"");
        assert_eq!(trimmed(""), b"");
    }

    #[test]
    fn files_are_exact() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "line\n\n").expect("written");
        let sources = Sources { value_stdin: false, value_file: Some(file.path().into()), generate: None };
        assert_eq!(sources.read("").expect("a value").expose(), "line\n\n");
    }

    #[test]
    fn a_bad_value_is_refused_and_not_shown() {
        let refused = |bytes: &[u8]| checked(Zeroizing::new(bytes.to_vec())).expect_err("refused").message().to_owned();
        assert_eq!(refused(b"hunter2\0"), "value: must not contain NUL, which an environment variable cannot hold");
        assert_eq!(refused(b"hunter2\xff"), "value: must be UTF-8 text");
    }

    #[test]
    fn an_empty_value_is_one_only_where_it_may_be() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let sources = Sources { value_stdin: false, value_file: Some(file.path().into()), generate: None };
        assert!(sources.read_unless_empty("").expect("allowed").is_none());
        let failure = sources.read("").expect_err("refused");
        assert_eq!((failure.message(), failure.exit()), ("value: Secret value is required", Exit::Usage));
    }

    #[test]
    fn surplus_arguments_are_refused_and_not_shown() {
        let failure = NoValue { surplus: vec!["hunter2".into()] }.check().expect_err("refused");
        assert!(!format!("{} {:?}", failure.message(), failure.hint_text()).contains("hunter2"));
        assert!(NoValue { surplus: Vec::new() }.check().is_ok());
    }
}
