//! `coffer token`

mod exchange;
mod file;
mod issue;
mod list;
mod revoke;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(alias = "create", alias = "new")]
    Issue(issue::Issue),
    Exchange(exchange::Exchange),
    #[command(visible_alias = "ls")]
    List(list::List),
    #[command(visible_alias = "rm", alias = "delete")]
    Revoke(revoke::Revoke),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Issue(verb) => verb.run(session).await,
            Command::Exchange(verb) => verb.run(session).await,
            Command::List(verb) => verb.run(session).await,
            Command::Revoke(verb) => verb.run(session).await,
        }
    }
}
