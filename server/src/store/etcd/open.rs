//! Makes a store in etcd, and opens it.

use std::sync::{Arc, OnceLock, RwLock, atomic::AtomicBool};

use coffer_proto::etcd::TxnRequest;
use tokio::sync::Semaphore;

use super::{
    Etcd, EtcdOptions, IN_FLIGHT_MAX, Seen, Shared,
    connect::{Cluster, SHORT, txn},
    epoch::Known,
    head::{Head, Stored},
    keys::Keys,
    request::Slots,
    transaction::{Is, compare, first, get, malformed, put},
    version,
};
use crate::{
    clock::{Clock, SystemClock},
    store::{Epoch, Error, Millis, TransactionId},
};

/// What etcd says of a write while its alarm CORRUPT stands.
const CORRUPT: &str = "etcdserver: corrupt cluster";

/// Why a store in etcd cannot be made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no store of coffer's below {0}")]
    Missing(String),
    /// There is something already.
    #[error("there is already something below {0}, or a store above it")]
    Exists(String),
    /// One was being restored, and that was interrupted, or goes on. Nobody was ever served from it.
    #[error("a restore below {0} was begun and is not finished: there is no store yet")]
    Unfinished(String),
    /// etcd does not answer, or not as it should.
    #[error("{}", told(.0))]
    Store(#[from] Error),
}

/// Of a store that is not open yet no transaction was asked for, and nothing is known that could have failed.
fn told(error: &Error) -> String {
    match error {
        Error::Unavailable(text) | Error::Invalid(text) | Error::Failed(text) => text.clone(),
        error => error.to_string(),
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => error,
            error => Self::Failed(format!("in etcd {error}")),
        }
    }
}

impl Etcd {
    /// Creates an empty store, of epoch 1 and a new instance. Refuses a prefix below which there is anything, and one
    /// that is below another store's.
    pub async fn create(options: EtcdOptions) -> Result<(), OpenError> {
        let keys = Keys::new(&options.prefix)?;
        let cluster = Cluster::new(options)?;
        let instance = random()?;
        let head = Head {
            instance,
            epoch: Epoch(1),
            id: TransactionId::random().map_err(no_randomness)?,
            time: Millis::from(SystemClock.now()),
            deletes: 0,
        };
        let stored = Stored { instance, epoch: head.epoch }.encode();
        let create = TxnRequest {
            compare: keys.vacant(),
            success: vec![put(keys.store(), stored.clone()), put(keys.head(), head.encode())],
            failure: vec![get(keys.store(), 0), get(keys.restore(), 0)],
        };
        let answer = cluster.read(SHORT, &create, txn).await?;
        let mut found = answer.responses.iter().filter_map(first);
        let (store, restore) = (found.next().flatten(), found.next().flatten());
        // An answer that was lost was asked for again.
        if answer.succeeded || store.is_some_and(|found| found.value == stored) {
            return Ok(());
        }
        let prefix = keys.prefix().to_owned();
        Err(if restore.is_some() { OpenError::Unfinished(prefix) } else { OpenError::Exists(prefix) })
    }

    /// Opens a store that was created.
    pub async fn open(options: EtcdOptions) -> Result<Self, OpenError> {
        Self::open_with(options, Arc::new(SystemClock)).await
    }

    /// Whether etcd is reached so, and lets coffer read and write. Changes nothing, and there need be no store.
    pub async fn check(options: EtcdOptions) -> Result<(), OpenError> {
        let store = Self::connect(options, Arc::new(SystemClock)).await?;
        Ok(store.may_write().await?)
    }

    /// Whether etcd lets coffer read and write: it looks at permissions before it looks whether anything is to be done.
    pub async fn may_write(&self) -> Result<(), Error> {
        let key = || self.0.keys.request("none");
        let never = vec![compare(key(), None, Is::Absent), compare(key(), None, Is::Present)];
        let ask = TxnRequest { compare: never, success: vec![put(key(), Vec::new())], failure: vec![get(key(), 0)] };
        match self.0.cluster.read(SHORT, &ask, txn).await {
            // An alarm is what etcd says first. Reads go on.
            Err(Error::Unavailable(why)) if why.ends_with(CORRUPT) => Ok(()),
            Ok(_) | Err(Error::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn open_with(options: EtcdOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = Self::connect(options, clock).await?;
        let seen = store.look_again().await?;
        store.set_stored(seen.stored);
        Ok(store)
    }

    /// A handle, whether there is a store or not.
    pub(super) async fn connect(options: EtcdOptions, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let keys = Keys::new(&options.prefix)?;
        let shared = Shared {
            cluster: Cluster::new(options)?,
            keys,
            clock,
            instance: OnceLock::new(),
            stored: RwLock::new(Stored { instance: [0; 16], epoch: Epoch(0) }),
            slots: Slots::new()?,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            suspect: AtomicBool::new(false),
            is_sweeping: AtomicBool::new(false),
            known: Known::default(),
        };
        version::check(&shared.cluster).await?;
        Ok(Self(Arc::new(shared)))
    }

    /// The head and the store's own record, of now. Whose store the first look shows, that it is from then on.
    pub(super) async fn look(&self) -> Result<Seen, OpenError> {
        let seen = self.look_for_now().await.map_err(|error| match error {
            OpenError::Store(_) => error,
            error if self.instance().is_some() => self.for_now(error.into()).into(),
            error => error,
        })?;
        self.0.instance.get_or_init(|| seen.stored.instance);
        Ok(seen)
    }

    async fn look_for_now(&self) -> Result<Seen, OpenError> {
        let keys = &self.0.keys;
        let success = vec![get(keys.head(), 0), get(keys.store(), 0), get(keys.restore(), 0)];
        let answer = self.read_ours(SHORT, success).await?;
        let found: Vec<_> = answer.responses.iter().filter_map(first).collect();
        let [head, stored, restore] = found[..] else { return Err(malformed().into()) };
        let (Some(head), Some(stored)) = (head, stored) else {
            let prefix = keys.prefix().to_owned();
            return Err(if restore.is_some() { OpenError::Unfinished(prefix) } else { OpenError::Missing(prefix) });
        };
        let (of, position, stored) = Head::with(head, stored).map_err(|error| self.for_now(error))?;
        let revision = answer.header.as_ref().ok_or_else(malformed)?.revision;
        Ok(Seen { revision, head: of, head_revision: head.mod_revision, position, stored })
    }
}

pub(super) fn no_randomness(_: getrandom::Error) -> Error {
    Error::Unavailable("the system gives no randomness".into())
}

/// A new instance.
pub(super) fn random() -> Result<[u8; 16], Error> {
    Ok(TransactionId::random().map_err(no_randomness)?.0)
}
