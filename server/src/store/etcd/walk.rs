//! Which range of keys to read next.
//!
//! etcd visits every key of a range, however few of them it answers: a page of 500,000 keys takes it 0.2 s. So a page is asked
//! of a range that is not much larger than itself: the keys that begin as all of the last page did.

use super::keys::Range;

/// A walk through all keys of a range, in order.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// The first key still to be seen.
    from: Vec<u8>,
    end: Vec<u8>,
    /// How many bytes of `from` all keys of the next range begin with; as many as of the whole range, or more.
    shared: usize,
    /// Of the whole range.
    shared_min: usize,
    /// Whether the next range is the first of those that begin so.
    is_new: bool,
}

impl Walk {
    /// Through all keys that begin so.
    pub(super) fn below(prefix: Vec<u8>) -> Self {
        let shared = prefix.len();
        let Range { from, end } = Range::below(prefix);
        Self { from, end, shared, shared_min: shared, is_new: true }
    }

    /// The range to read next; `None` at the end.
    pub(super) fn range(&self) -> Option<Range> {
        (self.from < self.end).then(|| Range { from: self.from.clone(), end: self.bound() })
    }

    /// What was read of it: its first keys, and whether it has more.
    pub(super) fn seen<'a>(&mut self, keys: impl DoubleEndedIterator<Item = &'a [u8]>, has_more: bool) {
        let mut keys = keys;
        let (first, last) = (keys.next(), keys.next_back());
        match last.or(first) {
            Some(last) if has_more => {
                let alike = first.unwrap_or(last).iter().zip(last).take_while(|(one, other)| one == other).count();
                self.shared = alike.max(self.shared_min);
                self.from = [last, &[0]].concat();
                self.is_new = false;
            }
            _ => {
                self.from = self.bound();
                // The next ones of the same length are as many, about; where that is less than a page, more are wanted.
                self.shared = self.from.len().saturating_sub(usize::from(self.is_new)).max(self.shared_min);
                self.is_new = true;
            }
        }
    }

    fn bound(&self) -> Vec<u8> {
        if self.shared <= self.shared_min {
            return self.end.clone();
        }
        Range::below(self.from[..self.shared].to_vec()).end
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Reads through a set of keys as etcd would; also how many keys the ranges held in all, and how many there were.
    fn walk(keys: &BTreeSet<Vec<u8>>, limit: usize) -> (Vec<Vec<u8>>, usize, usize) {
        let mut walk = Walk::below(b"r/".to_vec());
        let (mut read, mut visited, mut ranges) = (Vec::new(), 0, 0);
        while let Some(Range { from, end }) = walk.range() {
            let held: Vec<_> = keys.range(from..end).cloned().collect();
            visited += held.len();
            ranges += 1;
            let page = &held[..held.len().min(limit)];
            walk.seen(page.iter().map(Vec::as_slice), page.len() < held.len());
            read.extend_from_slice(page);
        }
        (read, visited, ranges)
    }

    proptest! {
        #[test]
        fn every_key_is_read_once_in_order(
            keys in proptest::collection::btree_set("(a|b|c|/|é|\\x00){0,6}", 0..200),
            limit in 1_usize..20,
        ) {
            let keys: BTreeSet<_> = keys.into_iter().map(|key| format!("r/{key}").into_bytes()).collect();
            let (read, ..) = walk(&keys, limit);
            prop_assert!(read.iter().eq(&keys));
        }
    }

    #[test]
    fn ranges_are_not_much_larger_than_pages() {
        let key = |at: u32| format!("r/secret/accounts/{:08x}:NAME", at.wrapping_mul(0x9e37_79b9)).into_bytes();
        let keys: BTreeSet<_> = (0..20_000).map(key).collect();
        let (read, visited, ranges) = walk(&keys, 100);
        assert!(read.iter().eq(&keys));
        // In ranges to the end it would be two million in 200.
        assert!(visited < 10 * keys.len() && ranges < 600, "{visited} in {ranges}");
    }
}
