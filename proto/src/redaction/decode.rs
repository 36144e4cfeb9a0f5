//! Decoders of what values are written in. Each takes the text byte by byte and gives decoded bytes, each with the part
//! of the text that it was written as.

/// A byte that no value has, for what cannot be decoded: it ends every match.
pub(super) const NO_BYTE: u8 = 0xff;
/// Most bytes of text that one byte of a value is written as. Longer ways exist and nothing writes them.
const WRITTEN_BYTES_MAX: u64 = 12;
/// Bytes in a row that are skipped within digits: CR LF, as it is and JSON-escaped, also twice.
pub(super) const BREAK_BYTES_MAX: usize = 6;
/// Most bytes of text that a run of white space in a value of many lines is written as: nobody indents deeper.
const BLANKS_BYTES_MAX: u64 = 64;

/// A byte, and the text it was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Byte {
    pub byte: u8,
    pub start: u64,
    pub end: u64,
}

/// Where decoded bytes go.
pub(super) trait Sink: FnMut(Byte) {}
impl<F: FnMut(Byte)> Sink for F {}

/// The escapes that [`Escapes`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// Strings of JSON (RFC 8259, 7).
    Json,
    /// URLs (RFC 3986, 2.1), or forms, in which `+` is a space.
    Percent { plus: u8 },
}

/// Bytes that stand for themselves but for escapes. What begins like an escape and is none stands for itself, too.
#[derive(Clone, Debug)]
pub(super) struct Escapes {
    escape: Escape,
    /// The escape that is being read.
    pending: Vec<Byte>,
}

/// What the pending bytes are.
enum Read {
    More,
    No,
    /// So many bytes of UTF-8.
    Done([u8; 4], usize),
    /// A first half of a pair and something else after it: the first six are nothing.
    Half,
}

impl Escapes {
    pub(super) fn new(escape: Escape) -> Self {
        Self { escape, pending: Vec::with_capacity(12) }
    }

    /// Forgets what was read.
    pub(super) fn restart(&mut self) {
        self.pending.clear();
    }

    /// Where the escape that is being read begins.
    pub(super) fn pending(&self) -> Option<u64> {
        self.pending.first().map(|first| first.start)
    }

    pub(super) fn take(&mut self, byte: Byte, sink: &mut impl Sink) {
        if self.pending.is_empty() && !self.begins(byte.byte) {
            return sink(self.literal(byte));
        }
        self.pending.push(byte);
        self.settle(sink);
    }

    /// The text has ended: what is pending stands for itself.
    pub(super) fn end(&mut self, sink: &mut impl Sink) {
        for byte in std::mem::take(&mut self.pending) {
            sink(self.literal(byte));
        }
    }

    fn begins(&self, byte: u8) -> bool {
        byte == if self.escape == Escape::Json { b'\\' } else { b'%' }
    }

    fn literal(&self, byte: Byte) -> Byte {
        match self.escape {
            Escape::Percent { plus } if byte.byte == b'+' => Byte { byte: plus, ..byte },
            _ => byte,
        }
    }

    fn settle(&mut self, sink: &mut impl Sink) {
        while let Some(first) = self.pending.first().copied() {
            if !self.begins(first.byte) {
                self.pending.remove(0);
                sink(self.literal(first));
                continue;
            }
            let last = self.pending[self.pending.len() - 1];
            match if self.escape == Escape::Json { json(&self.pending) } else { percent(&self.pending) } {
                Read::More => return,
                Read::No => {
                    self.pending.remove(0);
                    sink(first);
                }
                Read::Half => {
                    let end = self.pending[5].end;
                    self.pending.drain(..6);
                    sink(Byte { byte: NO_BYTE, start: first.start, end });
                }
                Read::Done(bytes, length) => {
                    self.pending.clear();
                    let is_short = last.end - first.start <= WRITTEN_BYTES_MAX * length as u64;
                    for byte in &bytes[..length] {
                        let byte = if is_short { *byte } else { NO_BYTE };
                        sink(Byte { byte, start: first.start, end: last.end });
                    }
                }
            }
        }
    }
}

fn percent(pending: &[Byte]) -> Read {
    match *pending {
        [_] => Read::More,
        [_, high] if nibble(high.byte).is_some() => Read::More,
        [_, high, low] => match (nibble(high.byte), nibble(low.byte)) {
            (Some(high), Some(low)) => Read::Done([high << 4 | low, 0, 0, 0], 1),
            _ => Read::No,
        },
        _ => Read::No,
    }
}

fn json(pending: &[Byte]) -> Read {
    let one = |byte| Read::Done([byte, 0, 0, 0], 1);
    match pending.get(1).map(|byte| byte.byte) {
        None => return Read::More,
        Some(byte @ (b'"' | b'\\' | b'/')) => return one(byte),
        Some(b'b') => return one(0x08),
        Some(b'f') => return one(0x0c),
        Some(b'n') => return one(b'\n'),
        Some(b'r') => return one(b'\r'),
        Some(b't') => return one(b'\t'),
        Some(b'u') => {}
        Some(_) => return Read::No,
    }
    let first = match unit(&pending[2..]) {
        Ok(Some(unit)) => unit,
        Ok(None) => return Read::More,
        Err(()) => return Read::No,
    };
    let char = if (0xd800..0xdc00).contains(&first) {
        match (pending.get(6).map(|byte| byte.byte), pending.get(7).map(|byte| byte.byte)) {
            (None, _) | (Some(b'\\'), None) => return Read::More,
            (Some(b'\\'), Some(b'u')) => {}
            _ => return Read::Half,
        }
        match unit(&pending[8..]) {
            Ok(None) => return Read::More,
            Ok(Some(second)) if (0xdc00..0xe000).contains(&second) => {
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
            }
            _ => return Read::Half,
        }
    } else {
        char::from_u32(first)
    };
    let Some(char) = char else { return one(NO_BYTE) };
    let mut bytes = [0; 4];
    let length = char.encode_utf8(&mut bytes).len();
    Read::Done(bytes, length)
}

/// Four hexadecimal digits; `None` if good ones are still missing.
fn unit(digits: &[Byte]) -> Result<Option<u32>, ()> {
    let digits = &digits[..digits.len().min(4)];
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | u32::from(nibble(digit.byte).ok_or(())?);
    }
    Ok((digits.len() == 4).then_some(unit))
}

/// The value of a hexadecimal digit.
#[inline]
pub(super) fn nibble(byte: u8) -> Option<u8> {
    let value = NIBBLES[usize::from(byte)];
    (value != NO_DIGIT).then_some(value)
}

/// The value of a digit of base64, of the standard and of the URL alphabet (RFC 4648, 4 and 5).
#[inline]
pub(super) fn sextet(byte: u8) -> Option<u8> {
    let value = SEXTETS[usize::from(byte)];
    (value != NO_DIGIT).then_some(value)
}

/// In [`NIBBLES`] and [`SEXTETS`]: no digit.
const NO_DIGIT: u8 = 0xff;
/// By byte. Tables, since in digits there is no branch to predict.
const NIBBLES: [u8; 256] = digits(&[b"0123456789abcdef", b"0123456789ABCDEF"]);
const SEXTETS: [u8; 256] = digits(&[
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
]);

const fn digits(alphabets: &[&[u8]]) -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut alphabet = 0;
    while alphabet < alphabets.len() {
        let mut value = 0;
        while value < alphabets[alphabet].len() {
            values[alphabets[alphabet][value] as usize] = value as u8;
            value += 1;
        }
        alphabet += 1;
    }
    values
}

/// White space, each run of which is read as one space, as a shell prints an unquoted variable, YAML indents a text and a
/// terminal ends its lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Blanks {
    /// Where the run begins that is being read, and whether it is short enough to be one space.
    run: Option<(u64, bool)>,
}

impl Blanks {
    /// Whether a run of white space is being read.
    pub(super) fn in_run(&self) -> bool {
        self.run.is_some()
    }

    pub(super) fn take(&mut self, byte: Byte, sink: &mut impl Sink) {
        if !is_blank(byte.byte) {
            self.run = None;
            return sink(byte);
        }
        match &mut self.run {
            None => {
                self.run = Some((byte.start, true));
                sink(Byte { byte: b' ', ..byte });
            }
            Some((since, is_short)) if *is_short && byte.end - *since > BLANKS_BYTES_MAX => {
                *is_short = false;
                sink(Byte { byte: NO_BYTE, ..byte });
            }
            Some(_) => {}
        }
    }
}

/// Whether a byte is white space where words and lines are told apart.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Runs of digits of 4 or 6 bits, of which any may be the first of a byte; line breaks within a run do not count, nor do
/// their escapes in JSON.
#[derive(Clone, Debug)]
pub(super) struct Digits {
    /// 4 or 6.
    bits: u8,
    /// How many bits of the digit that comes first end a byte which began before the run.
    skip: u8,
    /// Bits of the byte that is being read, how many, and where they begin.
    partial: u8,
    known: u8,
    start: u64,
    /// Bits of the next digit that belong to a byte whose beginning is not there.
    skipping: u8,
    in_run: bool,
    /// Bytes skipped since the last digit, and whether the last one began an escape.
    skipped: usize,
    in_escape: bool,
}

impl Digits {
    /// `skip`: a multiple of 2, less than 8.
    pub(super) fn new(bits: u8, skip: u8) -> Self {
        let (partial, known, start, skipped) = (0, 0, 0, 0);
        Self { bits, skip, partial, known, start, skipping: skip, in_run: false, skipped, in_escape: false }
    }

    /// Forgets what was read: the next digit is the first of a run.
    pub(super) fn restart(&mut self) {
        *self = Self::new(self.bits, self.skip);
    }

    /// The first bits of the byte that is being read, how many these are, and where they are written.
    pub(super) fn pending(&self) -> (u8, u8, u64) {
        (self.partial, self.known, self.start)
    }

    pub(super) fn take(&mut self, at: u64, byte: u8, sink: &mut impl Sink) {
        if self.skips(byte) {
            return;
        }
        let digit = if self.bits == 4 { nibble(byte) } else { sextet(byte) };
        // Only a slash is written as itself behind a backslash.
        let digit = digit.filter(|_| !self.in_escape || byte == b'/');
        let Some(digit) = digit else {
            if self.in_run {
                self.restart();
                sink(Byte { byte: NO_BYTE, start: at, end: at + 1 });
                // What ended the run by being no escape may begin another.
                self.take(at, byte, sink);
            }
            return;
        };
        (self.in_run, self.skipped, self.in_escape) = (true, 0, false);
        // Bits that end a byte of which the run lacks the beginning.
        let lost = self.skipping.min(self.bits);
        self.skipping -= lost;
        let (fresh, count) = (digit & (0xff >> (8 - self.bits)) & low(self.bits - lost), self.bits - lost);
        if count == 0 {
            return;
        }
        if self.known == 0 {
            self.start = at;
        }
        let wanted = 8 - self.known;
        if count < wanted {
            self.partial = self.partial << count | fresh;
            self.known += count;
            return;
        }
        let left = count - wanted;
        let done = (u16::from(self.partial) << wanted | u16::from(fresh >> left)) as u8;
        sink(Byte { byte: done, start: self.start, end: at + 1 });
        (self.partial, self.known, self.start) = (fresh & low(left), left, at);
    }
}

impl Digits {
    /// Whether a byte belongs to a line break within a run.
    fn skips(&mut self, byte: u8) -> bool {
        let is_break = match byte {
            b'\r' | b'\n' => !self.in_escape,
            b'\\' => true,
            b'r' | b'n' => self.in_escape,
            _ => false,
        };
        if !self.in_run || !is_break || self.skipped == BREAK_BYTES_MAX {
            return false;
        }
        self.skipped += 1;
        self.in_escape = byte == b'\\';
        true
    }
}

/// The lowest bits.
fn low(bits: u8) -> u8 {
    ((1u16 << bits) - 1) as u8
}
