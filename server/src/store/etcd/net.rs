//! What a transaction comes to. etcd refuses to touch a key twice in one transaction, so a change that a later one undoes
//! is left out, and the range of a prefix delete goes around the keys that are put afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::head::DELETES_UNKNOWN;
use crate::store::{Change, Key};

/// The same as a list of changes in order, without an order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Net<'a> {
    /// Values by keys.
    pub(super) puts: BTreeMap<&'a str, &'a [u8]>,
    /// Keys.
    pub(super) deletes: BTreeSet<&'a str>,
    /// Prefixes, of which none begins with another. What is put below them stays.
    pub(super) prefixes: BTreeSet<&'a str>,
}

impl<'a> Net<'a> {
    pub(super) fn of(changes: &'a [Change]) -> Self {
        let mut net = Self::default();
        for change in changes {
            let key: &'a Key = change.key();
            let key = key.as_str();
            match change {
                Change::Put(_, value) => {
                    net.deletes.remove(key);
                    net.puts.insert(key, value);
                }
                Change::Delete(_) => {
                    net.puts.remove(key);
                    if !net.is_covered(key) {
                        net.deletes.insert(key);
                    }
                }
                Change::DeletePrefix(_) => {
                    net.puts.retain(|other, _| !other.starts_with(key));
                    net.deletes.retain(|other| !other.starts_with(key));
                    net.prefixes.retain(|other| !other.starts_with(key));
                    if !net.is_covered(key) {
                        net.prefixes.insert(key);
                    }
                }
            }
        }
        net
    }

    /// How many deletes etcd tells of it at most.
    pub(super) fn deletes_max(&self) -> u32 {
        if self.prefixes.is_empty() {
            u32::try_from(self.deletes.len()).unwrap_or(DELETES_UNKNOWN)
        } else {
            DELETES_UNKNOWN
        }
    }

    /// The keys that are put below a prefix, in order.
    pub(super) fn puts_below(&self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.puts.range(prefix..).map(|(key, _)| *key).take_while(move |key| key.starts_with(prefix))
    }

    fn is_covered(&self, key: &str) -> bool {
        self.prefixes.range(..=key).next_back().is_some_and(|prefix| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{delete, delete_prefix, put};

    #[test]
    fn a_later_change_wins() {
        let changes = [put("p/3", "gone"), delete("p/1"), delete_prefix("p/"), put("p/2", "new"), delete("p/2/x")];
        let net = Net::of(&changes);
        assert_eq!((net.puts.len(), net.deletes.len(), net.deletes_max()), (1, 0, DELETES_UNKNOWN));
        assert_eq!((net.puts["p/2"], net.prefixes.first()), (&b"new"[..], Some(&"p/")));
        assert_eq!(net.puts_below("p/").collect::<Vec<_>>(), ["p/2"]);

        let changes =
            [put("r", "1"), delete("r"), delete("q"), put("q", "3"), delete_prefix("p/1"), delete_prefix("p")];
        let net = Net::of(&changes);
        assert_eq!(net.puts.keys().collect::<Vec<_>>(), [&"q"]);
        assert_eq!(Net::of(&changes[..4]).deletes_max(), 1);
        assert_eq!(net.deletes.iter().collect::<Vec<_>>(), [&"r"]);
        assert_eq!(net.prefixes.iter().collect::<Vec<_>>(), [&"p"]);
    }
}
