//! The composition root: the one place that puts store, key, vault, services and sockets together.

mod address_file;
mod housekeeping;
pub(crate) mod seal_mark;
mod services;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tonic::service::Routes;

use self::address_file::AddressFile;
use crate::{
    api,
    audit::file::{AuditFile, OpenError as AuditError, Options as AuditOptions},
    clock::SystemClock,
    config::{AuditLog, Config, History},
    seal::{
        header::Error as HeaderError,
        source::{self, KeyFile},
    },
    serve::{self, BindError, Certificates, CertificatesError, End, Limits, Listener, ServeError, Stage},
    store::embedded::{Embedded, OpenError as StoreError, Options},
    vault::{self, Vault},
    view::LoadError,
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

/// A server whose store is open and loaded, but that does not listen yet.
pub struct Server {
    config: Config,
    store: Embedded,
    vault: Vault,
    audit: Arc<AuditFile>,
    certificates: Option<Arc<Certificates>>,
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
    #[error("key file {0}")]
    Key(#[from] source::Error),
    #[error("key file {}: {error}", path.display())]
    WrongKey { path: PathBuf, error: source::Error },
    #[error("store {0}")]
    Store(#[from] StoreError),
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

impl Error {
    /// Gives what a wrong key says the name of its file, which it does not know.
    pub(crate) fn in_key_file(self, path: &Path) -> Self {
        let path = path.to_owned();
        match self {
            Error::Key(error @ source::Error::WrongKey { .. }) => Error::WrongKey { path, error },
            Error::Vault(vault::OpenError::Load(LoadError::Header(HeaderError::Source(
                error @ source::Error::WrongKey { .. },
            )))) => Error::WrongKey { path, error },
            other => other,
        }
    }
}

impl Server {
    /// Opens everything that `config` names and loads the store. Nothing is changed if something is wrong.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let key_file = config.key_file.clone();
        Self::open_all(config).await.map_err(|error| error.in_key_file(&key_file))
    }

    async fn open_all(config: Config) -> Result<Self, Error> {
        let began = Instant::now();
        let certificates = config.tls.clone().map(Certificates::load).transpose()?.map(Arc::new);
        let key = KeyFile::open(&config.key_file)?;
        seal_mark::check(&config.data, &key)?;
        let History { retention, bytes_max } = config.history;
        let options = Options { retention, history_bytes_max: bytes_max, ..Options::default() };
        let store = Embedded::open(&config.data, options).await?;
        let AuditLog { file, sync, max_bytes, keep_files } = &config.audit;
        let kept = AuditOptions { sync: *sync, max_bytes: *max_bytes, keep_files: *keep_files };
        let audit = Arc::new(AuditFile::open(file, kept)?);
        let limits = vault::Limits { memory_bytes: config.limits.memory_bytes };
        let vault = Vault::open(Arc::new(store.clone()), &key, audit.clone(), Arc::new(SystemClock), limits).await?;
        seal_mark::set(&config.data, &key)?;
        Ok(Self { config, store, vault, audit, certificates, began })
    }

    /// Coffer's own services, to be called without a socket; streams need one.
    pub fn routes(&self) -> Routes {
        api::routes(self.vault.clone(), watch::channel(Stage::Serving).1)
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
    /// Serves until told to end, then closes everything: calls first, the store and the audit log last.
    pub async fn run(self, signals: Signals) -> Result<End, Error> {
        let Self { server, listeners, addresses } = self;
        let Server { config, store, vault, audit, certificates, began } = server;
        let routes = api::routes(vault.clone(), signals.stage.clone());
        let routes = services::add(routes, &config, vault.watch_health(), signals.stage.clone())?;
        let _address_file = match &config.address_file {
            None => None,
            Some(path) => {
                let written = AddressFile::write(path, &addresses);
                Some(written.map_err(|error| Error::AddressFile { path: path.clone(), error })?)
            }
        };
        let chores = housekeeping::start(signals.reload, Arc::clone(&audit), certificates.clone());
        let counts = vault.view().read().counts();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            store = %config.data.display(),
            listen = addresses.join(" "),
            secrets = counts.secrets,
            scopes = counts.scopes,
            took = ?began.elapsed(),
            "serving"
        );
        let limits = Limits::new(config.limits.connections, config.limits.connections_per_peer);
        let end = serve::serve(listeners, routes, limits, certificates, signals.stage).await;
        chores.abort();
        flush(&vault).await;
        drop(vault);
        close(&store, &audit).await;
        if let Ok(end) = &end {
            tracing::info!(?end, "ended");
        }
        Ok(end?)
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
async fn close(store: &Embedded, audit: &AuditFile) {
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
