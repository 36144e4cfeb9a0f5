//! `coffer-server check-config`: is the configuration good, and what is it?

use std::sync::Arc;

use super::{Failure, print};
use crate::{
    clock::SystemClock,
    config::{self, EtcdSetting, Flags, StoreSetting},
    serve::Certificates,
    server::{self, key, place},
    store::etcd::Etcd,
};

/// Checks what `run` would check before it touches the store: everything given, the key source, which is asked how it is, the
/// certificate, and whether an etcd is reached and lets coffer in.
/// Prints the effective configuration, as a file that would give it.
pub(super) async fn run(flags: &Flags) -> Result<(), Failure> {
    let config = config::load(flags, std::env::vars_os())?;
    let mut errors = Vec::new();
    match key::open(&config.key) {
        Err(error) => errors.push(error.to_string()),
        Ok(source) => errors.extend(source.status().await.err().map(|error| error.to_string())),
    }
    let mut warnings = Vec::new();
    match config.tls.clone().map(|files| Certificates::load(files, Arc::new(SystemClock))) {
        None => {}
        Some(Ok(certificates)) => warnings = certificates.warnings(),
        Some(Err(error)) => errors.push(error.to_string()),
    }
    let mut hint = None;
    if let StoreSetting::Etcd(etcd) = &config.store {
        match check(etcd).await {
            Ok(more) => warnings.extend(more),
            Err(error) => {
                let failure = Failure::from(error);
                errors.extend(failure.errors);
                hint = failure.hint;
            }
        }
    }
    if !errors.is_empty() {
        let failure = Failure::usage(errors);
        return Err(hint.into_iter().fold(failure, Failure::hint));
    }
    print::data(&config.to_string()).map_err(Failure::new)?;
    if let Some(text) = config.links_text() {
        print::note(&format!("environment variables are {text}"));
    }
    warnings.iter().for_each(|warning| print::note(warning));
    print::note("the configuration is good");
    Ok(())
}

/// There need be no store yet. Returns what is to be done soon.
async fn check(etcd: &EtcdSetting) -> Result<Vec<String>, server::Error> {
    let options = place::options(etcd)?;
    let warnings = place::warnings(&options);
    Etcd::check(options).await?;
    Ok(warnings)
}
