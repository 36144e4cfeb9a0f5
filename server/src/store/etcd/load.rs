//! Everything, of one revision of etcd, a page at a time.

use std::time::Duration;

use async_trait::async_trait;
use coffer_proto::etcd::{KeyValue, RangeRequest};

use super::{
    Etcd,
    connect::{self, Wait},
    head::{Head, Stored, revision},
    walk::Walk,
};
use crate::store::{Error, Load, Position, RECORD_BYTES, Record};

/// For a page: etcd may have to read it from disk.
const PAGE_WAIT: Wait = Wait { member_max: Duration::from_secs(5), total_max: Duration::from_secs(30) };
/// Fewest records asked for at once: as many of the largest are about a page.
const LIMIT_MIN: i64 = 16;
/// Most records asked for at once. Should all of them turn out to be of the largest size, they are 48 MiB.
const LIMIT_MAX: i64 = 512;
/// More records are asked for when the last ones had less than this, in bytes.
const ANSWER_BYTES: usize = 512 * 1024;
/// A page ends when it has this many bytes.
const PAGE_BYTES: usize = 1 << 20;

/// A load under way.
pub(super) struct Pages {
    store: Etcd,
    pub(super) head: Head,
    pub(super) stored: Stored,
    position: Position,
    /// The revision that all pages are of; nothing of the store was written between the position and it.
    revision: i64,
    walk: Walk,
    limit: i64,
    /// What was read and is still to be given.
    read: std::vec::IntoIter<KeyValue>,
}

impl Etcd {
    /// Begins a load. Commits of this handle count on what it found from now on.
    pub(super) async fn pages(&self) -> Result<Pages, Error> {
        let seen = self.look_again().await?;
        self.set_stored(seen.stored);
        Ok(Pages {
            store: self.clone(),
            head: seen.head,
            stored: seen.stored.1,
            position: seen.position,
            revision: seen.revision,
            walk: Walk::below(self.0.keys.records().from),
            limit: LIMIT_MIN,
            read: Vec::new().into_iter(),
        })
    }
}

#[async_trait]
impl Load for Pages {
    fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        let mut page = Vec::new();
        let mut bytes = 0;
        loop {
            for key in self.read.by_ref() {
                if let Some(record) = self.store.record(key) {
                    bytes += record.key.as_str().len() + record.value.len();
                    page.push(record);
                }
                if bytes >= PAGE_BYTES {
                    return Ok(Some(page));
                }
            }
            if !page.is_empty() {
                return Ok(Some(page));
            }
            if !self.fetch().await? {
                return Ok(None);
            }
        }
    }
}

impl Pages {
    /// The same from the beginning.
    pub(super) fn again(&self) -> Self {
        Self {
            store: self.store.clone(),
            walk: Walk::below(self.store.0.keys.records().from),
            limit: LIMIT_MIN,
            read: Vec::new().into_iter(),
            ..*self
        }
    }

    /// Reads on; whether there was anything left to read.
    async fn fetch(&mut self) -> Result<bool, Error> {
        let Some(range) = self.walk.range() else { return Ok(false) };
        let request = RangeRequest {
            key: range.from,
            range_end: range.end,
            limit: self.limit,
            revision: self.revision,
            ..RangeRequest::default()
        };
        let answer = self.store.0.cluster.read(PAGE_WAIT, &request, connect::range).await?;
        let bytes: usize = answer.kvs.iter().map(|key| key.key.len() + key.value.len()).sum();
        if bytes < ANSWER_BYTES {
            self.limit = (self.limit * 2).min(LIMIT_MAX);
        } else if bytes > 2 * ANSWER_BYTES {
            self.limit = (self.limit / 2).max(LIMIT_MIN);
        }
        self.walk.seen(answer.kvs.iter().map(|key| key.key.as_slice()), answer.more);
        self.read = answer.kvs.into_iter();
        Ok(true)
    }
}

impl Etcd {
    /// A record as etcd has it. What cannot be one of ours is left out, and said.
    pub(super) fn record(&self, key: KeyValue) -> Option<Record> {
        let Some(name) = self.0.keys.parse(&key.key).filter(|_| key.value.len() <= RECORD_BYTES) else {
            tracing::error!(key = %String::from_utf8_lossy(&key.key), "etcd has a key among coffer's that coffer did not put");
            return None;
        };
        Some(Record { key: name, value: key.value.into(), revision: revision(key.mod_revision) })
    }
}
