//! The store as it is now, for whoever only looks at it.

use std::sync::Arc;

use async_trait::async_trait;
use coffer_proto::etcd::RangeRequest;

use super::{
    Etcd, EtcdOptions, OpenError,
    connect::{self, Wait},
    load::{PAGE_WAIT, Records},
};
use crate::{
    clock::SystemClock,
    store::{Error, Load, Millis, Moment, Position, Record},
};

/// For a count: etcd visits every key.
const COUNT_WAIT: Wait = PAGE_WAIT;

/// All records of one revision. Every other key among them is refused, and so is what was put since the last transaction.
struct Seen {
    store: Etcd,
    /// The revision to read.
    revision: i64,
    position: Position,
    time: Millis,
    about: u64,
}

impl Etcd {
    /// A store as it is now, whether servers have it open or not. Changes nothing. etcd keeps what is read unless it is
    /// compacted meanwhile: then loading it fails.
    pub async fn moment(options: EtcdOptions) -> Result<impl Moment + use<>, OpenError> {
        let store = Self::connect(options, Arc::new(SystemClock)).await?;
        let seen = store.look().await?;
        let (position, revision) = (seen.position, seen.revision);
        let records = store.0.keys.records();
        let count = RangeRequest {
            key: records.from,
            range_end: records.end,
            revision,
            count_only: true,
            ..RangeRequest::default()
        };
        let about = store.0.cluster.read(COUNT_WAIT, &count, connect::range).await?.count.unsigned_abs();
        Ok(Seen { store, revision, position, time: seen.head.time, about })
    }
}

impl Moment for Seen {
    fn position(&self) -> Position {
        self.position
    }

    fn time(&self) -> Millis {
        self.time
    }

    fn about(&self) -> u64 {
        self.about
    }

    fn load(&self) -> Box<dyn Load> {
        Box::new(Strict::of(&self.store, self.revision, self.position))
    }
}

/// A load that refuses what coffer did not put.
pub(super) struct Strict {
    position: Position,
    records: Records,
}

impl Strict {
    /// Of a revision of etcd; nothing was put after the position.
    pub(super) fn of(store: &Etcd, revision: i64, position: Position) -> Self {
        Self { position, records: Records::of(store, revision, Some(position.revision)) }
    }
}

#[async_trait]
impl Load for Strict {
    fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        self.records.page().await
    }
}
