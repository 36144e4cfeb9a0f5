//! `coffer access`

mod list;
mod test;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "ls")]
    List(list::List),
    Test(test::Test),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::List(verb) => verb.run(session).await,
            Command::Test(verb) => verb.run(session).await,
        }
    }
}
