//! Decodes what a terminal sends while a value is typed or pasted without echo.
//!
//! A terminal with bracketed paste puts a paste between `ESC [ 200 ~` and `ESC [ 201 ~` (xterm's "Bracketed Paste Mode"),
//! so that a line break within it is told from the Enter key.

use coffer_proto::limits;
use zeroize::Zeroizing;

/// Longest text kept, in bytes: one more than a value may have, and a line break at its end.
const TEXT_BYTES_MAX: usize = limits::VALUE_BYTES + 3;
/// Longest control sequence that is looked at, in bytes; a longer one is none.
const SEQUENCE_BYTES_MAX: usize = 16;

const ESCAPE: u8 = 0x1b;
const PASTE_BEGIN: &[u8] = b"[200~";
const PASTE_END: &[u8] = b"[201~";

/// Asks the terminal to bracket pastes.
pub(crate) const BRACKETS_ON: &[u8] = b"\x1b[?2004h";
/// Takes it back.
pub(crate) const BRACKETS_OFF: &[u8] = b"\x1b[?2004l";

/// A byte that ends the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The Enter key: what there is counts.
    Enter,
    /// Ctrl-D with nothing before it.
    Nothing,
}

/// The text so far.
pub(crate) struct Text {
    /// Never grows beyond its first allocation, which is wiped.
    bytes: Zeroizing<Vec<u8>>,
    is_pasting: bool,
    /// What came after an escape character and may be a control sequence; it may be a part of a pasted value.
    sequence: Option<Zeroizing<Vec<u8>>>,
    /// The byte before was a carriage return of a paste: a line feed after it is the same line break.
    after_return: bool,
}

impl Text {
    pub(crate) fn new() -> Self {
        let bytes = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX));
        Self { bytes, is_pasting: false, sequence: None, after_return: false }
    }

    /// Takes one byte.
    pub(crate) fn push(&mut self, byte: u8) -> Option<End> {
        if self.sequence.is_some() {
            self.continue_sequence(byte);
            return None;
        }
        if byte == ESCAPE {
            self.sequence = Some(Zeroizing::new(Vec::with_capacity(SEQUENCE_BYTES_MAX)));
            return None;
        }
        if self.is_pasting {
            self.paste(byte);
            return None;
        }
        match byte {
            b'\r' | b'\n' => return Some(End::Enter),
            // Ctrl-D.
            0x04 => return Some(if self.bytes.is_empty() { End::Nothing } else { End::Enter }),
            // Backspace, Ctrl-W and Ctrl-U take away a character, a word and everything.
            0x08 | 0x7f => self.erase_character(),
            0x17 => self.erase_word(),
            0x15 => self.erase(0),
            b'\t' | b' '.. => self.keep(byte),
            // A key that types nothing.
            _ => {}
        }
        None
    }

    /// The text without one line break at its end.
    pub(crate) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        if self.bytes.last() == Some(&b'\n') {
            self.bytes.pop();
        }
        self.bytes
    }

    /// Terminals send a carriage return for every line break of a paste, or what was copied as it is.
    fn paste(&mut self, byte: u8) {
        match byte {
            b'\r' => self.keep(b'\n'),
            b'\n' if self.after_return => {}
            byte => self.keep(byte),
        }
        self.after_return = byte == b'\r';
    }

    /// Within a paste only its end is a control sequence, and everything else a part of the value.
    fn continue_sequence(&mut self, byte: u8) {
        let Some(sequence) = &mut self.sequence else { return };
        sequence.push(byte);
        if self.is_pasting {
            if PASTE_END == sequence.as_slice() {
                self.is_pasting = false;
                self.sequence = None;
            } else if !PASTE_END.starts_with(sequence) {
                let text = self.sequence.take().unwrap_or_default();
                self.keep(ESCAPE);
                text.iter().for_each(|byte| self.paste(*byte));
            }
            return;
        }
        // ECMA-48: `[`, parameters, and one byte from `@` to `~`; `O` and one byte are function keys.
        let is_whole = match sequence.as_slice() {
            [b'[' | b'O'] => false,
            [b'[', .., last] => (b'@'..=b'~').contains(last) || sequence.len() == SEQUENCE_BYTES_MAX,
            _ => true,
        };
        if is_whole {
            self.is_pasting = PASTE_BEGIN == sequence.as_slice();
            self.after_return = false;
            self.sequence = None;
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.bytes.len() < TEXT_BYTES_MAX {
            self.bytes.push(byte);
        }
    }

    fn erase(&mut self, length: usize) {
        use zeroize::Zeroize as _;
        self.bytes[length..].zeroize();
        self.bytes.truncate(length);
    }

    fn erase_character(&mut self) {
        // Bytes that continue a character of UTF-8 are 0b10xxxxxx.
        let start = self.bytes.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
        self.erase(start.unwrap_or(0));
    }

    fn erase_word(&mut self) {
        let is_blank = |byte: &u8| byte.is_ascii_whitespace();
        let word_end = self.bytes.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
        let start = self.bytes[..word_end].iter().rposition(is_blank).map_or(0, |blank| blank + 1);
        self.erase(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of these bytes, all of which must be taken.
    fn typed(bytes: &[u8]) -> String {
        let mut text = Text::new();
        let (last, before) = bytes.split_last().expect("bytes");
        for byte in before {
            assert_eq!(text.push(*byte), None, "{bytes:?}");
        }
        assert_eq!(text.push(*last), Some(End::Enter), "{bytes:?}");
        String::from_utf8(text.finish().to_vec()).expect("text")
    }

    #[test]
    fn keys_type_and_erase() {
        for (keys, value) in [
            ("value\r", "value"),
            ("value\n", "value"),
            (" a\tb \r", " a\tb "),
            ("vax\x7flue\r", "value"),
            ("va漢\x08lue\r", "value"),
            ("\x7f\x7fa\r", "a"),
            ("wrong one\x15right\r", "right"),
            ("two words \x17more\r", "two more"),
            ("one\x17\x17a\r", "a"),
            ("value\x04", "value"),
            ("\x01va\x0elue\r", "value"),
            // Arrows, Delete, F1 and Alt-x.
            ("a\x1b[D\x1b[3~\x1bOP\x1bxb\r", "ab"),
        ] {
            assert_eq!(typed(keys.as_bytes()), value, "{keys:?}");
        }
        assert_eq!(Text::new().push(0x04), Some(End::Nothing));
    }

    #[test]
    fn a_paste_keeps_its_lines() {
        for (keys, value) in [
            ("\x1b[200~one\rtwo\rthree\x1b[201~\r", "one\ntwo\nthree"),
            ("\x1b[200~one\r\ntwo\n\nthree\n\x1b[201~\r", "one\ntwo\n\nthree"),
            ("\x1b[200~one\r\x1b[201~\r", "one"),
            ("a\x1b[200~b\x1b[201~c\r", "abc"),
            // What erases or ends when it is typed.
            ("\x1b[200~a\x7f\x15\x04\tb\x1b[201~\r", "a\x7f\x15\x04\tb"),
            // Other sequences, and what begins as the end.
            ("\x1b[200~a\x1b[31mb\x1b[201\rc\x1b[201~\r", "a\x1b[31mb\x1b[201\nc"),
            ("\x1b[200~a\x1b[201~\x7fb\r", "b"),
        ] {
            assert_eq!(typed(keys.as_bytes()), value, "{keys:?}");
        }
    }

    #[test]
    fn no_input_is_kept_beyond_the_limit() {
        let mut text = Text::new();
        let allocated = text.bytes.capacity();
        for _ in 0..2 * TEXT_BYTES_MAX {
            assert_eq!(text.push(b'a'), None);
        }
        assert_eq!((text.bytes.len(), text.bytes.capacity()), (TEXT_BYTES_MAX, allocated));
        let mut endless = Text::new();
        assert!(b"\x1b[".iter().chain(&[b'1'; 100]).all(|byte| endless.push(*byte).is_none()));
        assert!(endless.sequence.is_none());
    }
}
