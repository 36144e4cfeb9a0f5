//! Removes what handles left behind that are gone.
//!
//! A record of attempts is nobody's when it stood unchanged for long while this process looked on: what other machines take
//! for the time does not count. Only who has written sweeps, and so has the key to the store.

use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use coffer_proto::etcd::{RangeRequest, TxnRequest, response_op::Response as Done};
use tokio::time::sleep;

use super::{
    Etcd, Shared,
    connect::SHORT,
    error::Failure,
    transaction::{Is, compare, delete, malformed, read},
};
use crate::store::Error;

/// Records of attempts unchanged for so long are nobody's: no call takes as long, and nothing is on its way for as long.
/// A handle that was idle makes its records anew.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Most records looked at. There are as many as a handle has transactions under way at most; a server has one handle.
const LOOKED_AT_MAX: i64 = 1_000;

/// Records of attempts, and where each stood.
pub(super) type Stood = HashMap<Vec<u8>, i64>;

impl Etcd {
    /// Sweeps from now on, in a task that ends with the store.
    pub(super) fn begin_to_sweep(&self) {
        if !self.0.is_sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(keep_sweeping(Arc::downgrade(&self.0)));
        }
    }

    /// Removes the records of attempts that stand where they stood. Where the others stand now.
    pub(super) async fn sweep(&self, stood: &Stood) -> Result<Stood, Error> {
        let requests = self.0.keys.requests();
        let look = RangeRequest {
            key: requests.from,
            range_end: requests.end,
            limit: LOOKED_AT_MAX,
            ..RangeRequest::default()
        };
        let answer = self.read_ours(SHORT, vec![read(look)]).await?;
        let Some(Done::ResponseRange(found)) = answer.responses.into_iter().find_map(|done| done.response) else {
            return Err(malformed());
        };
        let (old, stand): (Vec<_>, Vec<_>) = found
            .kvs
            .into_iter()
            .map(|record| (record.key, record.mod_revision))
            .partition(|(key, revision)| stood.get(key) == Some(revision));
        for (key, revision) in old {
            let remove = TxnRequest {
                compare: vec![compare(key.clone(), None, Is::Revision(revision))],
                success: vec![delete(key, Vec::new())],
                failure: Vec::new(),
            };
            self.ask_ours(SHORT, remove).await.map_err(Failure::unread)?;
        }
        Ok(stand.into_iter().collect())
    }
}

async fn keep_sweeping(store: Weak<Shared>) {
    let mut stood = Stood::new();
    loop {
        let Some(store) = store.upgrade().map(Etcd) else { return };
        match store.sweep(&stood).await {
            Ok(stand) => stood = stand,
            Err(error) => tracing::warn!(%error, "what other servers left behind in etcd cannot be removed now"),
        }
        drop(store);
        sleep(KEPT).await;
    }
}
