//! `coffer-server raise-epoch`: what an operator does after etcd itself was put back to an earlier state.
//!
//! Named for what it does, since epochs stand in every position that operators see, and not for its occasion, which is
//! another tool's restore.

use std::{path::PathBuf, sync::Arc};

use super::{Failure, offline::OpenStore, print};
use crate::{
    clock::SystemClock,
    config::{FileFlag, KeyFlags},
    server::{
        self, key,
        place::{self, Place},
    },
    store::{Position, etcd::Etcd},
    vault,
};

/// Flags of `raise-epoch`.
#[derive(Debug, clap::Args)]
pub(super) struct RaiseEpoch {
    #[command(flatten)]
    key: KeyFlags,
    /// Audit log [default: the one of the configuration file]
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
    #[command(flatten)]
    config: FileFlag,
}

impl RaiseEpoch {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { key, audit_file, config } = self;
        let from_file = config.read()?;
        let Some(etcd) = from_file.etcd.as_ref() else {
            let error = "--config must name a configuration file with its store in etcd".to_owned();
            let hint = "a store in a directory begins a new epoch when it is restored: `coffer-server restore`";
            return Err(Failure::usage(vec![error]).hint(hint));
        };
        let key = from_file.key(&key)?;
        let audit = audit_file.clone();
        let Some(audit_file) = from_file.audit_file(audit_file.as_deref(), None) else {
            let error = "--audit-file or `audit.file` in the configuration file is needed".to_owned();
            return Err(Failure::usage(vec![error]));
        };
        let key = key::open(&key).map_err(server::Error::from)?;
        key.status().await.map_err(server::Error::from)?;
        let store = Etcd::open(place::options(etcd)?).await.map_err(server::Error::from)?;
        let open = OpenStore::with(Place::Etcd(store.clone(), None), &audit_file)?;
        let raise = async || Ok(store.raise_epoch().await?);
        let raised: Result<Position, server::Error> =
            vault::raise_epoch(open.store(), key, open.audit(), Arc::new(SystemClock), raise).await;
        open.close().await;
        let position = raised?;
        let config = config.config.map_or_else(String::new, |file| format!(" --config {}", file.display()));
        print::note(&format!("epoch {} begins at {position}, in {}", position.epoch.0, etcd.place()));
        print::note("every token of before has ended, so that none that was revoked since comes back");
        print::note("servers that run load everything again by themselves");
        let own_log = audit.map_or_else(String::new, |file| format!(" --audit-file {}", file.display()));
        print::next("for a new token", &format!("coffer-server operator{config}{own_log}"));
        Ok(())
    }
}
