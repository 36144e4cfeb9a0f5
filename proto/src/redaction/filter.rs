//! Finds where a value may begin, so that text without any is read once and fast.
//!
//! A value has at least [`PREFIX_BYTES`] bytes, so whoever writes one writes these first: as they are, with an escape among
//! them, or as digits of base64 or hexadecimal. The filter finds all such places, and few others; only there the readings
//! of [`super::view`] begin, and they go on for as long as one of them may be within a value.

use super::decode::{BREAK_BYTES_MAX, is_blank, nibble, sextet};

/// Bytes of a value that are looked for where it is written as it is.
pub(super) const PREFIX_BYTES: usize = 4;
/// Bytes of a value that are looked for where it is written as digits.
pub(super) const WINDOW_BYTES: u64 = 3;
/// Digits of base64 that are looked for: 24 bits, like the other two.
const SEXTETS: usize = 4;
/// Digits of hexadecimal that are looked for.
const NIBBLES: usize = 6;
/// Digits that a window may reach back, with the one that holds the first bits of a value.
pub(super) const WINDOW_DIGITS: usize = NIBBLES + 1;
/// Digits of base64 that the shortest value takes: 8 bytes. Hexadecimal takes more.
const RUN_BYTES_MIN: usize = 11;
/// Bytes of `%XX` behind its first.
const PERCENT_REST_BYTES: usize = 2;
/// Bytes behind the last backslash of the longest escape: `\u005cu0041`, which is one in JSON in JSON.
const JSON_REST_BYTES: usize = 10;
/// Bits of a table of hashes, as a power of two: for few numbers, 8 KiB, and for many, 128 KiB, which are in the caches.
const HASH_BITS_MIN: u32 = 16;
const HASH_BITS_MAX: u32 = 20;
/// So many bits for each number, as a power of two, leave 3 of 100 others to be looked for.
const BITS_OF_NUMBER: u32 = 5;

/// By byte: may belong to digits that are cut into lines, which JSON may have escaped.
const IN_RUN: u8 = 1;
/// By byte: begins an escape, or is one.
const ESCAPE: u8 = 2;
/// A class for each byte.
const CLASSES: [u8; 256] = classes();

/// What the beginnings of values look like.
pub(super) struct Filter {
    prefixes: Set,
    /// Of values with white space in their first bytes, of which the text may have more: their first two bytes.
    pairs: Option<Set>,
    sextets: Set,
    nibbles: Set,
    /// By byte: whether it is among the first bytes of a value.
    first: [bool; 256],
    /// By byte: whether it may stand behind the backslash of an escape of one of the first bytes.
    escaped: [bool; 256],
}

/// A part of the text in which a value may begin, from its first byte on. By positions in the part that is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Reading must begin here.
    pub start: usize,
    /// Nothing can be said before all up to here is read.
    pub end: usize,
}

/// Numbers of up to 32 bits: exact, behind a table of hashes that passes over nearly all others.
struct Set {
    hashes: Box<[u64]>,
    /// To shift a product by.
    shift: u32,
    numbers: Box<[u32]>,
}

impl Set {
    fn new(mut numbers: Vec<u32>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        let bits = (numbers.len().max(1).ilog2() + 1 + BITS_OF_NUMBER).clamp(HASH_BITS_MIN, HASH_BITS_MAX);
        let mut set =
            Self { hashes: vec![0; 1 << (bits - 6)].into(), shift: u32::BITS - bits, numbers: Box::default() };
        for hash in numbers.iter().map(|number| set.hash(*number)).collect::<Vec<_>>() {
            set.hashes[hash >> 6] |= 1 << (hash & 63);
        }
        Self { numbers: numbers.into(), ..set }
    }

    /// Fibonacci hashing: the highest bits of a product with 2^32 over the golden ratio.
    #[inline]
    fn hash(&self, number: u32) -> usize {
        (number.wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }

    #[inline]
    fn may_hold(&self, number: u32) -> bool {
        let hash = self.hash(number);
        self.hashes[hash >> 6] >> (hash & 63) & 1 != 0
    }

    #[inline]
    fn holds(&self, number: u32) -> bool {
        self.may_hold(number) && self.numbers.binary_search(&number).is_ok()
    }
}

impl Filter {
    /// For these values, each of at least 8 bytes. `has_lines`: white space in them may be written as more.
    pub(super) fn new(values: &[&[u8]], has_lines: bool) -> Self {
        let bytes = |value: &[u8]| <[u8; PREFIX_BYTES]>::try_from(&value[..PREFIX_BYTES]).unwrap_or_default();
        let (stretched, fixed): (Vec<_>, Vec<_>) =
            values.iter().map(|value| bytes(value)).partition(|first| has_lines && first.iter().copied().any(is_blank));
        let all = || stretched.iter().chain(&fixed);
        let mut first = [false; 256];
        all().flatten().for_each(|byte| first[usize::from(*byte)] = true);
        if !stretched.is_empty() {
            b" \t\r\n".iter().for_each(|blank| first[usize::from(*blank)] = true);
        }
        let holds = |byte: u8| first[usize::from(byte)];
        let mut escaped = [false; 256];
        let letters =
            [(b'"', b'"'), (b'/', b'/'), (b'b', 0x08), (b'f', 0x0c), (b'n', b'\n'), (b'r', b'\r'), (b't', b'\t')];
        for (letter, byte) in letters {
            escaped[usize::from(letter)] = holds(byte);
        }
        // Any byte at all, and what is escaped twice.
        escaped[usize::from(b'u')] = true;
        escaped[usize::from(b'\\')] = true;
        let windows = |value: &&[u8]| {
            let bits = u32::from_be_bytes(bytes(value));
            // At each bit of a digit at which a byte may begin.
            [0, 2, 4].map(|before| bits << before >> 8)
        };
        let sextets = values.iter().flat_map(windows).collect();
        let nibbles = values.iter().map(|value| u32::from_be_bytes(bytes(value)) >> 8).collect();
        let pairs = stretched.iter().flat_map(pairs).collect::<Vec<_>>();
        Self {
            prefixes: Set::new(fixed.iter().map(|first| u32::from_le_bytes(*first)).collect()),
            pairs: (!pairs.is_empty()).then(|| Set::new(pairs)),
            sextets: Set::new(sextets),
            nibbles: Set::new(nibbles),
            first,
            escaped,
        }
    }

    /// The next place from `from` on where a value may begin, read as text. The last bytes of a part are always one, since
    /// more may follow.
    pub(super) fn text(&self, part: &[u8], from: usize) -> Option<Place> {
        if from >= part.len() {
            return None;
        }
        let whole = part.len().saturating_sub(PREFIX_BYTES - 1).max(from);
        // Every window of the part from here on, with its position.
        let windows = part[from..].windows(PREFIX_BYTES).zip(from..);
        for (window, at) in windows {
            let number = u32::from_le_bytes(<[u8; PREFIX_BYTES]>::try_from(window).unwrap_or_default());
            let is_escape = CLASSES[usize::from(window[0])] & ESCAPE != 0;
            if !self.prefixes.may_hold(number) & !is_escape & self.pairs.is_none() {
                continue;
            }
            if is_escape && self.is_escape(part, at) {
                return Some(Self::around(part, from, at));
            }
            if self.prefixes.holds(number) || self.is_pair(window) {
                // Another value may begin before it, of which an escape that follows is the first.
                let start = at.saturating_sub(PREFIX_BYTES - 2).max(from);
                return Some(Place { start: back(part, start, from), end: at + PREFIX_BYTES });
            }
        }
        let escape = (whole..part.len()).find(|at| self.is_escape(part, *at));
        let last = escape.map_or(whole, |at| at.saturating_sub(PREFIX_BYTES - 1)).max(from);
        Some(Place { start: back(part, last, from), end: part.len() })
    }

    /// A value that has an escape among its first bytes begins here at the earliest.
    fn around(part: &[u8], from: usize, at: usize) -> Place {
        let start = at.saturating_sub(PREFIX_BYTES - 1).max(from);
        Place { start: back(part, start, from), end: at + 1 }
    }

    fn is_pair(&self, window: &[u8]) -> bool {
        self.pairs.as_ref().is_some_and(|pairs| pairs.holds(pair(window[0], window[1])))
    }

    /// Whether there is an escape here that may be the first one among the first bytes of a value.
    fn is_escape(&self, part: &[u8], at: usize) -> bool {
        match part[at] {
            b'%' => match part.get(at + 1..at + 3).map(|digits| (nibble(digits[0]), nibble(digits[1]))) {
                Some((Some(high), Some(low))) => {
                    let byte = high << 4 | low;
                    self.first[usize::from(byte)] && self.is_beginning(part, at, byte, at + 3)
                }
                Some(_) => false,
                None => true,
            },
            b'+' => self.first[usize::from(b' ')] && self.is_beginning(part, at, b' ', at + 1),
            b'\\' => part.get(at + 1).is_none_or(|next| self.escaped[usize::from(*next)]),
            _ => false,
        }
    }

    /// Whether a value may begin so that `byte`, which is written from `at` to `end`, is among its first bytes and none
    /// before it is escaped.
    fn is_beginning(&self, part: &[u8], at: usize, byte: u8, end: usize) -> bool {
        let mut bytes = [0; 2 * PREFIX_BYTES - 1];
        let before = at.min(PREFIX_BYTES - 1);
        bytes[PREFIX_BYTES - 1 - before..PREFIX_BYTES - 1].copy_from_slice(&part[at - before..at]);
        bytes[PREFIX_BYTES - 1] = byte;
        let mut read = end;
        for decoded in &mut bytes[PREFIX_BYTES..] {
            let Some(rest) = part.get(read..read + 3) else { return true };
            (*decoded, read) = match (rest[0], nibble(rest[1]), nibble(rest[2])) {
                (b'%', Some(high), Some(low)) => (high << 4 | low, read + 3),
                // May be more than one byte.
                (b'+' | b'\\', ..) => return true,
                (byte, ..) => (byte, read + 1),
            };
        }
        bytes.windows(PREFIX_BYTES).skip(PREFIX_BYTES - 1 - before).any(|window| {
            let number = u32::from_le_bytes(<[u8; PREFIX_BYTES]>::try_from(window).unwrap_or_default());
            self.prefixes.holds(number) || self.is_pair(window)
        })
    }
}

/// Goes back to where reading may begin as if all from `from` on had been read.
fn back(part: &[u8], at: usize, from: usize) -> usize {
    (from..=at).rev().find(|start| is_free(part, *start)).unwrap_or(from)
}

/// Whether reading may begin here: not within an escape, nor within white space.
pub(super) fn is_free(part: &[u8], at: usize) -> bool {
    let before = |count: usize| &part[at.saturating_sub(count)..at];
    !before(1).iter().any(|byte| is_blank(*byte))
        && !before(PERCENT_REST_BYTES).contains(&b'%')
        && !before(JSON_REST_BYTES).contains(&b'\\')
}

fn pair(first: u8, second: u8) -> u32 {
    let blank = |byte: u8| if is_blank(byte) { b' ' } else { byte };
    u32::from(blank(first)) << 8 | u32::from(blank(second))
}

/// What a value with white space in its first bytes may begin with.
fn pairs(first: &[u8; PREFIX_BYTES]) -> Vec<u32> {
    match is_blank(first[0]) {
        false => vec![pair(first[0], first[1])],
        // The text may have more of it, or less.
        true => (0..=u8::MAX).map(|second| pair(first[0], second)).collect(),
    }
}

/// Where digits may hold a value, in the order of their ends.
pub(super) struct Digits<'a> {
    filter: &'a Filter,
    part: &'a [u8],
    at: usize,
    /// The end of the run that is being read; not beyond `at` outside of one.
    run_end: usize,
    /// Where the last digits stand, by their number.
    positions: [usize; 8],
    sextets: usize,
    sextet_bits: u32,
    nibbles: usize,
    nibble_bits: u32,
}

impl<'a> Digits<'a> {
    pub(super) fn new(filter: &'a Filter, part: &'a [u8]) -> Self {
        let (positions, sextet_bits, nibble_bits) = ([0; 8], 0, 0);
        Self { filter, part, at: 0, run_end: 0, positions, sextets: 0, sextet_bits, nibbles: 0, nibble_bits }
    }

    /// Goes to the next run that is long enough, or may go on behind the part; `false` if there is none.
    fn begin_run(&mut self) -> bool {
        let mut start = self.at;
        loop {
            let rest = &self.part[start..];
            let least = &rest[..rest.len().min(RUN_BYTES_MIN)];
            match least.iter().rposition(|byte| !in_run(*byte)) {
                Some(other) => start += other + 1,
                None => {
                    let length = rest.iter().position(|byte| !in_run(*byte)).unwrap_or(rest.len());
                    (self.at, self.run_end, self.sextets, self.nibbles) = (start, start + length, 0, 0);
                    return length > 0;
                }
            }
        }
    }

    /// Reads digits up to something else, or until the last ones are those of a value. Says which of them: this is all that
    /// is done for most bytes.
    #[inline]
    fn read_digits(&mut self) -> bool {
        let Self { filter, part, at: start, run_end, ref mut positions, .. } = *self;
        let (mut sextets, mut sextet_bits) = (self.sextets, self.sextet_bits);
        let (mut nibbles, mut nibble_bits) = (self.nibbles, self.nibble_bits);
        let (mut at, mut is_found) = (start, false);
        for byte in &part[start..run_end] {
            let Some(digit) = sextet(*byte) else { break };
            positions[sextets % 8] = at;
            at += 1;
            sextets += 1;
            sextet_bits = (sextet_bits << 6 | u32::from(digit)) & 0xff_ffff;
            // Chance is what digits look like: no branch for what they are.
            let digit = nibble(*byte);
            nibbles = (nibbles + 1) * usize::from(digit.is_some());
            nibble_bits = (nibble_bits << 4 | u32::from(digit.unwrap_or_default())) & 0xff_ffff;
            let is_sextets = filter.sextets.may_hold(sextet_bits) & (sextets >= SEXTETS);
            let is_nibbles = nibbles >= NIBBLES && filter.nibbles.may_hold(nibble_bits);
            if (is_sextets && filter.sextets.holds(sextet_bits)) || (is_nibbles && filter.nibbles.holds(nibble_bits)) {
                is_found = true;
                break;
            }
        }
        (self.at, self.sextets, self.sextet_bits) = (at, sextets, sextet_bits);
        (self.nibbles, self.nibble_bits) = (nibbles, nibble_bits);
        is_found
    }

    /// Whether digits may go on behind a backslash: with a line break, or a slash.
    fn may_go_on(&mut self) -> bool {
        let goes_on = self.part.get(self.at).is_none_or(|next| matches!(next, b'n' | b'r' | b'\\' | b'/'));
        if !goes_on {
            (self.sextets, self.nibbles) = (0, 0);
        }
        goes_on
    }

    /// From the first digit of a window, and the one before it, on.
    fn place(&self) -> Place {
        let first = self.sextets.saturating_sub(WINDOW_DIGITS);
        Place { start: self.positions[first % 8], end: self.at }
    }
}

impl Iterator for Digits<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            if self.at >= self.run_end && !self.begin_run() {
                return None;
            }
            while self.at < self.run_end {
                if self.read_digits() {
                    return Some(self.place());
                }
                // A line break is passed over; a backslash may be a part of one.
                let Some(byte) = self.part[..self.run_end].get(self.at) else { break };
                self.at += 1;
                if *byte == b'\\' && self.sextets > 0 && self.may_go_on() {
                    let Place { start, end } = self.place();
                    return Some(Place { start, end: (end + BREAK_BYTES_MAX + WINDOW_DIGITS).min(self.part.len()) });
                }
            }
        }
    }
}

/// Where the last digits of a part begin, to which more may be added; its end if it does not end with digits.
pub(super) fn last_digits(part: &[u8]) -> usize {
    let (mut start, mut digits) = (part.len(), 0);
    while start > 0 && digits < WINDOW_DIGITS && in_run(part[start - 1]) {
        start -= 1;
        digits += usize::from(is_digit(part, start));
    }
    start
}

/// Where so many digits end that a value of which they have the beginning is recognized, or something else than digits.
pub(super) fn first_digits(part: &[u8]) -> usize {
    let (mut end, mut digits) = (0, 0);
    while end < part.len() && digits < WINDOW_DIGITS && in_run(part[end]) {
        digits += usize::from(is_digit(part, end));
        end += 1;
    }
    (end + 1).min(part.len())
}

/// Whether a byte is a digit for sure: an `n` or `r` may be an escaped line break's.
fn is_digit(part: &[u8], at: usize) -> bool {
    sextet(part[at]).is_some() && !matches!(part[at], b'n' | b'r')
}

/// Whether a byte may belong to digits that are cut into lines.
pub(super) fn in_run(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & IN_RUN != 0
}

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'/' | b'_' | b'\r' | b'\n' | b'\\') {
            classes[at] |= IN_RUN;
        }
        if matches!(byte, b'%' | b'+' | b'\\') {
            classes[at] |= ESCAPE;
        }
        at += 1;
    }
    classes
}
