//! Pages: how lists are cut, and where the next one begins.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coffer_proto::limits;

use super::Error;
use crate::{
    identity::Caller,
    seal::{Marks, digest::DigestKey},
    view::State,
};

/// Names what marks are used for here.
const PURPOSE: &str = "page";

/// Longest page token read, in bytes: a sealed key, encoded.
const TOKEN_BYTES_MAX: usize = 2_048;

/// Which page a caller asks for, as they say it.
#[derive(Clone, Debug)]
pub struct PageRequest {
    size: usize,
    token: String,
    /// The method and all other fields of the request, each with its length before it.
    call: Vec<u8>,
}

/// Where a page begins, and how the next one is marked.
#[derive(Debug)]
pub struct Pages {
    size: usize,
    after: String,
    marks: Marks,
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
    /// call it is from.
    pub fn new(method: &str, fields: &[&str], page_size: i32, page_token: &str) -> Result<Self, Error> {
        let size = match usize::try_from(page_size) {
            Ok(0) => limits::PAGE_ENTRIES_DEFAULT,
            Ok(size) => size.min(limits::PAGE_ENTRIES),
            Err(_) => return Err(Error::field("page_size", "must not be negative")),
        };
        if page_token.len() > TOKEN_BYTES_MAX {
            return Err(Error::PageToken);
        }
        let mut call = Vec::new();
        for part in std::iter::once(&method).chain(fields) {
            call.extend_from_slice(&(part.len() as u64).to_be_bytes());
            call.extend_from_slice(part.as_bytes());
        }
        Ok(Self { size, token: page_token.to_owned(), call })
    }

    /// Opens the token, which is of use to this caller only. It proves nothing and permits nothing: each page is decided
    /// anew. But a page may end at something that the caller must not know of, so that it is sealed.
    pub fn open(self, state: &State, caller: &Caller) -> Result<Pages, Error> {
        let key = state.digest_key().ok_or_else(|| Error::Internal("no digest key is loaded".into()))?;
        self.open_with(key, &caller.principal().to_string())
    }

    fn open_with(self, key: &DigestKey, principal: &str) -> Result<Pages, Error> {
        let marks = Marks::new(key, [PURPOSE.as_bytes(), principal.as_bytes(), &self.call]);
        let after = match self.token.as_str() {
            "" => String::new(),
            token => {
                let mark = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageToken)?;
                marks.open(&mark).filter(|after| !after.is_empty()).ok_or(Error::PageToken)?
            }
        };
        Ok(Pages { size: self.size, after, marks })
    }
}

impl Pages {
    /// Entries come after this key; empty at the beginning.
    pub fn after(&self) -> &str {
        &self.after
    }

    /// Takes a page from entries in order: each with its key and its size in bytes.
    pub fn take<T>(&self, entries: impl Iterator<Item = (String, usize, T)>) -> Result<Page<T>, Error> {
        self.scan(entries.map(|(key, size, entry)| (key, Some((size, entry)))))
    }

    /// Takes a page from what is looked at, in order: each with its key, and with its size and entry if it is one. Ends
    /// after [`limits::PAGE_SCANNED`] looks, so that no page costs more, however few its entries are.
    pub fn scan<T>(&self, looks: impl Iterator<Item = (String, Option<(usize, T)>)>) -> Result<Page<T>, Error> {
        self.scan_part(looks, false)
    }

    /// The same, of looks that are only the first ones if `goes_on`.
    pub fn scan_part<T>(
        &self,
        looks: impl Iterator<Item = (String, Option<(usize, T)>)>,
        goes_on: bool,
    ) -> Result<Page<T>, Error> {
        let mut page = Page { entries: Vec::new(), next: String::new() };
        let mut last = String::new();
        let (mut bytes, mut scanned) = (0, 0);
        for (key, entry) in looks {
            let size = entry.as_ref().map_or(0, |(size, _)| *size);
            let is_full = entry.is_some() && page.entries.len() == self.size;
            let is_large = bytes + size > limits::PAGE_BYTES && !page.entries.is_empty();
            if is_full || is_large || scanned == limits::PAGE_SCANNED {
                page.next = self.token(&last)?;
                return Ok(page);
            }
            scanned += 1;
            bytes += size;
            last = key;
            page.entries.extend(entry.map(|(_, entry)| entry));
        }
        if goes_on {
            page.next = self.token(&last)?;
        }
        Ok(page)
    }

    fn token(&self, after: &str) -> Result<String, Error> {
        Ok(URL_SAFE_NO_PAD.encode(self.marks.seal(after)?))
    }
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn try_map<U, E>(self, map: impl FnMut(T) -> Result<U, E>) -> Result<Page<U>, E> {
        let entries = self.entries.into_iter().map(map).collect::<Result<_, E>>()?;
        Ok(Page { entries, next: self.next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> DigestKey {
        DigestKey::from_slice(&[7; 32]).expect("a key")
    }

    fn request(fields: &[&str], size: i32, token: &str) -> Result<Pages, Error> {
        PageRequest::new("List", fields, size, token)?.open_with(&key(), "users/a")
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        let all: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let request = request(&["p"], 3, &token).expect("a good token");
            let rest = all.iter().filter(|key| key.as_str() > request.after());
            let page = request.take(rest.map(|key| (key.clone(), 1, key.clone()))).expect("taken");
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
        assert_eq!(request.take(large(3)).expect("taken").entries, [0]);
        assert!(request.take(large(1)).expect("taken").next.is_empty());
    }

    #[test]
    fn a_page_ends_after_so_many_looks_and_the_next_goes_on_there() {
        let hidden = limits::PAGE_SCANNED + 10;
        let looks = |after: &str| {
            let from = after.strip_prefix('k').map_or(0, |n| n.parse::<usize>().expect("a number") + 1);
            (from..=hidden).map(move |n| (format!("k{n}"), (n == hidden).then_some((1, n))))
        };
        let first = request(&[], 5, "").expect("good").scan(looks("")).expect("taken");
        assert!(first.entries.is_empty() && !first.next.is_empty());
        let second = request(&[], 5, &first.next).expect("good");
        assert_eq!(second.scan(looks(second.after())).expect("taken").entries, [hidden]);
    }

    #[test]
    fn a_token_is_of_use_in_its_own_call_only() {
        let page = request(&["a", "b"], 1, "").expect("good").take((0..2).map(|n| (format!("k{n}"), 1, n)));
        let page = page.expect("taken");
        assert!(request(&["a", "b"], 9, &page.next).is_ok(), "the size may change");
        assert_eq!(request(&["a", "c"], 1, &page.next).expect_err("other fields"), Error::PageToken);
        assert_eq!(request(&["ab", ""], 1, &page.next).expect_err("other fields"), Error::PageToken);
        let other = |method, principal: &str| {
            let request = PageRequest::new(method, &["a", "b"], 1, &page.next).expect("a request");
            request.open_with(&key(), principal).map(drop)
        };
        assert_eq!(other("List", "users/a"), Ok(()));
        assert_eq!(other("Other", "users/a"), Err(Error::PageToken));
        assert_eq!(other("List", "users/b"), Err(Error::PageToken), "another caller's");
        assert!(matches!(request(&[], -1, ""), Err(Error::Invalid { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_an_error_or_a_key(token in "\\PC{1,60}") {
            prop_assert!(request(&["a"], 1, &token).is_err());
        }
    }
}
