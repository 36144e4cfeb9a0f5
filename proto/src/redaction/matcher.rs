//! The automaton that finds values in decoded bytes.

use std::fmt;

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
    dfa,
    nfa::contiguous,
};

use zeroize::Zeroizing;

use super::filter::Filter;
use crate::{limits, name::VariableName, value::SecretValue};

/// Up to so many bytes of values, in all, there is a table of every step, which is faster and far larger.
const TABLE_VALUE_BYTES_MAX: usize = 8 * 1024;
/// In [`State::longest`]: no value ends here.
const NONE: u32 = u32::MAX;

/// What is looked for: built once, shared by all [`super::Redactor`]s that look for it.
///
/// It holds the values in a form of its own, which cannot be wiped when it is dropped: keep it no longer than needed.
pub struct Matcher {
    search: Search,
    filter: Filter,
    /// By state, as `Matcher::state` counts them.
    states: Vec<State>,
    /// State ids are multiples of two to the power of this.
    shift: u32,
    /// By value: its length in bytes, and its name.
    names: Vec<(usize, VariableName)>,
    /// Whether a value may begin with a byte whose first 2, 4 and 6 bits are these.
    begins: [u64; 3],
    has_lines: bool,
}

pub(super) enum Search {
    Nothing,
    Table(dfa::DFA),
    Compact(contiguous::NFA),
}

/// How far values match in one state of the automaton.
#[derive(Clone, Copy)]
pub(super) struct State {
    /// Bytes of the longest beginning of a value.
    pub depth: u32,
    /// The characters that begin in them.
    pub chars: u32,
    /// Whether a value goes on from here.
    pub goes_on: bool,
    longest: u32,
}

impl Matcher {
    /// Looks for these values, but for those of less than [`limits::REDACTED_VALUE_CHARS_MIN`] characters. Of equal values
    /// the first name is written. Each is also looked for without the white space around it. One with lines is also looked
    /// for with each run of white space as one space, and by each of its lines.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a VariableName, &'a SecretValue)>) -> Self {
        let mut patterns = Patterns::default();
        for (name, value) in values {
            patterns.add(name, value.expose());
        }
        let has_lines = patterns.has_lines;
        let unique = patterns.unique();
        let values: Vec<&[u8]> = unique.iter().map(|(text, _)| text.as_bytes()).collect();
        let search = Search::new(&values);
        let (states, shift) = match &search {
            Search::Nothing => (Vec::new(), 0),
            Search::Table(search) => states(search, &values),
            Search::Compact(search) => states(search, &values),
        };
        let mut begins = [0; 3];
        for first in values.iter().map(|value| value[0]) {
            for (at, begins) in begins.iter_mut().enumerate() {
                *begins |= 1 << (first >> (6 - 2 * at));
            }
        }
        let filter = Filter::new(&values, has_lines);
        let names = unique.iter().map(|(text, name)| (text.len(), (*name).clone())).collect();
        Self { search, filter, states, shift, names, begins, has_lines }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a value has more than one line.
    pub(super) fn has_lines(&self) -> bool {
        self.has_lines
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn search(&self) -> &Search {
        &self.search
    }

    pub(super) fn name(&self, value: u32) -> &VariableName {
        &self.names[value as usize].1
    }

    pub(super) fn bytes(&self, value: u32) -> usize {
        self.names[value as usize].0
    }

    pub(super) fn state(&self, id: StateID) -> State {
        self.states[id.as_usize() >> self.shift]
    }

    /// Whether a byte of which only the first bits are known could be the first of a value. `known`: 0, 2, 4 or 6 bits.
    pub(super) fn may_begin(&self, bits: u8, known: u8) -> bool {
        known > 0 && self.begins[usize::from(known / 2 - 1)] & (1 << bits) != 0
    }
}

/// The texts that are looked for, each with the name that is written in its place.
#[derive(Default)]
struct Patterns<'a> {
    texts: Vec<(Zeroizing<String>, &'a VariableName)>,
    has_lines: bool,
}

impl<'a> Patterns<'a> {
    fn add(&mut self, name: &'a VariableName, value: &str) {
        let trimmed = value.trim_matches(BLANKS);
        self.insert(name, value);
        self.insert(name, trimmed);
        if !trimmed.contains(['\n', '\r']) {
            return;
        }
        self.has_lines = true;
        self.insert(name, &collapsed(trimmed));
        let lines = trimmed.split(['\n', '\r']).map(|line| line.trim_matches(BLANKS));
        lines.filter(|line| is_long(line) && !is_boundary(line)).for_each(|line| self.insert(name, line));
    }

    fn insert(&mut self, name: &'a VariableName, text: &str) {
        if is_long(text) {
            self.texts.push((Zeroizing::new(text.to_owned()), name));
        }
    }

    /// Each text once, with the first of its names.
    fn unique(self) -> Vec<(Zeroizing<String>, &'a VariableName)> {
        let mut texts = self.texts;
        texts
            .sort_unstable_by(|(text, name), (other, of_other)| (text.as_str(), name).cmp(&(other.as_str(), of_other)));
        texts.dedup_by(|(text, _), (before, _)| text == before);
        texts
    }
}

/// White space, of which each run in a value of many lines is read as one space.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn is_long(text: &str) -> bool {
    text.chars().nth(limits::REDACTED_VALUE_CHARS_MIN - 1).is_some()
}

/// Whether a line is an encapsulation boundary of PEM (RFC 7468, 3), which is the same in every key.
fn is_boundary(line: &str) -> bool {
    (line.starts_with("-----BEGIN ") || line.starts_with("-----END ")) && line.ends_with("-----")
}

/// A text as [`super::decode::Blanks`] reads it.
fn collapsed(text: &str) -> Zeroizing<String> {
    // The exact capacity, so that no copy is left behind while it grows.
    let mut read = Zeroizing::new(String::with_capacity(text.len()));
    let words = text.split(BLANKS).filter(|word| !word.is_empty());
    for word in words {
        if !read.is_empty() {
            read.push(' ');
        }
        read.push_str(word);
    }
    read
}

impl Search {
    /// Building fails only for more states than 31 bits count, which no environment's values have; then there is no value
    /// that could be missed in silence: it is a fault of ours.
    #[allow(clippy::expect_used, reason = "values of an environment are far below 2^31 bytes")]
    fn new(values: &[&[u8]]) -> Self {
        if values.is_empty() {
            return Self::Nothing;
        }
        if values.iter().map(|value| value.len()).sum::<usize>() <= TABLE_VALUE_BYTES_MAX {
            let built = dfa::DFA::builder().prefilter(false).build(values);
            return Self::Table(built.expect("few values fit a table"));
        }
        let built = contiguous::NFA::builder().prefilter(false).build(values);
        Self::Compact(built.expect("an environment's values fit an automaton"))
    }
}

impl State {
    /// The value that ends here: the longest.
    pub(super) fn value(self) -> Option<u32> {
        (self.longest != NONE).then_some(self.longest)
    }
}

/// Walks every value from the start: a state is reached by exactly the bytes that it stands for.
fn states(search: &impl Automaton, values: &[&[u8]]) -> (Vec<State>, u32) {
    let Ok(start) = search.start_state(Anchored::No) else { return (Vec::new(), 0) };
    let mut found = vec![(start, State { depth: 0, chars: 0, goes_on: false, longest: NONE })];
    for value in values {
        let (mut id, mut state) = (start, State { depth: 0, chars: 0, goes_on: false, longest: NONE });
        for byte in *value {
            id = search.next_state(Anchored::No, id, *byte);
            state.depth += 1;
            state.chars += u32::from(byte & 0b1100_0000 != 0b1000_0000);
            let ends = if search.is_match(id) { search.match_len(id) } else { 0 };
            let ending = (0..ends).map(|index| search.match_pattern(id, index));
            state.longest =
                ending.max_by_key(|pattern| search.pattern_len(*pattern)).map_or(NONE, |pattern| pattern.as_u32());
            state.goes_on = state.depth as usize != value.len();
            found.push((id, state));
        }
    }
    let shift = found.iter().fold(0, |bits, (id, _)| bits | id.as_usize()).trailing_zeros().min(usize::BITS - 1);
    let last = found.iter().map(|(id, _)| id.as_usize() >> shift).max().unwrap_or(0);
    let mut states = vec![State { depth: 0, chars: 0, goes_on: false, longest: NONE }; last + 1];
    for (id, state) in found {
        let goes_on = states[id.as_usize() >> shift].goes_on || state.goes_on;
        states[id.as_usize() >> shift] = State { goes_on, ..state };
    }
    (states, shift)
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matcher(…)")
    }
}
