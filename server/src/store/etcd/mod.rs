//! The store on an etcd cluster, which several servers share. etcd 3.4.20 or later.
//!
//! ```text
//!   commit ─► attempt ─► one transaction of etcd: expectations, changes, the attempt's record, the head
//!                └─ answer lost ─► settle: put the attempt's record as given up, or read that it landed
//!   changes ◄─ watch ─ of head and records; the head's event ends a transaction
//!   latest, load ─ linearizable reads of the head, and pages at one revision
//! ```
//! A position's revision is etcd's own, of the transaction that put the head last. What else lives in the cluster does no
//! harm: it raises revisions, and these may have gaps.
//!
//! Every wait has its limit beside what waits. Where etcd has no majority, a transaction that was not sent yet is refused
//! within two seconds; of one that was sent, nobody can know, and that is said.

mod advice;
mod assemble;
mod auth;
mod backup;
mod commit;
mod condition;
mod connect;
mod epoch;
mod error;
mod follow;
mod head;
mod history;
mod keys;
mod load;
mod moment;
mod net;
mod open;
mod ours;
mod request;
mod restore;
mod soonest;
mod sweep;
#[cfg(test)]
mod tests;
mod transaction;
mod version;
mod walk;

use std::{
    sync::{Arc, OnceLock, PoisonError, RwLock, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use self::{
    connect::Cluster,
    epoch::Known,
    follow::Follower,
    head::{Head, Stored},
    keys::Keys,
    request::Slots,
    transaction::{first, get, malformed},
};
use super::{Backup, Condition, Conflict, Error, Follow, Load, Position, Snapshot, Store, Transaction};
use crate::clock::Clock;

pub use self::{history::Recorded, keys::PREFIX_BYTES_MAX, open::OpenError, restore::RestoreError};

/// Most transactions under way from one server.
const IN_FLIGHT_MAX: usize = 64;

/// For the position that reads wait for. Calls wait half a second of it; the rest is for who sees whether etcd is back.
const LATEST_MAX: Duration = Duration::from_secs(2);

/// Where the store is, and how it is reached.
pub struct EtcdOptions {
    /// The members' addresses, `https://host:port`, or `http://host:port` for one that is reached without TLS.
    pub endpoints: Vec<String>,
    /// What every key begins with. Printable ASCII that ends with `/`, at most [`PREFIX_BYTES_MAX`] bytes.
    pub prefix: String,
    /// For `https` addresses, and needed for them.
    pub tls: Option<Tls>,
    /// Who coffer is to etcd, if etcd asks and no client certificate says it.
    pub user: Option<User>,
}

/// Whom to trust, and who coffer is to etcd.
pub struct Tls {
    /// Certificates of those who may sign etcd's, in PEM.
    pub ca: Vec<u8>,
    /// Coffer's own certificate.
    pub identity: Option<Identity>,
    /// The name in etcd's certificates, if it is not that of the address.
    pub name: Option<String>,
}

/// A certificate and its key.
pub struct Identity {
    /// The certificate, and those between it and a trusted one, in PEM.
    pub certificate: Vec<u8>,
    /// Its key, in PEM.
    pub key: Zeroizing<Vec<u8>>,
}

/// A user of etcd.
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Zeroizing<String>,
}

/// A store in etcd. Clones are handles of one store.
#[derive(Clone)]
pub struct Etcd(Arc<Shared>);

struct Shared {
    cluster: Cluster,
    keys: Keys,
    clock: Arc<dyn Clock>,
    /// Whose store it is, once it was seen.
    instance: OnceLock<[u8; 16]>,
    /// The store's own record, as the last load found it. Commits count on it.
    stored: RwLock<Stored>,
    slots: Slots,
    in_flight: Semaphore,
    /// Whether an answer was lost and none came since.
    suspect: AtomicBool,
    is_sweeping: AtomicBool,
    known: Known,
}

/// What one linearizable look at the store shows.
struct Seen {
    /// The revision of etcd it is of.
    revision: i64,
    head: Head,
    head_revision: i64,
    position: Position,
    stored: Stored,
}

impl Etcd {
    /// From now on reaches etcd by the certificates and as the user of these options, whose addresses and prefix do not
    /// count. What is under way goes on as it began.
    pub async fn renew(&self, EtcdOptions { tls, user, .. }: EtcdOptions) -> Result<(), Error> {
        self.0.cluster.renew(tls.as_ref(), user).await
    }

    /// Where the store stands, by one linearizable read.
    async fn newest(&self, total_max: Duration) -> Result<Position, Error> {
        let floor = self.floor();
        let keys = &self.0.keys;
        let answer = self.read_soonest(total_max, vec![get(keys.head(), 0), get(keys.store(), 0)]).await?;
        let found: Vec<_> = answer.responses.iter().filter_map(first).collect();
        let [head, stored] = found[..] else { return Err(malformed()) };
        let standing =
            head.zip(stored).ok_or_else(|| self.absent()).and_then(|(head, stored)| Head::with(head, stored));
        let (_, position, _) = standing.map_err(|error| self.for_now(error))?;
        self.check_at(floor, position)
    }

    fn absent(&self) -> Error {
        OpenError::Missing(self.0.keys.prefix().to_owned()).into()
    }

    fn stored(&self) -> Stored {
        *self.0.stored.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on commits count on this, unless it is of an epoch that is over: a look may end after a later one.
    fn set_stored(&self, stored: Stored) {
        let mut known = self.0.stored.write().unwrap_or_else(PoisonError::into_inner);
        if stored.epoch >= known.epoch {
            *known = stored;
        }
    }
}

/// Another server of the same store may keep one.
fn no_history() -> Error {
    Error::NoHistory(
        "this server keeps no history: `etcd.history` in its configuration names a directory for it".into(),
    )
}

#[async_trait]
impl Store for Etcd {
    /// Fails if etcd is compacted beyond its revision before it is done.
    async fn load(&self) -> Result<Box<dyn Load>, Error> {
        let seen = self.look_again().await?;
        self.set_stored(seen.stored);
        Ok(Box::new(self.pages_of(&seen)))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, Error> {
        self.transact(&transaction).await
    }

    /// A follower tells what a transaction came to: each record that is gone by itself, and nothing of what another
    /// change of the same transaction undid.
    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, Error> {
        Ok(Box::new(Follower::new(self.clone(), after, None)))
    }

    async fn latest(&self) -> Result<Position, Error> {
        self.newest(LATEST_MAX).await
    }

    async fn condition(&self) -> Condition {
        self.look_at_condition().await
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        Err(no_history())
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        Err(no_history())
    }

    async fn backup(&self) -> Result<Backup, Error> {
        self.back_up().await
    }
}
