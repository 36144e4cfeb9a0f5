//! What of a mistaken command line an error may repeat: errors are kept in logs, where an argument that was meant as a
//! value, a token or a key must not end up.

/// Longest word that is shown, in bytes.
const WORD_BYTES_MAX: usize = 20;
/// Whatever is this short is shown, in bytes: numbers, times.
const SHORT_BYTES_MAX: usize = 4;

/// Stands for what is not shown.
pub const HIDDEN: &str = "…";

/// Whether this is a word, or a resource's name with a mistake in it, and so not likely to be a secret. Names of
/// resources begin with a lower-case collection, those of variables are all upper-case.
///
/// ```
/// use coffer_proto::misplaced::may_show;
///
/// assert!(may_show("--lmit") && may_show("project/p/secrets/KEY") && may_show("API_KEY_2") && may_show("0"));
/// assert!(!may_show("hunter2") && !may_show("correct-horse-battery-staple") && !may_show("wJalrXU/K7MDENG"));
/// ```
pub fn may_show(text: &str) -> bool {
    let all = |also: fn(char) -> bool| text.chars().all(|c| also(c) || matches!(c, '-' | '_'));
    let is_word = text.len() <= WORD_BYTES_MAX && all(|c| c.is_ascii_lowercase());
    let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_variable = !is_hex && all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let is_name = text.split_once('/').is_some_and(|(collection, _)| {
        collection.chars().all(|c| c.is_ascii_lowercase())
            && all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '/'))
    });
    text.len() <= SHORT_BYTES_MAX || is_word || is_variable || is_name
}

#[cfg(test)]
mod tests {
    use super::may_show;
    use crate::token::{Token, TokenKind};

    #[test]
    fn tokens_and_keys_are_hidden() {
        assert!(!may_show(Token::generate(TokenKind::Workload).expose()));
        for digits in ["0123456789abcdef", "0123456789ABCDEF", "0123456789012345"] {
            assert!(!may_show(&digits.repeat(4)), "{digits}");
        }
    }
}
