//! What a server does beside serving: certificates, the files by which etcd is reached and the audit log are opened again when they are to be.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{etcd_files::EtcdFiles, place::Place};
use crate::{audit::file::AuditFile, seal::source::KeySource, serve::Certificates, telemetry, vault::Vault};

/// How often certificates and the like are looked at.
const FILES_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How often the key source is looked at.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Looks after the key source, at once and then again and again, until it is aborted.
pub(super) fn look_after_key(vault: Vault, source: Arc<dyn KeySource>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = interval(KEY_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            vault.look_after_key(source.as_ref()).await;
        }
    })
}

/// Runs until it is aborted.
pub(super) fn start(
    mut reload: watch::Receiver<()>,
    audit: Arc<AuditFile>,
    certificates: Option<Arc<Certificates>>,
    (etcd, store): (Option<EtcdFiles>, Place),
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = interval(FILES_CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_told = true;
        loop {
            tokio::select! {
                told = reload.changed(), if is_told => {
                    is_told = told.is_ok();
                    if is_told {
                        audit.reopen();
                        certificates.iter().for_each(|certificates| certificates.reload());
                        if let Some(etcd) = &etcd {
                            etcd.reload(&store).await;
                        }
                    }
                }
                _ = ticks.tick() => {
                    telemetry::tell_left_out();
                    certificates.iter().for_each(|certificates| certificates.look_after());
                    if let Some(etcd) = &etcd {
                        etcd.look_after(&store).await;
                    }
                }
            }
        }
    })
}
