//! Text files that people made: without the mark at their beginning, and with a word for what is not UTF-8.

use std::fmt;

/// U+FEFF in UTF-8, which editors put before a text to say how it is encoded (RFC 3629, 6). It belongs to no text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// So many bytes are looked at to recognize UTF-16 without a mark.
const LOOKED_AT_BYTES: usize = 64;

/// Why bytes are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotText {
    /// Written as UTF-16, as PowerShell 5 and Windows editors do.
    Utf16,
    /// Something else than UTF-8.
    NotUtf8,
}

/// The text of a file, without a byte order mark.
///
/// # Errors
/// Fails for what is not UTF-8, and for UTF-16 also if all of its bytes could be UTF-8: then every second one is NUL.
pub fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    if is_utf16(bytes) {
        return Err(NotText::Utf16);
    }
    std::str::from_utf8(without_mark(bytes)).map_err(|_| NotText::NotUtf8)
}

/// The bytes without a byte order mark.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

fn is_utf16(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(LOOKED_AT_BYTES)];
    let (pairs, _) = start.as_chunks::<2>();
    let is_all = |nul: usize| pairs.iter().all(|pair| pair[nul] == 0 && pair[1 - nul] != 0);
    bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || (pairs.len() > 1 && (is_all(0) || is_all(1)))
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotText::Utf16 => "is UTF-16; save it as UTF-8",
            NotText::NotUtf8 => "must be UTF-8 text",
        })
    }
}

impl std::error::Error for NotText {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf16(text: &str, mark: bool, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        mark.into_iter().chain(text.encode_utf16()).flat_map(bytes).collect()
    }

    #[test]
    fn a_mark_belongs_to_no_text() {
        for (bytes, text) in [(&b"\xef\xbb\xbfA=1"[..], "A=1"), (b"A=1", "A=1"), (b"\xef\xbb\xbf", ""), (b"", "")] {
            assert_eq!(decode(bytes), Ok(text));
        }
        assert_eq!(decode("A=\u{feff}".as_bytes()), Ok("A=\u{feff}"), "elsewhere it is a character");
        assert_eq!(decode(b"a\xff"), Err(NotText::NotUtf8));
    }

    #[test]
    fn utf16_is_called_by_its_name() {
        for mark in [true, false] {
            for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                assert_eq!(decode(&utf16("A=hunter2\r\n", mark, bytes)), Err(NotText::Utf16), "{mark}");
            }
        }
    }

    proptest! {
        #[test]
        fn text_without_nul_is_itself(text in "[^\0\u{feff}].{0,80}") {
            prop_assume!(!text.contains('\0'));
            prop_assert_eq!(decode(text.as_bytes()), Ok(text.as_str()));
        }
    }
}
