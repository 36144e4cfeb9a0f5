//! The one type a secret's value lives in.

use std::fmt;

use zeroize::Zeroizing;

use crate::limits;

/// A secret's value: UTF-8 text without NUL, 1 byte to 64 KiB, wiped from memory when dropped.
///
/// There is no `Display`, `Debug` tells nothing, and [`SecretValue::expose`] is the only way to the text.
#[derive(Clone)]
pub struct SecretValue(Zeroizing<String>);

/// What is wrong with a value. Never contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidValue {
    /// Nothing was given.
    Empty,
    /// Longer than [`limits::VALUE_BYTES`].
    TooLong,
    /// An environment variable cannot hold NUL (POSIX.1-2024, 8.1).
    Nul,
    /// Not text.
    NotUtf8,
}

impl SecretValue {
    /// Checks and takes a value. The bytes are wiped if they are refused.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InvalidValue> {
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() {
            return Err(InvalidValue::Empty);
        }
        if bytes.len() > limits::VALUE_BYTES {
            return Err(InvalidValue::TooLong);
        }
        if bytes.contains(&0) {
            return Err(InvalidValue::Nul);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| InvalidValue::NotUtf8)?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text itself. A test lists the files that may call this.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// First 4 and last 4 characters, if the value has at least [`limits::HINT_VALUE_CHARS_MIN`]; unprintable
    /// characters are masked as `•`.
    pub fn hint(&self) -> Option<String> {
        let count = self.0.chars().count();
        if count < limits::HINT_VALUE_CHARS_MIN {
            return None;
        }
        let printable = |c: char| if is_printable(c) { c } else { '•' };
        let first = self.0.chars().take(4);
        let last = self.0.chars().skip(count - 4);
        Some(first.chain("…".chars()).chain(last).map(printable).collect())
    }
}

/// Control characters would garble a terminal; other spaces and the characters that reorder or hide text (bidi
/// controls, zero-width characters, tags, private use) would let a value disguise itself in a table.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{ffff}'
            | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}'))
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidValue::Empty => "Secret value is required",
            InvalidValue::TooLong => "must be at most 64 KiB",
            InvalidValue::Nul => "must not contain NUL, which an environment variable cannot hold",
            InvalidValue::NotUtf8 => "must be UTF-8 text",
        })
    }
}

impl std::error::Error for InvalidValue {}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec()).expect("a good value")
    }

    #[test]
    fn refuses_what_an_environment_cannot_hold() {
        let refused = |bytes: &[u8]| SecretValue::new(bytes.to_vec()).expect_err("must be refused");
        assert_eq!(refused(b""), InvalidValue::Empty);
        assert_eq!(refused(b"a\0b"), InvalidValue::Nul);
        assert_eq!(refused(b"\xff\xfe"), InvalidValue::NotUtf8);
        assert_eq!(refused(&vec![b'x'; limits::VALUE_BYTES + 1]), InvalidValue::TooLong);
        assert_eq!(value(&"x".repeat(limits::VALUE_BYTES)).bytes(), limits::VALUE_BYTES);
    }

    #[test]
    fn hint_needs_twenty_characters() {
        assert_eq!(value("1234567890123456789").hint(), None);
        assert_eq!(value("sk-a567890123456wxyz").hint().as_deref(), Some("sk-a…wxyz"));
        assert_eq!(value("äöüß5678901234567890").hint().as_deref(), Some("äöüß…7890"));
    }

    #[test]
    fn hint_masks_what_a_terminal_would_obey() {
        assert_eq!(value("\u{1b}[2J567890123456\r\n\t\u{202e}").hint().as_deref(), Some("•[2J…••••"));
    }

    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", value("hunter2")), "SecretValue(…)");
    }
}
