//! Ids of tokens and grants that are given by their first characters, as git takes commits.

use crate::failure::Failure;

/// Characters that are enough to name one, if no other begins so.
const PREFIX_CHARS_MIN: usize = 4;
/// Names that are shown of those that begin so.
const NAMES_SHOWN: usize = 5;

/// A collection whose members have ids that the server draws.
pub(super) struct Collection {
    /// Before the id in a name: `tokens/`.
    pub(super) name: &'static str,
    /// For messages.
    pub(super) one: &'static str,
    /// Characters of a whole id.
    pub(super) id_chars: usize,
    /// The command that lists them.
    pub(super) list: &'static str,
}

impl Collection {
    /// The name that was given, if it is a whole one.
    pub(super) fn whole(&self, given: &str) -> Option<String> {
        let id = self.id(given);
        (id.len() >= self.id_chars).then(|| format!("{}{id}", self.name))
    }

    /// Refuses what is no beginning of an id, before a server is asked.
    pub(super) fn check(&self, given: &str) -> Result<(), Failure> {
        let id = self.id(given);
        if id.len() >= PREFIX_CHARS_MIN && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(());
        }
        let (name, least) = (self.name, PREFIX_CHARS_MIN);
        let text =
            format!("must be {name}ID, or at least the first {least} characters of the ID, as {} shows it", self.list);
        Err(Failure::usage(text))
    }

    /// The one of the names that begins as given.
    pub(super) fn only<'a>(&self, given: &str, names: impl Iterator<Item = &'a str>) -> Result<&'a str, Failure> {
        // What was given is not repeated: it may be a value in the wrong place.
        let start = format!("{}{}", self.name, self.id(given));
        let found: Vec<&str> = names.filter(|name| name.starts_with(&start)).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(Failure::not_found(format!("no {} that you may end begins so", self.one))
                .hint(format!("{} shows those that you may", self.list))),
            several => {
                let shown = several.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
                let more = several.len().saturating_sub(NAMES_SHOWN);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                Err(Failure::usage(format!("several begin so: {shown}{more}")).hint("give more of the ID"))
            }
        }
    }

    fn id<'a>(&self, given: &'a str) -> &'a str {
        given.strip_prefix(self.name).unwrap_or(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    const TOKENS: Collection = Collection { name: "tokens/", one: "token", id_chars: 8, list: "coffer token list" };
    const NAMES: [&str; 3] = ["tokens/abcdefgh", "tokens/abcdxxxx", "tokens/ABCDEFGH"];

    #[test]
    fn a_prefix_names_one_or_nothing() {
        let only = |given: &str| TOKENS.only(given, NAMES.into_iter());
        assert_eq!(only("abcde").expect("one"), "tokens/abcdefgh");
        assert_eq!(only("tokens/ABCD").expect("one"), "tokens/ABCDEFGH");
        let several = only("tokens/abcd").expect_err("two");
        assert_eq!(several.exit(), Exit::Usage);
        assert_eq!(several.message(), "several begin so: tokens/abcdefgh, tokens/abcdxxxx");
        assert_eq!(only("zzzz").expect_err("none").exit(), Exit::NotFound);
    }

    #[test]
    fn whole_ids_ask_nobody_and_short_ones_are_refused() {
        assert_eq!(TOKENS.whole("abcdefgh").as_deref(), Some("tokens/abcdefgh"));
        assert_eq!(TOKENS.whole("tokens/abcdefgh").as_deref(), Some("tokens/abcdefgh"));
        assert_eq!(TOKENS.whole("tokens/abcdefg"), None);
        assert!(TOKENS.check("abcd").is_ok());
        for bad in ["", "tokens/", "abc", "tokens/abc", "a/bcd", "grants/abcdef", "users/ann"] {
            assert_eq!(TOKENS.check(bad).expect_err("refused").exit(), Exit::Usage, "{bad}");
        }
    }
}
