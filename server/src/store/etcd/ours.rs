//! Whose store answers. An address may lead to another etcd, whose store below the same prefix is another one: nothing of
//! that may be taken for this store's, and nothing may be written to it. So whatever is asked is asked of the store of an
//! instance, the one that was seen first, and who has another is passed over like a member that is away.

use std::time::Duration;

use coffer_proto::etcd::{Compare, RequestOp, TxnRequest, TxnResponse};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    Etcd,
    connect::{Wait, txn},
    error::Failure,
    head::Stored,
    transaction::{Is, compare, first, get},
};
use crate::store::Error;

/// What was asked has another store, or none.
#[derive(Debug, thiserror::Error)]
#[error("another store than this server's is below {0}, or none")]
pub(super) struct Foreign(String);

impl Etcd {
    /// Whose store it is, once it was seen.
    pub(super) fn instance(&self) -> Option<[u8; 16]> {
        self.0.instance.get().copied()
    }

    /// What holds of this store only, in whatever epoch.
    fn ours(&self) -> Vec<Compare> {
        let Some((above, below)) = self.instance().map(Stored::of_instance) else { return Vec::new() };
        [Is::Above(above), Is::Below(below)].map(|is| compare(self.0.keys.store(), None, is)).into()
    }

    /// The transaction as it happens to this store or to none.
    fn only_ours(&self, mut request: TxnRequest) -> TxnRequest {
        request.compare.append(&mut self.ours());
        request.failure.insert(0, get(self.0.keys.store(), 0));
        request
    }

    /// A transaction that happens to this store or to none. For calls that may be done twice.
    pub(super) async fn ask_ours(&self, wait: Wait, request: TxnRequest) -> Result<TxnResponse, Failure> {
        let send = |channel, request| self.txn_ours(channel, request);
        let mut answer = self.0.cluster.ask_any(wait, &self.only_ours(request), send).await?;
        if !answer.succeeded && !answer.responses.is_empty() {
            answer.responses.remove(0);
        }
        Ok(answer)
    }

    /// Reads of this store.
    pub(super) async fn read_ours(&self, wait: Wait, success: Vec<RequestOp>) -> Result<TxnResponse, Error> {
        let request = TxnRequest { success, ..TxnRequest::default() };
        self.ask_ours(wait, request).await.map_err(Failure::unread)
    }

    /// The same of what somebody waits for.
    pub(super) async fn read_soonest(
        &self,
        total_max: Duration,
        success: Vec<RequestOp>,
    ) -> Result<TxnResponse, Error> {
        let request = self.only_ours(TxnRequest { success, ..TxnRequest::default() });
        let send = |channel, request| self.txn_ours(channel, request);
        self.0.cluster.read_soonest(total_max, &request, send).await
    }

    /// One sending of a transaction that compares the store's own record, and reads it first if it does not happen.
    pub(super) async fn txn_ours(
        &self,
        channel: Channel,
        request: Request<TxnRequest>,
    ) -> Result<Response<TxnResponse>, Status> {
        let answer = txn(channel, request).await?;
        let Some(instance) = self.instance().filter(|_| !answer.get_ref().succeeded) else { return Ok(answer) };
        let stored = answer.get_ref().responses.first().and_then(first).flatten();
        match stored.map(Stored::of) {
            Some(Ok(stored)) if stored.instance == instance => Ok(answer),
            _ => Err(Status::from_error(Box::new(Foreign(self.0.keys.prefix().to_owned())))),
        }
    }

    /// What makes no sense in etcd is refused where the store is not known yet. Of a store that was seen, it may be put
    /// right at any time.
    pub(super) fn for_now(&self, error: Error) -> Error {
        match error {
            Error::Failed(what) if self.instance().is_some() => Error::Unavailable(what),
            error => error,
        }
    }
}
