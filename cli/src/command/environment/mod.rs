//! `coffer environment`

mod describe;
mod fetch;
mod watch;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    Describe(describe::Describe),
    Fetch(fetch::Fetch),
    Watch(watch::Watch),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Describe(verb) => verb.run(session).await,
            Command::Fetch(verb) => verb.run(session).await,
            Command::Watch(verb) => verb.run(session).await,
        }
    }
}
