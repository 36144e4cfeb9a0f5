//! What `init` and `operator` have in common: each works on a store that no server has open, and ends with an operator's
//! token.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use coffer_proto::{limits::SERVICE_TOKEN_TTL_DEFAULT, name::Principal};

use super::{Failure, print, token::Outlet};
use crate::{
    audit::{
        Audit,
        file::{AuditFile, Options as AuditOptions},
    },
    config::{AUDIT_FILE_DEFAULT, EtcdSetting, FileFlag, History, KeyFlags, KeySetting, StoreSetting},
    server::{self, place::Place as OpenPlace},
    store::Store,
};

/// How long the audit log may take to write its lines.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Their flags.
#[derive(Debug, clap::Args)]
pub(super) struct Offline {
    /// Directory of the store
    #[arg(long, value_name = "DIR", env = "COFFER_SERVER_DATA")]
    pub(super) data: Option<PathBuf>,
    #[command(flatten)]
    pub(super) key: KeyFlags,
    /// Who the operator is: users/ID or services/ID
    #[arg(long, value_name = "PRINCIPAL", default_value = "users/operator")]
    pub(super) operator: String,
    /// Write the token to this new file, mode 0600, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Audit log [default: audit.jsonl in the data directory]
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_AUDIT_FILE")]
    pub(super) audit_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: FileFlag,
}

/// Where store, key and audit log are, by flags and configuration file.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) store: StoreSetting,
    pub(super) key: KeySetting,
    pub(super) audit_file: Option<PathBuf>,
}

impl Place {
    /// The audit log: the one that is named, or the one beside the store.
    pub(super) fn audit_file(&self) -> PathBuf {
        let beside = || self.store.directory().map(|data| data.join(AUDIT_FILE_DEFAULT)).unwrap_or_default();
        self.audit_file.clone().unwrap_or_else(beside)
    }
}

impl Offline {
    pub(super) fn place(&self) -> Result<Place, Failure> {
        let from_file = self.config.read()?;
        let key = from_file.key(&self.key)?;
        let data = from_file.data(self.data.as_deref());
        if let Some(etcd) = &from_file.etcd {
            return match (data, from_file.audit_file(self.audit_file.as_deref(), None)) {
                (None, Some(audit_file)) => {
                    // A server may keep the history meanwhile; it records what is done here, too.
                    let etcd = Box::new(EtcdSetting { history: None, ..etcd.clone() });
                    Ok(Place { store: StoreSetting::Etcd(etcd), key, audit_file: Some(audit_file) })
                }
                (Some(_), _) => {
                    Err(Failure::usage(vec!["--data: the configuration file says that the store is in etcd".to_owned()]))
                }
                (None, None) => Err(Failure::usage(vec![
                    "--audit-file or `audit.file` in the configuration file is needed: with its store in etcd a server has \
                     no data directory"
                        .to_owned(),
                ])),
            };
        }
        let needed =
            || "--data, COFFER_SERVER_DATA or `data` in the configuration file (--config) is needed".to_owned();
        let data = data.ok_or_else(|| Failure::usage(vec![needed()]))?;
        let audit_file = from_file.audit_file(self.audit_file.as_deref(), Some(&data));
        Ok(Place { key, store: StoreSetting::Embedded(data), audit_file })
    }

    pub(super) fn operator(&self) -> Result<Principal, Failure> {
        match Principal::parse(&self.operator) {
            Ok(operator @ (Principal::User(_) | Principal::Service(_))) => Ok(operator),
            _ => Err(Failure::usage(vec!["--operator must be users/ID or services/ID".to_owned()])),
        }
    }

    pub(super) fn outlet(&self) -> Result<Outlet, Failure> {
        Outlet::open(self.token_file.as_deref())
    }

    /// Says where the token is, and what to do before it ends.
    pub(super) fn tell_token(&self, place: &Place) {
        match &self.token_file {
            Some(file) => print::note(&format!("the operator's token is in {}", file.display())),
            None => print::note("the operator's token is printed this once and never again: keep it"),
        }
        let how = match &place.store {
            StoreSetting::Embedded(_) => "stop the server and run:",
            StoreSetting::Etcd(_) => "run, with an --audit-file of its own while servers run:",
        };
        print::note(&format!(
            "it ends after {} days; if no operator has a token left, {how} coffer-server operator {}",
            SERVICE_TOKEN_TTL_DEFAULT.as_secs() / (24 * 60 * 60),
            self.flags(place)
        ));
    }

    /// What says the same to another command.
    pub(super) fn flags(&self, Place { store, key, .. }: &Place) -> String {
        let audit_file = self.audit_file.as_ref().map(|file| format!(" --audit-file {}", file.display()));
        let config = self.config.config.as_ref().map(|file| format!("--config {} ", file.display()));
        let (config, audit_file) = (config.unwrap_or_default(), audit_file.unwrap_or_default());
        let data = store.directory().map(|data| format!("--data {} ", data.display())).unwrap_or_default();
        format!("{config}{data}{}{audit_file}", key.flag())
    }
}

/// A store that is open for one change, and the audit log of that.
pub(super) struct OpenStore {
    store: OpenPlace,
    audit: Arc<AuditFile>,
}

impl OpenStore {
    /// Nobody else may have one in a directory open; the audit log is touched only once that is sure.
    pub(super) async fn open(setting: &StoreSetting, audit_file: &Path) -> Result<Self, server::Error> {
        let history = History { retention: History::RETENTION_DEFAULT, bytes_max: History::BYTES_MAX_DEFAULT };
        Self::with(OpenPlace::open(setting, history).await?, audit_file)
    }

    /// With a store that is open.
    pub(super) fn with(store: OpenPlace, audit_file: &Path) -> Result<Self, server::Error> {
        let audit = Arc::new(AuditFile::open(audit_file, AuditOptions { sync: true, ..AuditOptions::default() })?);
        Ok(Self { store, audit })
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        self.store.store()
    }

    pub(super) fn audit(&self) -> Arc<dyn Audit> {
        self.audit.clone()
    }

    pub(super) async fn close(self) {
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store is not closed in good order; its next start repairs it");
        }
        self.audit.close(CLOSE_WAIT_MAX).await;
    }
}
