//! One way to read a text, and the automaton's run over what it decodes to.

use std::collections::VecDeque;

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
};

use super::{
    decode::{Byte, Digits, Escape, Escapes},
    matcher::{Matcher, Search},
};

/// A value that was found, by the part of the text that it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub end: u64,
    pub start: u64,
    pub value: u32,
}

/// A decoder and how far its bytes match.
#[derive(Clone, Debug)]
pub(super) struct View {
    decoder: Decoder,
    track: Track,
}

#[derive(Clone, Debug)]
enum Decoder {
    Raw,
    Once(Escapes),
    /// What the first one gives is escaped itself.
    Twice(Escapes, Escapes),
    Digits(Digits),
}

/// The automaton's state, and where in the text the bytes are written that it stands for.
#[derive(Clone, Debug)]
struct Track {
    /// `None`: the start.
    state: Option<StateID>,
    starts: VecDeque<u64>,
}

/// Every way in which values are found.
pub(super) fn all() -> Vec<View> {
    let once = |escape| Decoder::Once(Escapes::new(escape));
    let twice = Decoder::Twice(Escapes::new(Escape::Json), Escapes::new(Escape::Json));
    let hex = [0, 4].map(|skip| Decoder::Digits(Digits::new(4, skip)));
    let base64 = [0, 2, 4, 6].map(|skip| Decoder::Digits(Digits::new(6, skip)));
    let percent = [b'+', b' '].map(|plus| once(Escape::Percent { plus }));
    [Decoder::Raw, once(Escape::Json), twice]
        .into_iter()
        .chain(percent)
        .chain(hex)
        .chain(base64)
        .map(|decoder| View { decoder, track: Track { state: None, starts: VecDeque::new() } })
        .collect()
}

impl View {
    /// Reads on. `at` is where in the whole text the part begins.
    pub(super) fn read(&mut self, matcher: &Matcher, at: u64, part: &[u8], found: &mut Vec<Found>) {
        match matcher.search() {
            Search::Nothing => {}
            Search::Table(search) => self.run(matcher, search, at, part, found),
            Search::Compact(search) => self.run(matcher, search, at, part, found),
        }
    }

    /// The text has ended.
    pub(super) fn end(&mut self, matcher: &Matcher, found: &mut Vec<Found>) {
        match matcher.search() {
            Search::Nothing => {}
            Search::Table(search) => self.decoder.end(&mut |byte| self.track.step(matcher, search, byte, found)),
            Search::Compact(search) => self.decoder.end(&mut |byte| self.track.step(matcher, search, byte, found)),
        }
    }

    fn run(&mut self, matcher: &Matcher, search: &impl Automaton, at: u64, part: &[u8], found: &mut Vec<Found>) {
        let Self { decoder, track } = self;
        let mut sink = |byte| track.step(matcher, search, byte, found);
        for (at, byte) in (at..).zip(part.iter().copied()) {
            let written = Byte { byte, start: at, end: at + 1 };
            match decoder {
                Decoder::Raw => sink(written),
                Decoder::Once(escapes) => escapes.take(written, &mut sink),
                Decoder::Twice(first, second) => first.take(written, &mut |byte| second.take(byte, &mut sink)),
                Decoder::Digits(digits) => digits.take(at, byte, &mut sink),
            }
        }
    }

    /// Where a value may begin that has not ended yet.
    pub(super) fn pending(&self, matcher: &Matcher) -> Option<u64> {
        let decoding = match &self.decoder {
            Decoder::Raw => None,
            Decoder::Once(escapes) => escapes.pending(),
            Decoder::Twice(first, second) => second.pending().or(first.pending()),
            Decoder::Digits(digits) => {
                let (bits, known, start) = digits.pending();
                matcher.may_begin(bits, known).then_some(start)
            }
        };
        self.track.starts.front().copied().or(decoding)
    }

    /// How many characters of a value match so far that is not complete.
    pub(super) fn matching_chars(&self, matcher: &Matcher) -> u32 {
        let state = self.track.state.map(|state| matcher.state(state));
        state.filter(|state| state.goes_on).map_or(0, |state| state.chars)
    }
}

impl Decoder {
    fn end(&mut self, sink: &mut impl FnMut(Byte)) {
        match self {
            Decoder::Raw | Decoder::Digits(_) => {}
            Decoder::Once(escapes) => escapes.end(sink),
            Decoder::Twice(first, second) => {
                first.end(&mut |byte| second.take(byte, sink));
                second.end(sink);
            }
        }
    }
}

impl Track {
    fn step(&mut self, matcher: &Matcher, search: &impl Automaton, byte: Byte, found: &mut Vec<Found>) {
        let state = match self.state {
            Some(state) => state,
            None => match search.start_state(Anchored::No) {
                Ok(start) => start,
                Err(_) => return,
            },
        };
        let id = search.next_state(Anchored::No, state, byte.byte);
        self.state = Some(id);
        let state = matcher.state(id);
        let depth = state.depth as usize;
        if depth == 0 {
            return self.starts.clear();
        }
        self.starts.push_back(byte.start);
        self.starts.drain(..self.starts.len() - depth);
        if let Some(value) = state.value() {
            let start = self.starts[depth - matcher.bytes(value)];
            found.push(Found { start, end: byte.end, value });
        }
    }
}
