//! The commands of `coffer-server`: one file each.

mod audit;
mod check_config;
mod dev;
#[cfg(test)]
mod documents;
mod failure;
mod help;
mod init;
mod offline;
mod operator;
mod print;
mod progress;
mod provision;
mod raise_epoch;
mod restore;
mod run;
mod signals;
mod token;
mod usage;
mod verify;

use std::process::ExitCode;

use clap::Parser;

pub use failure::Failure;

use crate::{config::Flags, telemetry};

/// The coffer secrets service
#[derive(Debug, Parser)]
#[command(name = "coffer-server", version, max_term_width = 120)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new store and print the first operator's token
    Init(init::Init),
    /// Make somebody an operator and print a new token: for when no operator's token is left, with the server stopped
    Operator(operator::Operator),
    /// Read the audit log
    Audit(audit::Audit),
    /// Serve
    #[command(after_help = help::run())]
    Run(Box<Flags>),
    /// Make a new store, in a directory or in etcd, of a backup, or of what another store was at a position or time
    Restore(restore::Restore),
    /// End every token of before, for all servers of a store in etcd: after etcd itself was put back to an earlier state
    RaiseEpoch(raise_epoch::RaiseEpoch),
    /// Say whether a backup or a store is whole and everything in it opens; prints no value
    Verify(verify::Verify),
    /// Serve from a new, empty store that is gone at the end, with commands to paste
    Dev(dev::Dev),
    /// Say whether the configuration is good and print it
    #[command(after_help = help::check_config())]
    CheckConfig(Box<Flags>),
}

/// Reads the command line, does what it says, and tells how it went.
pub async fn main() -> ExitCode {
    let command = match usage::parse::<CommandLine>() {
        Ok(line) => line.command,
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(failure::USAGE);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let done = match command {
        Command::Init(init) => init.run().await,
        Command::Operator(operator) => operator.run().await,
        Command::Audit(audit) => audit.run().await,
        Command::Run(flags) => run::run(&flags).await,
        Command::Restore(restore) => restore.run().await,
        Command::RaiseEpoch(raise) => raise.run().await,
        Command::Verify(verify) => verify.run().await,
        Command::Dev(dev) => dev.run().await,
        Command::CheckConfig(flags) => check_config::run(&flags).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Logging as the configuration says.
fn start_logging(log: &crate::config::Log) {
    telemetry::start(log, std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()));
}
