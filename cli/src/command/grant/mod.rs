//! `coffer grant`

mod create;
mod delete;
mod list;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(alias = "add", alias = "give")]
    Create(create::Create),
    #[command(visible_alias = "ls")]
    List(list::List),
    #[command(visible_alias = "rm", alias = "remove", alias = "revoke")]
    Delete(delete::Delete),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Create(verb) => verb.run(session).await,
            Command::List(verb) => verb.run(session).await,
            Command::Delete(verb) => verb.run(session).await,
        }
    }
}
