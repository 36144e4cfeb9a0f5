//! Everything, of one revision of etcd, a page at a time.

use std::time::Duration;

use async_trait::async_trait;
use coffer_proto::etcd::{KeyValue, RangeRequest, response_op::Response as Done};

use super::{
    Etcd, Seen,
    connect::Wait,
    head::{Head, Stored, revision},
    transaction::{malformed, read},
    walk::Walk,
};
use crate::{
    escape,
    store::{Error, Load, Position, RECORD_BYTES, Record, Revision},
};

/// For a page: etcd may have to read it from disk.
pub(super) const PAGE_WAIT: Wait = Wait { member_max: Duration::from_secs(5), total_max: Duration::from_secs(30) };
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
    pub(super) head: Head,
    pub(super) stored: Stored,
    position: Position,
    records: Records,
}

/// All records of one revision.
pub(super) struct Records {
    store: Etcd,
    revision: i64,
    /// What is not coffer's own, or was put after this, is refused; otherwise it is left out, and said.
    strict: Option<Revision>,
    walk: Walk,
    limit: i64,
    /// What was read and is still to be given.
    read: std::vec::IntoIter<KeyValue>,
}

impl Etcd {
    /// Begins to read everything, for a copy.
    pub(super) async fn pages(&self) -> Result<Pages, Error> {
        Ok(self.pages_of(&self.look_again().await?))
    }

    /// Everything that a look shows.
    pub(super) fn pages_of(&self, seen: &Seen) -> Pages {
        Pages {
            head: seen.head,
            stored: seen.stored,
            position: seen.position,
            // Nothing of the store was written between the position and this.
            records: Records::of(self, seen.revision, None),
        }
    }
}

#[async_trait]
impl Load for Pages {
    fn position(&self) -> Position {
        self.position
    }

    async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        self.records.page().await
    }
}

impl Pages {
    /// The same from the beginning.
    pub(super) fn again(&self) -> Self {
        let Records { store, revision, strict, .. } = &self.records;
        Self { records: Records::of(store, *revision, *strict), ..*self }
    }
}

impl Records {
    pub(super) fn of(store: &Etcd, revision: i64, strict: Option<Revision>) -> Self {
        let walk = Walk::below(store.0.keys.records().from);
        Self { store: store.clone(), revision, strict, walk, limit: LIMIT_MIN, read: Vec::new().into_iter() }
    }

    /// The next page, or `None` after the last.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        let mut page = Vec::new();
        let mut bytes = 0;
        loop {
            for key in self.read.by_ref() {
                let record = self.store.record(&key);
                match (record, self.strict) {
                    (Some(record), strict) if strict.is_none_or(|last| record.revision <= last) => {
                        bytes += record.key.as_str().len() + record.value.len();
                        page.push(record);
                    }
                    (_, Some(_)) => return Err(Error::Failed(stranger(&key))),
                    (_, None) => tracing::error!("{}; it is left out", stranger(&key)),
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
        let answer = self.store.read_ours(PAGE_WAIT, vec![read(request)]).await?;
        let Some(Done::ResponseRange(answer)) = answer.responses.into_iter().find_map(|done| done.response) else {
            return Err(malformed());
        };
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
    /// A record as etcd has it; `None` if it cannot be one of ours.
    fn record(&self, key: &KeyValue) -> Option<Record> {
        let name = self.0.keys.parse(&key.key).filter(|_| key.value.len() <= RECORD_BYTES)?;
        Some(Record { key: name, value: key.value.as_slice().into(), revision: revision(key.mod_revision) })
    }
}

fn stranger(key: &KeyValue) -> String {
    format!("etcd has the key {} as coffer did not put it", escape::text(&String::from_utf8_lossy(&key.key)))
}
