//! The composition root: the one place that puts store, key, vault, services and sockets together.

mod address_file;
mod descriptors;
mod etcd_files;
mod housekeeping;
pub(crate) mod key;
pub(crate) mod place;
pub(crate) mod seal_mark;
mod services;
mod switch;
mod unseal;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tonic::service::Routes;

use self::{address_file::AddressFile, etcd_files::EtcdFiles, place::Place, switch::Switch, unseal::Opener};
use crate::{
    api,
    audit::file::{AuditFile, OpenError as AuditError, Options as AuditOptions},
    clock::SystemClock,
    config::{AuditLog, Config},
    seal::source,
    serve::{self, BindError, Certificates, CertificatesError, End, Limits, Listener, ServeError, Stage},
    store::{embedded::OpenError as StoreError, etcd},
    vault::{self, CallRates, Serves, Vault},
};

/// How long the audit log and the store may take to write what they hold at the end.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long the starts and uses not yet written may take.
const SOFT_WAIT_MAX: Duration = Duration::from_secs(2);

/// What a running server is told from outside.
#[derive(Clone, Debug)]
pub struct Signals {
    /// How far the end has come.
    pub stage: watch::Receiver<Stage>,
    /// Changes whenever certificates and the audit log are to be opened again.
    pub reload: watch::Receiver<()>,
}

/// A server whose store is open, but that does not listen yet.
pub struct Server {
    config: Config,
    opener: Opener,
    /// Loaded, or why it is sealed for now.
    vault: Result<Vault, Error>,
    certificates: Option<Arc<Certificates>>,
    etcd_files: Option<EtcdFiles>,
    began: Instant,
}

/// A server that listens: clients can connect, and wait until it serves.
pub struct Bound {
    server: Server,
    listeners: Vec<Listener>,
    /// Where clients find it.
    pub addresses: Vec<String>,
}

/// Why a server does not start, or ended badly.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants are the parts of a server, and each message names its file or address")]
pub enum Error {
    #[error("{0}")]
    Key(#[from] source::Error),
    #[error("store {0}")]
    Store(#[from] StoreError),
    #[error("store in etcd: {0}")]
    Etcd(#[from] etcd::OpenError),
    #[error("`{setting}`: {}: {why}", path.display())]
    File { setting: &'static str, path: PathBuf, why: String },
    #[error("{0}")]
    Vault(#[from] vault::OpenError),
    #[error("{0}")]
    Audit(#[from] AuditError),
    #[error("{0}")]
    Certificates(#[from] CertificatesError),
    #[error("{0}")]
    Bind(#[from] BindError),
    #[error("address file {}: {error}", path.display())]
    AddressFile { path: PathBuf, error: io::Error },
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("{0}")]
    Serve(#[from] ServeError),
}

impl Server {
    /// Opens everything that `config` names and loads the store. Nothing is changed if something is wrong. If the key source
    /// cannot be used just now, the server is sealed: it can listen all the same, and loads the store once it can.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let began = Instant::now();
        let load = |files| Certificates::load(files, Arc::new(SystemClock));
        let certificates = config.tls.clone().map(load).transpose()?.map(Arc::new);
        let source = key::open(&config.key)?;
        let marked = config.store.directory().cloned();
        if let Some(data) = &marked {
            seal_mark::check(data, source.as_ref())?;
        }
        let etcd_files = EtcdFiles::of(&config.store);
        let store = Place::open(&config.store, config.history).await?;
        let AuditLog { file, sync, max_bytes, keep_files, service_calls_per_second, calls_per_second } = &config.audit;
        let kept = AuditOptions { sync: *sync, max_bytes: *max_bytes, keep_files: *keep_files };
        let audit = Arc::new(AuditFile::open(file, kept)?);
        let limits = vault::Limits {
            memory_bytes: config.limits.memory_bytes,
            sharing: place::sharing(&config.store),
            calls: CallRates { service: *service_calls_per_second, other: *calls_per_second },
        };
        let opener = Opener { marked, store, source, audit, limits };
        let vault = match opener.open().await {
            Err(error) if error.cause().is_none() => return Err(error),
            opened => opened,
        };
        Ok(Self { config, opener, vault, certificates, etcd_files, began })
    }

    /// Coffer's own services, to be called without a socket; streams need one. None of a sealed server.
    pub fn routes(&self) -> Routes {
        self.vault
            .as_ref()
            .map_or_else(|_| Routes::default(), |vault| api::routes(vault.clone(), watch::channel(Stage::Serving).1))
    }

    /// Binds every listener and then writes the address file.
    pub async fn bind(self) -> Result<Bound, Error> {
        let mut listeners = Vec::with_capacity(self.config.listen.len());
        for address in &self.config.listen {
            listeners.push(Listener::bind(address).await?);
        }
        let has_tls = self.certificates.is_some();
        let addresses = listeners.iter().map(|listener| listener.client_address(has_tls)).collect();
        Ok(Bound { server: self, listeners, addresses })
    }
}

impl Bound {
    /// Serves until told to end, then closes everything: calls first, the store and the audit log last. While sealed, it
    /// tries to open the store and begins to serve when it could; a refusal of the key source ends it.
    pub async fn run(self, signals: Signals) -> Result<End, Error> {
        let Self { server, listeners, addresses } = self;
        let Server { config, opener, vault, certificates, etcd_files, began } = server;
        let stage = Arc::new(watch::Sender::new(Stage::Serving));
        let follower = tokio::spawn(follow(signals.stage, Arc::clone(&stage)));
        let extent = watch::Sender::new(serve::Extent::Nothing);
        let standard = services::add(Routes::default(), &config, extent.subscribe(), stage.subscribe())?;
        let switch = Switch::new(standard);
        let _address_file = match &config.address_file {
            None => None,
            Some(path) => {
                let written = AddressFile::write(path, &addresses);
                Some(written.map_err(|error| Error::AddressFile { path: path.clone(), error })?)
            }
        };
        let chores = housekeeping::start(
            signals.reload,
            Arc::clone(&opener.audit),
            certificates.clone(),
            (etcd_files, opener.store.clone()),
        );
        let connections = descriptors::connections_max(config.limits.connections);
        let start = {
            let (opener, switch, stage) = (opener.clone(), switch.clone(), Arc::clone(&stage));
            let (place, listen) = (config.store.place(), addresses.join(" "));
            move |vault: &Vault| {
                switch.unseal(api::routes(vault.clone(), stage.subscribe()));
                tokio::spawn(report_health(vault.watch_health(), extent));
                let counts = vault.view().read().counts();
                tracing::info!(
                    version = env!("CARGO_PKG_VERSION"),
                    store = place,
                    listen,
                    secrets = counts.secrets,
                    scopes = counts.scopes,
                    connections,
                    took = ?began.elapsed(),
                    "serving"
                );
                housekeeping::look_after_key(vault.clone(), opener.source)
            }
        };
        let opening = match vault {
            // At once, so that no call ever finds an open store sealed.
            Ok(vault) => {
                let key_chores = start(&vault);
                tokio::spawn(async move { Ok(Some((vault, key_chores))) })
            }
            Err(error) => {
                let (opener, switch, stage) = (opener.clone(), switch.clone(), Arc::clone(&stage));
                tokio::spawn(async move {
                    let opened = opener.keep_trying(error, |cause| switch.seal(cause)).await;
                    if opened.is_err() {
                        advance(&stage, Stage::Draining);
                    }
                    opened.map(|vault| {
                        let key_chores = start(&vault);
                        Some((vault, key_chores))
                    })
                })
            }
        };
        let limits = Limits::new(connections, config.limits.connections_per_peer);
        let end = serve::serve(listeners, switch, limits, certificates, stage.subscribe()).await;
        follower.abort();
        chores.abort();
        // While sealed there is nothing to wait for.
        opening.abort();
        let opened = opening.await.unwrap_or_else(|_| Ok(None));
        if let Ok(Some((vault, key_chores))) = &opened {
            key_chores.abort();
            flush(vault).await;
        }
        let refused = opened.map(drop);
        close(&opener.store, &opener.audit).await;
        refused?;
        if let Ok(end) = &end {
            tracing::info!(?end, "ended");
        }
        Ok(end?)
    }
}

/// Hands the stage on until nobody says any more how far the end is, which is the end.
async fn follow(mut told: watch::Receiver<Stage>, stage: Arc<watch::Sender<Stage>>) {
    loop {
        let now = *told.borrow_and_update();
        advance(&stage, now);
        if told.changed().await.is_err() {
            return advance(&stage, Stage::Aborting);
        }
    }
}

fn advance(stage: &watch::Sender<Stage>, to: Stage) {
    stage.send_if_modified(|stage| {
        let is_further = to > *stage;
        *stage = to.max(*stage);
        is_further
    });
}

/// Hands the vault's health on until it is gone, and with it the sender.
async fn report_health(mut vault: watch::Receiver<Serves>, extent: watch::Sender<serve::Extent>) {
    loop {
        extent.send_replace(match *vault.borrow_and_update() {
            Serves::Nothing => serve::Extent::Nothing,
            Serves::Workloads => serve::Extent::WithoutStore,
            Serves::Everything => serve::Extent::Everything,
        });
        if vault.changed().await.is_err() {
            return;
        }
    }
}

/// The starts and uses of the last seconds: what is lost of them is missed by nobody but their reader.
async fn flush(vault: &Vault) {
    match tokio::time::timeout(SOFT_WAIT_MAX, vault.write_soft_state(false)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the last starts are not written"),
        Err(_) => tracing::warn!("the last starts take too long to be written"),
    }
}

/// The store and, last, the audit log.
async fn close(store: &Place, audit: &AuditFile) {
    match tokio::time::timeout(CLOSE_WAIT_MAX, store.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the store is not closed in good order; its next start repairs it"),
        Err(_) => tracing::warn!("the store takes too long to close; its next start repairs it"),
    }
    if !audit.close(CLOSE_WAIT_MAX).await {
        tracing::error!("the audit log takes too long to close; its last lines may be lost");
    }
}

#[cfg(test)]
mod tests;
