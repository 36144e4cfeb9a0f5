//! The point of no return.

use std::{convert::Infallible, ffi::CString, io, os::unix::ffi::OsStrExt as _};

use nix::unistd::execve;

use crate::{Command, Environment, Exit, Failure, command, cores, descriptor};

/// Becomes the command; returns only with why that failed.
///
/// This is execve(2) itself and not execvp(3), which std uses: that one hands a file of unknown format to a shell.
pub(crate) fn exec(command: &Command, environment: Environment) -> Failure {
    let Err(error) = try_exec(command, environment);
    explain(command, &error)
}

/// Why a command could not be started.
pub(crate) fn explain(command: &Command, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => {
            Failure::new(Exit::Refused, "arguments and environment are too large for the kernel (ulimit -s)")
        }
        // The file was there a moment ago, so that it is more likely its interpreter that is not.
        io::ErrorKind::NotFound => Failure::new(
            Exit::NotFound,
            format!("{}: the file or the interpreter it names was not found", command.path().display()),
        ),
        _ => command::failure(command.path().as_os_str(), error),
    }
}

fn try_exec(command: &Command, environment: Environment) -> io::Result<Infallible> {
    let path = CString::new(command.path().as_os_str().as_bytes())?;
    let words = command.words().iter().map(|word| CString::new(word.as_bytes()));
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let variables = environment.into_strings()?;
    descriptor::restore_sigpipe()?;
    cores::allowed(|| execve(&path, &words, &variables)).map_err(io::Error::from)
}
