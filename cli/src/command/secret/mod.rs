//! `coffer secret`

mod clone;
mod create;
mod delete;
mod get;
mod import;
mod list;
mod set;
mod sharing;
mod stats;
mod update;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

pub(super) use {get::Get, list::List, set::Set};

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(alias = "add", alias = "new")]
    Create(create::Create),
    #[command(alias = "put")]
    Set(set::Set),
    #[command(alias = "show", alias = "describe")]
    Get(get::Get),
    #[command(visible_alias = "ls")]
    List(list::List),
    #[command(alias = "edit", alias = "rotate")]
    Update(update::Update),
    #[command(visible_alias = "rm", alias = "remove")]
    Delete(delete::Delete),
    #[command(visible_alias = "cp", alias = "copy")]
    Clone(clone::Clone),
    Import(import::Import),
    Stats(stats::Stats),
}

impl Command {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Create(verb) => verb.run(session).await,
            Command::Set(verb) => verb.run(session).await,
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
