//! How it ends when the command was not started.

use std::process::ExitCode;

/// The exit codes of the injector itself, a contract with scripts: sysexits(3), and 126 and 127 as every shell has
/// them. Every other code is the workload's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command line or a `COFFER_*` variable is wrong.
    Usage = 64,
    /// The environment cannot be given to the workload: a name, a value or a size.
    Refused = 65,
    /// No answer within the time.
    Unavailable = 69,
    /// A mistake in the injector or the server.
    Internal = 70,
    /// What the workload was given changed: it was stopped, to be started anew.
    Changed = 75,
    /// No usable credential, or it does not permit this.
    Denied = 77,
    /// A secret that was asked for is not there.
    Missing = 78,
    /// The command was found but cannot be executed.
    NotExecutable = 126,
    /// The command was not found.
    NotFound = 127,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why the command was not started: every problem found, and the code that says what kind they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    problems: Vec<String>,
}

impl Failure {
    /// One problem.
    pub(crate) fn new(exit: Exit, problem: impl Into<String>) -> Self {
        Self { exit, problems: vec![problem.into()] }
    }

    /// Many problems of one kind.
    pub(crate) fn all(exit: Exit, problems: Vec<String>) -> Self {
        Self { exit, problems }
    }

    /// Ok if there are none.
    pub(crate) fn unless_empty(exit: Exit, problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self::all(exit, problems)) }
    }

    /// With one more line.
    pub(crate) fn and(mut self, line: impl Into<String>) -> Self {
        self.problems.push(line.into());
        self
    }

    /// The code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// One line each.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(String::as_str)
    }
}
