//! `coffer`, the command line of the secrets service.
//!
//! - [`args`]: the command line; `usage` turns its mistakes into errors.
//! - [`command`]: one file a verb: reads input, makes the calls, returns a report.
//! - [`input`]: values, confirmations, files to import.
//! - [`view`]: what is shown, as a table for people and as JSON for programs.
//! - [`print`](mod@print): the only module that writes to the terminal; [`new_file`] writes files, `told_to_end` lets
//!   them be cleaned up.
//! - [`session`]: the connection; [`failure`]: errors, hints and exit codes; `panics`, `cores`: what a
//!   panic may say, and no core file.
//!
//! A value never comes from the command line, and no error shows one.

mod args;
mod command;
mod cores;
mod dotenv;
mod failure;
mod input;
mod new_file;
mod options;
mod panics;
mod print;
mod session;
mod told_to_end;
mod usage;
mod view;

use std::process::ExitCode;

use command::Command;
use failure::Failure;
use options::Global;
use print::Report;
use session::Session;

/// A freed value is overwritten, whichever buffer of whichever crate held it.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    panics::install();
    cores::forbid();
    let args: Vec<_> = std::env::args_os().collect();
    if options::asks_for_json(&args) {
        print::stderr_as_json();
    }
    match usage::parse(args) {
        Ok(args) => exit(run(args)),
        Err(usage::Early::Help(text)) => exit(print::data(&text).map(|()| false)),
        Err(usage::Early::Mistake(text)) => {
            print::usage(&text);
            ExitCode::from(failure::Exit::Usage as u8)
        }
    }
}

fn exit(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(failure) => {
            print::failure(&failure);
            ExitCode::from(failure.exit() as u8)
        }
    }
}

/// Whether the answer to what was asked is no.
fn run(args: args::Args) -> Result<bool, Failure> {
    let report = match args.command {
        Command::Alone(command) => command.run()?,
        command => ask(&args.global, command)?,
    };
    print::report(&report)?;
    report.failure.map_or(Ok(report.negative), Err)
}

/// Runs a command that asks a server.
fn ask(global: &Global, command: Command) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let session = Session::new(global, |name| std::env::var_os(name), print::terminal())?;
    let ended = runtime.block_on(command.run(&session));
    // A read of stdin cannot be taken back: waiting for it would keep a refused command until its input ends.
    runtime.shutdown_background();
    ended
}
