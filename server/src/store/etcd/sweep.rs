//! Removes what handles left behind that are gone.

use std::time::Duration;

use coffer_proto::etcd::{RangeRequest, TxnRequest};

use super::{
    Etcd,
    connect::{SHORT, range, txn},
    transaction::{Is, compare, delete},
};
use crate::store::{Error, Millis};

/// Records of attempts older than this are nobody's: no call takes as long. A handle that was idle for as long makes its
/// records anew.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most records looked at. There are as many as a handle has transactions under way at most; a server has one handle.
const LOOKED_AT_MAX: i64 = 1_000;
/// Where the time stands in a record.
const TIME_AT: usize = 17;

impl Etcd {
    /// Removes records of attempts that are too old. Whatever fails is left to the next one who opens the store.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        let requests = self.0.keys.requests();
        let look = RangeRequest {
            key: requests.from,
            range_end: requests.end,
            limit: LOOKED_AT_MAX,
            ..RangeRequest::default()
        };
        let found = self.0.cluster.read(SHORT, &look, range).await?.kvs;
        let now = Millis::from(self.0.clock.now());
        for record in found {
            let time = record.value.get(TIME_AT..).and_then(|time| time.first_chunk().copied().map(u64::from_le_bytes));
            let is_old = time.is_some_and(|time| u128::from(now.0.saturating_sub(time)) > KEPT.as_millis());
            if is_old {
                let remove = TxnRequest {
                    compare: vec![compare(record.key.clone(), None, Is::Revision(record.mod_revision))],
                    success: vec![delete(record.key, Vec::new())],
                    failure: Vec::new(),
                };
                self.0.cluster.read(SHORT, &remove, txn).await?;
            }
        }
        Ok(())
    }
}
