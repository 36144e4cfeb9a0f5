//! Pages: how lists are cut, and where the next one begins.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coffer_proto::limits;
use sha2::{Digest as _, Sha256};

use super::Error;

/// Longest page token read, in bytes: a key and its digest, encoded.
const TOKEN_BYTES_MAX: usize = 2_048;
const DIGEST: usize = 8;

/// Which page a caller asks for.
#[derive(Clone, Debug)]
pub struct PageRequest {
    size: usize,
    after: String,
    call: [u8; DIGEST],
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its entries.
    pub entries: Vec<T>,
    /// For the next page; empty after the last.
    pub next: String,
}

impl PageRequest {
    /// Reads what a request gives. `fields` are all other fields of the request, so that a token is of use only in the
    /// call it is from. A token proves nothing and permits nothing: each page is decided anew.
    pub fn new(method: &str, fields: &[&str], page_size: i32, page_token: &str) -> Result<Self, Error> {
        let size = match usize::try_from(page_size) {
            Ok(0) => limits::PAGE_ENTRIES_DEFAULT,
            Ok(size) => size.min(limits::PAGE_ENTRIES),
            Err(_) => return Err(Error::field("page_size", "must not be negative")),
        };
        let call = digest(method, fields);
        let after =
            if page_token.is_empty() { String::new() } else { read(page_token, call).ok_or(Error::PageToken)? };
        Ok(Self { size, after, call })
    }

    /// Entries come after this key; empty at the beginning.
    pub fn after(&self) -> &str {
        &self.after
    }

    /// Takes a page from entries in order: each with its key and its size in bytes.
    pub fn take<T>(&self, entries: impl Iterator<Item = (String, usize, T)>) -> Page<T> {
        self.scan(entries.map(|(key, size, entry)| (key, Some((size, entry)))))
    }

    /// Takes a page from what is looked at, in order: each with its key, and with its size and entry if it is one. Ends
    /// after [`limits::PAGE_SCANNED`] looks, so that no page costs more, however few its entries are.
    pub fn scan<T>(&self, looks: impl Iterator<Item = (String, Option<(usize, T)>)>) -> Page<T> {
        self.scan_part(looks, false)
    }

    /// The same, of looks that are only the first ones if `goes_on`.
    pub fn scan_part<T>(&self, looks: impl Iterator<Item = (String, Option<(usize, T)>)>, goes_on: bool) -> Page<T> {
        let mut page = Page { entries: Vec::new(), next: String::new() };
        let mut last = String::new();
        let (mut bytes, mut scanned) = (0, 0);
        for (key, entry) in looks {
            let size = entry.as_ref().map_or(0, |(size, _)| *size);
            let is_full = entry.is_some() && page.entries.len() == self.size;
            let is_large = bytes + size > limits::PAGE_BYTES && !page.entries.is_empty();
            if is_full || is_large || scanned == limits::PAGE_SCANNED {
                page.next = self.token(&last);
                return page;
            }
            scanned += 1;
            bytes += size;
            last = key;
            page.entries.extend(entry.map(|(_, entry)| entry));
        }
        if goes_on {
            page.next = self.token(&last);
        }
        page
    }

    fn token(&self, after: &str) -> String {
        let mut bytes = self.call.to_vec();
        bytes.extend_from_slice(after.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn try_map<U, E>(self, map: impl FnMut(T) -> Result<U, E>) -> Result<Page<U>, E> {
        let entries = self.entries.into_iter().map(map).collect::<Result<_, E>>()?;
        Ok(Page { entries, next: self.next })
    }
}

fn digest(method: &str, fields: &[&str]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&method).chain(fields) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&hash.finalize()[..DIGEST]);
    digest
}

fn read(token: &str, call: [u8; DIGEST]) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (of, after) = bytes.split_first_chunk::<DIGEST>()?;
    let after = std::str::from_utf8(after).ok()?;
    (*of == call && !after.is_empty()).then(|| after.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(fields: &[&str], size: i32, token: &str) -> Result<PageRequest, Error> {
        PageRequest::new("List", fields, size, token)
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        let all: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let request = request(&["p"], 3, &token).expect("a good token");
            let rest = all.iter().filter(|key| key.as_str() > request.after());
            let page = request.take(rest.map(|key| (key.clone(), 1, key.clone())));
            assert!(page.entries.len() <= 3);
            seen.extend(page.entries);
            token = page.next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_page_ends_at_its_size_but_always_has_one_entry() {
        let request = request(&[], 0, "").expect("good");
        let large = |n: usize| (0..n).map(|n| (format!("{n}"), limits::PAGE_BYTES, n));
        assert_eq!(request.take(large(3)).entries, [0]);
        assert!(request.take(large(1)).next.is_empty());
    }

    #[test]
    fn a_page_ends_after_so_many_looks_and_the_next_goes_on_there() {
        let hidden = limits::PAGE_SCANNED + 10;
        let looks = |after: &str| {
            let from = after.strip_prefix('k').map_or(0, |n| n.parse::<usize>().expect("a number") + 1);
            (from..=hidden).map(move |n| (format!("k{n}"), (n == hidden).then_some((1, n))))
        };
        let first = request(&[], 5, "").expect("good").scan(looks(""));
        assert!(first.entries.is_empty() && !first.next.is_empty());
        let second = request(&[], 5, &first.next).expect("good");
        assert_eq!(second.scan(looks(second.after())).entries, [hidden]);
    }

    #[test]
    fn a_token_is_of_use_in_its_own_call_only() {
        let page = request(&["a", "b"], 1, "").expect("good").take((0..2).map(|n| (format!("k{n}"), 1, n)));
        assert!(request(&["a", "b"], 9, &page.next).is_ok(), "the size may change");
        assert_eq!(request(&["a", "c"], 1, &page.next).expect_err("other fields"), Error::PageToken);
        assert_eq!(request(&["ab", ""], 1, &page.next).expect_err("other fields"), Error::PageToken);
        assert_eq!(PageRequest::new("Other", &["a", "b"], 1, &page.next).expect_err("other"), Error::PageToken);
        assert!(matches!(request(&[], -1, ""), Err(Error::Invalid { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_a_key(token in "\\PC{1,60}") {
            prop_assert!(request(&["a"], 1, &token).is_err());
        }
    }
}
