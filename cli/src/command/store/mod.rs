//! `coffer store`: the store as a whole, for operators.

mod backup;
mod status;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    Status(status::Status),
    Backup(backup::Backup),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Status(command) => command.run(session).await,
            Command::Backup(command) => command.run(session).await,
        }
    }
}
