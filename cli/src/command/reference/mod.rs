//! `coffer reference`

mod delete;
mod list;
mod set;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    Set(set::Set),
    #[command(visible_alias = "ls")]
    List(list::List),
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Set(verb) => verb.run(session).await,
            Command::List(verb) => verb.run(session).await,
            Command::Delete(verb) => verb.run(session).await,
        }
    }
}
