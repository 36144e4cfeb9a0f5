//! `coffer-server check-config`: is the configuration good, and what is it?

use super::{Failure, print};
use crate::{
    config::{self, Flags},
    serve::Certificates,
    server::key,
};

/// Checks what `run` would check before it touches the store: everything given, the key source, which is asked how it is, and the
/// certificate.
/// Prints the effective configuration, as a file that would give it.
pub(super) async fn run(flags: &Flags) -> Result<(), Failure> {
    let config = config::load(flags, std::env::vars_os())?;
    let mut errors = Vec::new();
    match key::open(&config.key) {
        Err(error) => errors.push(error.to_string()),
        Ok(source) => errors.extend(source.status().await.err().map(|error| error.to_string())),
    }
    if let Some(Err(error)) = config.tls.clone().map(Certificates::load) {
        errors.push(error.to_string());
    }
    if !errors.is_empty() {
        return Err(Failure::usage(errors));
    }
    print::data(&config.to_string()).map_err(Failure::new)?;
    print::note("the configuration is good");
    Ok(())
}
