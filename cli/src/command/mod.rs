//! What `coffer` does: one file a verb. Each reads its input before it connects, because a server hangs up on a
//! connection that stays silent while somebody types.

mod access;
mod completions;
mod elsewhere;
mod environment;
mod grant;
mod instances;
mod key;
mod manifest;
mod prefix;
mod redact;
mod reference;
mod scope;
mod secret;
mod snapshot;
mod status;
mod store;
mod template;
mod token;
mod whoami;

use clap::Subcommand;

use crate::{failure::Failure, print::Report, session::Session};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create, show, change, copy, import and delete secrets
    #[command(subcommand, visible_alias = "secrets")]
    Secret(secret::Command),
    /// What a workload receives, and why
    ///
    /// People never receive encrypted values, so that there is no `coffer run`: coffer-inject -- COMMAND starts a command with
    /// them, with a workload's token.
    #[command(subcommand, visible_alias = "env")]
    Environment(environment::Command),
    /// What owns secrets
    #[command(subcommand, visible_alias = "scopes")]
    Scope(scope::Command),
    /// Who may do what: give and take rights
    #[command(subcommand, visible_alias = "grants")]
    Grant(grant::Command),
    /// Who can do what, and why
    #[command(subcommand)]
    Access(access::Command),
    /// Issue, list and revoke tokens
    #[command(subcommand, visible_alias = "tokens")]
    Token(token::Command),
    /// Resolve {{NAME}} in texts
    #[command(subcommand, visible_alias = "templates")]
    Template(template::Command),
    Redact(redact::Redact),
    /// Which secrets tools use: what they name is not deleted by mistake
    #[command(subcommand, visible_alias = "references")]
    Reference(reference::Command),
    /// Which variables workloads expect
    #[command(subcommand, visible_alias = "manifests")]
    Manifest(manifest::Command),
    #[command(visible_alias = "instance")]
    Instances(instances::Instances),
    /// How the store is, and its backup; for operators
    #[command(subcommand)]
    Store(store::Command),
    /// The snapshots that the server keeps; for operators
    #[command(subcommand, visible_alias = "snapshots")]
    Snapshot(snapshot::Command),
    /// Rotate keys; for operators
    #[command(subcommand, visible_alias = "keys")]
    Key(key::Command),
    Status(status::Status),
    Whoami(whoami::Whoami),
    /// The same as secret list
    #[command(hide = true)]
    Ls(secret::List),
    /// The same as secret get
    #[command(hide = true)]
    Get(secret::Get),
    /// The same as secret set
    #[command(hide = true)]
    Set(secret::Set),
    #[command(flatten)]
    Alone(Alone),
}

/// What needs no server, and no good way to one.
#[derive(Subcommand)]
pub(crate) enum Alone {
    #[command(alias = "completion")]
    Completions(completions::Completions),
    #[command(hide = true, alias = "exec", alias = "inject")]
    Run(elsewhere::Elsewhere),
    #[command(hide = true, alias = "auth", alias = "signin")]
    Login(elsewhere::Elsewhere),
    #[command(hide = true, alias = "log", alias = "logs")]
    Audit(elsewhere::Elsewhere),
}

impl Alone {
    pub(crate) fn run(self) -> Result<Report, Failure> {
        match self {
            Alone::Completions(command) => Ok(command.run()),
            Alone::Run(_) => Err(elsewhere::run()),
            Alone::Login(_) => Err(elsewhere::login()),
            Alone::Audit(_) => Err(elsewhere::audit()),
        }
    }
}

impl Command {
    pub(crate) async fn run(self, session: &Session) -> Result<Report, Failure> {
        match self {
            Command::Secret(command) => command.run(session).await,
            Command::Environment(command) => command.run(session).await,
            Command::Scope(command) => command.run(session).await,
            Command::Grant(command) => command.run(session).await,
            Command::Access(command) => command.run(session).await,
            Command::Token(command) => command.run(session).await,
            Command::Template(command) => command.run(session).await,
            Command::Redact(command) => command.run(session).await,
            Command::Reference(command) => command.run(session).await,
            Command::Manifest(command) => command.run(session).await,
            Command::Instances(command) => command.run(session).await,
            Command::Store(command) => command.run(session).await,
            Command::Snapshot(command) => command.run(session).await,
            Command::Key(command) => command.run(session).await,
            Command::Status(command) => command.run(session).await,
            Command::Whoami(command) => command.run(session).await,
            Command::Ls(command) => command.run(session).await,
            Command::Get(command) => command.run(session).await,
            Command::Set(command) => command.run(session).await,
            Command::Alone(command) => command.run(),
        }
    }
}

/// How many entries a list shows.
#[derive(clap::Args)]
pub(crate) struct Limit {
    /// Show at most this many; otherwise all of them
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,
}

fn positive(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|count| *count > 0).ok_or("must be a number of at least 1")
}
