//! `coffer-server check-config`: is the configuration good, and what is it?

use super::{Failure, print};
use crate::{
    config::{self, Flags},
    seal::source::KeyFile,
    serve::Certificates,
};

/// Checks what `run` would check before it touches the store: everything given, the key file and the certificate.
/// Prints the effective configuration, as a file that would give it.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let config = config::load(flags, std::env::vars_os())?;
    let mut errors = Vec::new();
    if let Err(error) = KeyFile::open(&config.key_file) {
        errors.push(format!("key file {error}"));
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
