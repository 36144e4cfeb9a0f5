//! `coffer secret`

mod clone;
mod create;
mod delete;
mod get;
mod import;
mod list;
mod sharing;
mod stats;
mod update;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    Create(create::Create),
    Get(get::Get),
    #[command(visible_alias = "ls")]
    List(list::List),
    Update(update::Update),
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    #[command(visible_alias = "cp")]
    Clone(clone::Clone),
    Import(import::Import),
    Stats(stats::Stats),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Create(verb) => verb.run(session).await,
            Command::Get(verb) => verb.run(session).await,
            Command::List(verb) => verb.run(session).await,
            Command::Update(verb) => verb.run(session).await,
            Command::Delete(verb) => verb.run(session).await,
            Command::Clone(verb) => verb.run(session).await,
            Command::Import(verb) => verb.run(session).await,
            Command::Stats(verb) => verb.run(session).await,
        }
    }
}
