//! Gets the store's key from its source, again and again if it must.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Error, place::Place, seal_mark};
use crate::{
    audit::file::AuditFile,
    clock::SystemClock,
    seal::{
        header::Error as HeaderError,
        source::{self, Cause, KeySource},
    },
    vault::{self, Vault},
    view::LoadError,
};

/// Longest wait after the first failure; it doubles with each.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// Longest wait of all.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What opens the vault once the key is there.
#[derive(Clone)]
pub(super) struct Opener {
    /// The directory that is marked with what opens it.
    pub(super) marked: Option<PathBuf>,
    pub(super) store: Place,
    pub(super) source: Arc<dyn KeySource>,
    pub(super) audit: Arc<AuditFile>,
    pub(super) limits: vault::Limits,
}

impl Opener {
    /// One try. Nothing in the store is changed by it.
    pub(super) async fn open(&self) -> Result<Vault, Error> {
        self.source.status().await?;
        self.store.recall().await;
        let vault = Vault::open(
            self.store.store(),
            self.source.clone(),
            self.audit.clone(),
            Arc::new(SystemClock),
            self.limits,
        )
        .await?;
        self.store.record();
        if let Some(data) = &self.marked {
            seal_mark::set(data, self.source.as_ref())?;
        }
        Ok(vault)
    }

    /// Tries until there is an answer that time will not change. `failed` hears why it is sealed, beginning with `error`.
    pub(super) async fn keep_trying(&self, mut error: Error, failed: impl Fn(Cause)) -> Result<Vault, Error> {
        let mut wait = WAIT_FIRST;
        loop {
            let Some(cause) = error.cause() else { return Err(error) };
            failed(cause);
            let pause = jittered(wait)?;
            tracing::warn!(cause = cause.as_str(), %error, again_in = ?pause, "sealed: the store's key is not there");
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(WAIT_MAX);
            match self.open().await {
                Ok(vault) => return Ok(vault),
                Err(again) => error = again,
            }
        }
    }
}

impl Error {
    /// Why the server is sealed, if time may change it.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Error::Key(error) | Error::Vault(vault::OpenError::Load(LoadError::Header(HeaderError::Source(error)))) => {
                error.cause()
            }
            _ => None,
        }
    }
}

/// Anything up to `most`: many servers that lost one plugin must not come back at once.
fn jittered(most: Duration) -> Result<Duration, source::Error> {
    let random = u32::from_le_bytes(crate::seal::random()?);
    Ok(most.mul_f64(f64::from(random) / f64::from(u32::MAX)))
}
