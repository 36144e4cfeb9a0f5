//! `coffer scope`

mod delete;
mod health;
mod list;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "ls")]
    List(list::List),
    Health(health::Health),
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::List(verb) => verb.run(session).await,
            Command::Health(verb) => verb.run(session).await,
            Command::Delete(verb) => verb.run(session).await,
        }
    }
}
