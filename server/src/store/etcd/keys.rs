//! Where things stand in etcd. Everything of one store is below its prefix:
//!
//! ```text
//!   {prefix}head               rewritten by every transaction; its revision is the store's
//!   {prefix}r/{record's key}   a record: its sealed bytes as they are
//!   {prefix}restore            stands while a restore is under way; then there is no store yet
//!   {prefix}store              whose it is, and of which epoch; rewritten when that rises
//!   {prefix}t/{session}/{n}    what became of a server's last transaction that used this record
//! ```
//! Followers watch one range, from `head` to the end of `r/`. Nothing else of the store sorts in between.

use coffer_proto::etcd::Compare;

use super::transaction::{Is, compare};
use crate::store::{Error, Key};

/// Longest prefix, in bytes: every key of a transaction carries it.
pub const PREFIX_BYTES_MAX: usize = 64;

/// The keys of one store.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// Keys from the first to the one before the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Keys {
    /// A store's, if the prefix can be one: printable ASCII that ends with `/`.
    pub(super) fn new(prefix: &str) -> Result<Self, Error> {
        let printable = prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.ends_with('/') || !printable {
            return Err(Error::Invalid(format!(
                "the prefix {prefix:?}: printable ASCII that ends with /, at most {PREFIX_BYTES_MAX} bytes"
            )));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn head(&self) -> Vec<u8> {
        self.at("head")
    }

    pub(super) fn store(&self) -> Vec<u8> {
        self.at("store")
    }

    pub(super) fn restore(&self) -> Vec<u8> {
        self.at("restore")
    }

    pub(super) fn request(&self, name: &str) -> Vec<u8> {
        self.at(&format!("t/{name}"))
    }

    pub(super) fn record(&self, key: &str) -> Vec<u8> {
        self.at(&format!("r/{key}"))
    }

    /// What must hold where a store is to be made: there is nothing below the prefix, and these keys would be among those
    /// of no other store.
    pub(super) fn vacant(&self) -> Vec<Compare> {
        let all = self.all();
        let above = self.stores_above().map(|above| compare(above, None, Is::Absent));
        std::iter::once(compare(all.from, Some(all.end), Is::Absent)).chain(above).collect()
    }

    /// What a store has of itself whose records these keys would be among, also while it is restored.
    fn stores_above(&self) -> impl Iterator<Item = Vec<u8>> {
        let ends = self.prefix.match_indices('/').map(|(at, _)| at + 1).filter(|end| *end < self.prefix.len());
        ends.flat_map(|end| ["store", "restore"].map(|name| format!("{}{name}", &self.prefix[..end]).into_bytes()))
    }

    /// Every key of the store.
    pub(super) fn all(&self) -> Range {
        Range::below(self.prefix.clone().into_bytes())
    }

    /// What became of transactions.
    pub(super) fn requests(&self) -> Range {
        Range::below(self.at("t/"))
    }

    /// All records.
    pub(super) fn records(&self) -> Range {
        Range::below(self.at("r/"))
    }

    /// The records whose keys begin so.
    pub(super) fn records_below(&self, prefix: &str) -> Range {
        Range::below(self.record(prefix))
    }

    /// What followers watch.
    pub(super) fn watched(&self) -> Range {
        Range { from: self.head(), end: self.records().end }
    }

    /// The record that a key of etcd names; `None` for what no store of ours puts there.
    pub(super) fn parse(&self, key: &[u8]) -> Option<Key> {
        let key = key.strip_prefix(self.at("r/").as_slice())?;
        std::str::from_utf8(key).ok().filter(|key| !key.is_empty()).map(Key::new)
    }

    fn at(&self, rest: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), rest.as_bytes()].concat()
    }
}

impl Range {
    /// All that begin so. A byte of 255, which only others have in their keys, cannot be raised; the one before it is.
    pub(super) fn below(prefix: Vec<u8>) -> Self {
        let mut end = prefix.clone();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { from: prefix, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_the_head_and_the_records_alone() {
        let keys = Keys::new("coffer/").expect("a prefix");
        let Range { from, end } = keys.watched();
        let watched = |key: Vec<u8>| from <= key && key < end;
        assert!(watched(keys.head()) && watched(keys.record("a")) && watched(keys.record("\u{10ffff}")));
        assert!(!watched(keys.store()) && !watched(keys.restore()) && !watched(keys.request("00")));
        assert_eq!(keys.parse(&keys.record("scope/é")), Some(Key::new("scope/é")));
        for foreign in [&b"coffer/r/"[..], b"coffer/r/\xff", b"coffer/head", b"coffer2/r/a", b""] {
            assert_eq!(keys.parse(foreign), None);
        }
    }

    #[test]
    fn a_store_is_never_within_another() {
        let above = |prefix| Keys::new(prefix).expect("a prefix").stores_above().collect::<Vec<_>>();
        assert_eq!(above("coffer/"), Vec::<Vec<u8>>::new());
        assert_eq!(above("/a/bc/"), [&b"/store"[..], b"/restore", b"/a/store", b"/a/restore"]);
    }

    #[test]
    fn a_prefix_is_printable_short_and_ends_with_a_slash() {
        for prefix in ["", "coffer", "a b/", "é/", "\0/", &format!("{}/", "x".repeat(PREFIX_BYTES_MAX))] {
            assert!(matches!(Keys::new(prefix), Err(Error::Invalid(_))), "{prefix:?}");
        }
        assert!(Keys::new("/a/b/").is_ok());
    }
}
