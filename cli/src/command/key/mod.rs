//! `coffer key`: the keys that seal the store, for operators.

mod rotate;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    Rotate(rotate::Rotate),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Rotate(command) => command.run(session).await,
        }
    }
}
