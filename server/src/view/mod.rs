//! The state in memory, fed only by committed changes. Reads never touch the store.
//!
//! One lock over maps to immutable, shared entries: a reader holds the guard while it decides and clones what it needs,
//! so that everything it sees is of one position, and opens values after it has let go. Metadata is opened when a
//! change arrives; values stay sealed.

mod apply;
mod declared;
mod examine;
mod follow;
mod keys;
mod soft;
mod state;
mod tally;
mod touched;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use coffer_proto::name::Workload;
use tokio::sync::watch;

use self::touched::Listeners;

use crate::{
    seal::{Keyring, Uid, source::KeySource},
    store::{Position, Revision},
};

pub use apply::ENTRY_BYTES;
pub use declared::{Declaration, Declared};
pub use examine::Examiner;
pub use follow::{LoadError, follow};
pub use soft::{LastUsed, Start, Starts, Used};
pub use state::{
    Counts, Grant, Header, OwnedSecret, RotatedKeys, RotationEntry, ScopeState, SecretEntry, StartToken, State,
    SystemKey, TokenEntry,
};
#[cfg(test)]
pub(crate) use tally::most_of;
pub use touched::{Listening, Place};

/// Why the view cannot be built or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A stored record does not open. Damage is reported, never served.
    #[error("{key}: {error}")]
    Damaged {
        /// The record's key.
        key: crate::store::Key,
        /// What is wrong.
        error: crate::record::Error,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// How far the view has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    At(Position),
    Failed(Error),
}

/// The view of one store.
pub struct View {
    store: Uid,
    source: Arc<dyn KeySource>,
    /// A header that the store may have soon, with its root keys, so that the source need not be asked for them.
    offered: Mutex<Option<(Arc<[u8]>, Keyring)>>,
    state: RwLock<State>,
    progress: watch::Sender<Progress>,
    listeners: Arc<Listeners>,
}

impl View {
    /// The state of one moment. Hold it briefly and never across an await: changes wait for it.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        tally::begin();
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The store's identity.
    pub fn store(&self) -> Uid {
        self.store
    }

    /// What wraps the root keys.
    pub fn source(&self) -> &dyn KeySource {
        self.source.as_ref()
    }

    /// Takes a header that is about to be the store's, and the root keys in it.
    pub fn offer(&self, header: Arc<[u8]>, keyring: Keyring) {
        *self.offered() = Some((header, keyring));
    }

    fn offered(&self) -> MutexGuard<'_, Option<(Arc<[u8]>, Keyring)>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the view shows a position, or says why it never will.
    pub async fn reached(&self, position: Position) -> Result<(), Error> {
        let mut progress = self.progress.subscribe();
        let seen = progress
            .wait_for(|progress| match progress {
                Progress::At(at) => *at >= position,
                Progress::Failed(_) => true,
            })
            .await
            .expect("the view itself holds the sender");
        match &*seen {
            Progress::At(_) => Ok(()),
            Progress::Failed(error) => Err(error.clone()),
        }
    }

    /// Why it shows nothing new any more, if it has failed.
    pub fn error(&self) -> Option<Error> {
        match &*self.progress.borrow() {
            Progress::At(_) => None,
            Progress::Failed(error) => Some(error.clone()),
        }
    }

    /// Hears from here on of changes in scopes, and of ends of rights or tokens of principals, by their names.
    pub fn listen(&self, names: Vec<Arc<str>>) -> Listening {
        self.listeners.names(names)
    }

    /// The same, and of all that workloads in a place rest on, and of starts of theirs.
    pub fn listen_in(&self, place: Place, names: Vec<Arc<str>>) -> Listening {
        self.listeners.place(names, place)
    }

    /// Tells those who listen of a start that may not be in the store yet.
    pub fn tell_start(&self, workload: &Workload) {
        self.listeners.tell_start(workload);
    }

    /// How many names and places are listened to, each as often as it is.
    pub fn listening(&self) -> usize {
        self.listeners.count()
    }

    /// Waits until the view has failed for good and says why; `None` if it was dropped before.
    pub fn failure(&self) -> impl Future<Output = Option<Error>> + Send + use<> {
        let mut progress = self.progress.subscribe();
        async move {
            let seen = progress.wait_for(|progress| matches!(progress, Progress::Failed(_))).await.ok()?;
            match &*seen {
                Progress::Failed(error) => Some(error.clone()),
                Progress::At(_) => None,
            }
        }
    }
}

/// A record's place in the store: what a transaction compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Its key.
    pub key: crate::store::Key,
    /// The transaction that put it last.
    pub revision: Revision,
}
