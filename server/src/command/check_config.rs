//! `coffer-server check-config`: is the configuration good, and what is it?

use super::{Failure, print};
use crate::{
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
    if let Some(Err(error)) = config.tls.clone().map(Certificates::load) {
        errors.push(error.to_string());
    }
    let mut hint = None;
    if let StoreSetting::Etcd(etcd) = &config.store
        && let Err(error) = check(etcd).await
    {
        let failure = Failure::from(error);
        errors.extend(failure.errors);
        hint = failure.hint;
    }
    if !errors.is_empty() {
        let failure = Failure::usage(errors);
        return Err(hint.into_iter().fold(failure, Failure::hint));
    }
    print::data(&config.to_string()).map_err(Failure::new)?;
    if let Some(text) = config.links_text() {
        print::note(&format!("environment variables are {text}"));
    }
    print::note("the configuration is good");
    Ok(())
}

/// There need be no store yet.
async fn check(etcd: &EtcdSetting) -> Result<(), server::Error> {
    Ok(Etcd::check(place::options(etcd)?).await?)
}
