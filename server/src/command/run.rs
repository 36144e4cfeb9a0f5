//! `coffer-server run`: serve.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Failure, signals, start_logging};
use crate::{
    config::{self, Config, Flags},
    process,
    server::{Server, Signals},
};

pub(super) async fn run(flags: &Flags) -> Result<(), Failure> {
    let config = config::load(flags, std::env::vars_os())?;
    start_logging(&config.log);
    if let Some(text) = config.links_text() {
        tracing::warn!("environment variables are {text}");
    }
    let signals = signals::handle(signals::Hangup::Reload).map_err(Failure::new)?;
    serve(config, signals).await
}

async fn serve(config: Config, signals: Signals) -> Result<(), Failure> {
    raise_descriptor_limit();
    process::guard().log();
    Server::open(config).await?.bind().await?.run(signals).await?;
    Ok(())
}

/// Each connection is a descriptor, and the soft limit is often 1,024 for the sake of select(2), which is not used.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files is not raised");
    }
}
