//! One way to read a text, and the automaton's run over what it decodes to.

use std::collections::VecDeque;

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
};

use super::{
    decode::{Byte, Digits, Escape, Escapes, Lines},
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
    /// Reads line breaks alike, however they are written.
    lines: Option<Lines>,
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

/// Every way in which values are found. `lines`: some have more than one.
pub(super) fn all(lines: bool) -> Vec<View> {
    let once = |escape| Decoder::Once(Escapes::new(escape));
    let twice = Decoder::Twice(Escapes::new(Escape::Json), Escapes::new(Escape::Json));
    let hex = [0, 4].map(|skip| Decoder::Digits(Digits::new(4, skip)));
    let base64 = [0, 2, 4, 6].map(|skip| Decoder::Digits(Digits::new(6, skip)));
    let percent = [b'+', b' '].map(|plus| once(Escape::Percent { plus }));
    let texts: Vec<_> = [Decoder::Raw, once(Escape::Json), twice].into_iter().chain(percent).collect();
    let view =
        |decoder, lines: Option<Lines>| View { decoder, lines, track: Track { state: None, starts: VecDeque::new() } };
    let normal = texts.iter().filter(|_| lines).cloned().map(|decoder| view(decoder, Some(Lines::default())));
    let normal: Vec<_> = normal.collect();
    texts.into_iter().chain(hex).chain(base64).map(|decoder| view(decoder, None)).chain(normal).collect()
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
            Search::Table(search) => self.run_end(matcher, search, found),
            Search::Compact(search) => self.run_end(matcher, search, found),
        }
    }

    fn run_end(&mut self, matcher: &Matcher, search: &impl Automaton, found: &mut Vec<Found>) {
        let Self { decoder, lines, track } = self;
        let mut step = |byte| track.step(matcher, search, byte, found);
        match lines {
            None => decoder.end(&mut step),
            Some(lines) => {
                decoder.end(&mut |byte| lines.take(byte, &mut step));
                lines.end(&mut step);
            }
        }
    }

    fn run(&mut self, matcher: &Matcher, search: &impl Automaton, at: u64, part: &[u8], found: &mut Vec<Found>) {
        let Self { decoder, lines, track } = self;
        let mut step = |byte| track.step(matcher, search, byte, found);
        match lines {
            None => decoder.read(at, part, &mut step),
            Some(lines) => decoder.read(at, part, &mut |byte| lines.take(byte, &mut step)),
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
        // Only at the beginning of a value: within one, that begins before.
        let line = self.lines.as_ref().and_then(Lines::pending).filter(|_| matcher.may_begin(b'\n' >> 2, 6));
        self.track.starts.front().copied().or(line).or(decoding)
    }

    /// How many characters of a value match so far that is not complete.
    pub(super) fn matching_chars(&self, matcher: &Matcher) -> u32 {
        let state = self.track.state.map(|state| matcher.state(state));
        state.filter(|state| state.goes_on).map_or(0, |state| state.chars)
    }
}

impl Decoder {
    fn read(&mut self, at: u64, part: &[u8], sink: &mut impl FnMut(Byte)) {
        for (at, byte) in (at..).zip(part.iter().copied()) {
            let written = Byte { byte, start: at, end: at + 1 };
            match self {
                Decoder::Raw => sink(written),
                Decoder::Once(escapes) => escapes.take(written, sink),
                Decoder::Twice(first, second) => first.take(written, &mut |byte| second.take(byte, sink)),
                Decoder::Digits(digits) => digits.take(at, byte, sink),
            }
        }
    }

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
