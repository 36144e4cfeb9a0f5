//! Finds the values of secrets in texts and writes `{{NAME}}` in their place, as `coffer.v1.Redactions` promises.
//!
//! One automaton ([`Matcher`]) runs over several readings of the text side by side: as it is, JSON-unescaped once and
//! twice, percent-decoded with `+` as itself and as a space, from hexadecimal at both alignments and from base64 at all
//! four. Where values have line breaks, the texts of the first five are also read with each run of white space as one
//! space. Each reading decodes a byte at a time and knows where each decoded byte is written, so that time is linear in the
//! text, memory is bounded by the longest value, and a value is found however its escapes are mixed.
//!
//! Most text has no value in it. A [`filter`] finds where one may begin, and a [`lane::Lane`] has the readings read only
//! from there until none of them is within one: the rest is read once, by a loop of a few instructions a byte.
//!
//! The text itself is in the hands of whoever gives it; parts of it that are held back are not wiped.

mod decode;
mod filter;
mod lane;
mod matcher;
mod runs;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::VecDeque, fmt, sync::Arc};

use lane::Lane;
pub use matcher::Matcher;
use runs::{Run, Runs};
use view::Found;

/// So much of the text is read at a time.
const BLOCK_BYTES: usize = 16 * 1024;
/// A pause gives up so many characters of what may become a value: no more than a hint tells.
const RELEASED_CHARS_MAX: u32 = 4;

/// One text that is being cleaned.
///
/// It holds back what may become a value: at most 14 bytes for each byte of the longest one, 64 for each run of white
/// space, and what the decoders are in the middle of.
pub struct Redactor {
    matcher: Arc<Matcher>,
    /// None if there is nothing to look for.
    lanes: Vec<Lane>,
    /// What has been read and not given out.
    text: VecDeque<u8>,
    /// Where that begins in the whole text.
    given: u64,
    read: u64,
    runs: Runs,
    found: Vec<Found>,
    /// Replaced in what was released: told with the next part.
    untold: u64,
}

impl Redactor {
    /// Begins a text.
    pub fn new(matcher: Arc<Matcher>) -> Self {
        let lanes = if matcher.is_empty() { Vec::new() } else { Lane::all(matcher.has_lines()) };
        let (text, runs, found) = (VecDeque::new(), Runs::default(), Vec::new());
        Self { matcher, lanes, text, given: 0, read: 0, runs, found, untold: 0 }
    }

    /// Takes the next part, cut anywhere. Appends what is clean to `out` and answers how many values were replaced in it.
    pub fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> u64 {
        let mut replaced = std::mem::take(&mut self.untold);
        for block in part.chunks(BLOCK_BYTES) {
            self.text.extend(block);
            for lane in &mut self.lanes {
                lane.read(&self.matcher, self.read, block, &mut self.found);
            }
            self.read += block.len() as u64;
            self.note_found();
            replaced += self.give(self.safe(), out);
        }
        replaced
    }

    /// The text has ended: appends all that was held back. What is pushed next is another text.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> u64 {
        for lane in &mut self.lanes {
            lane.end(&self.matcher, &mut self.found);
        }
        self.note_found();
        let replaced = self.untold + self.give(self.read, out);
        *self = Self::new(Arc::clone(&self.matcher));
        replaced
    }

    /// Bytes that are held back now.
    pub fn held(&self) -> usize {
        self.text.len()
    }

    /// There is a pause, and somebody may wait for what is held back. Appends it if it tells at most 4 characters of a
    /// value; otherwise it stays. Should a value come to its end later, what was not given out of it is replaced.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        let chars = self.lanes.iter().map(|lane| lane.matching_chars(&self.matcher)).max().unwrap_or(0);
        if chars <= RELEASED_CHARS_MAX {
            self.untold += self.give(self.read, out);
        }
    }

    fn note_found(&mut self) {
        self.found.sort_unstable();
        for found in self.found.drain(..) {
            // Of what was released nothing can be replaced any more.
            if found.end > self.given {
                self.runs.add(Found { start: found.start.max(self.given), ..found });
            }
        }
    }

    /// Up to here nothing can become a part of a value any more.
    fn safe(&self) -> u64 {
        let pending = self.lanes.iter().filter_map(|lane| lane.pending(&self.matcher));
        pending.min().unwrap_or(self.read).clamp(self.given, self.read)
    }

    /// Gives out the text up to there.
    fn give(&mut self, until: u64, out: &mut Vec<u8>) -> u64 {
        let mut replaced = 0;
        while let Some(run) = self.runs.first()
            && run.start < until
        {
            let (start, end) = (run.start, run.end);
            self.advance(start, Some(out));
            if end > until {
                // It may grow, and what it covers is not needed.
                self.advance(until, None);
                return replaced;
            }
            self.advance(end, None);
            replaced += self.runs.take_first().map_or(0, |run| self.write(&run, out));
        }
        self.advance(until, Some(out));
        replaced
    }

    fn advance(&mut self, until: u64, out: Option<&mut Vec<u8>>) {
        let count = until.saturating_sub(self.given).min(self.text.len() as u64);
        let count = count as usize;
        if let Some(out) = out {
            let (front, back) = self.text.as_slices();
            let of_front = count.min(front.len());
            out.extend_from_slice(&front[..of_front]);
            out.extend_from_slice(&back[..count - of_front]);
        }
        self.text.drain(..count);
        self.given += count as u64;
    }

    fn write(&self, run: &Run, out: &mut Vec<u8>) -> u64 {
        let mut written = 0;
        for value in run.values() {
            out.extend_from_slice(b"{{");
            out.extend_from_slice(self.matcher.name(value).as_str().as_bytes());
            out.extend_from_slice(b"}}");
            written += 1;
        }
        written
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(…)")
    }
}
