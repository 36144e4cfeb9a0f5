//! One way to read a text, and the automaton's run over what it decodes to.

use std::collections::VecDeque;

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
};

use super::{
    decode::{Blanks, Byte, Digits, Escape, Escapes},
    filter,
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
    /// Reads white space alike, however much there is.
    blanks: Option<Blanks>,
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

/// Every way in which values are found that are written as text. `has_lines`: some have more than one.
pub(super) fn texts(has_lines: bool) -> Vec<View> {
    let once = |escape| Decoder::Once(Escapes::new(escape));
    let twice = Decoder::Twice(Escapes::new(Escape::Json), Escapes::new(Escape::Json));
    let percent = [b'+', b' '].map(|plus| once(Escape::Percent { plus }));
    let texts: Vec<_> = [Decoder::Raw, once(Escape::Json), twice].into_iter().chain(percent).collect();
    let blanks = texts.iter().filter(|_| has_lines).cloned().map(|decoder| View::new(decoder, Some(Blanks::default())));
    let blanks: Vec<_> = blanks.collect();
    texts.into_iter().map(|decoder| View::new(decoder, None)).chain(blanks).collect()
}

/// Every way in which values are found that are written as digits.
pub(super) fn digits() -> Vec<View> {
    let hex = [0, 4].map(|skip| Digits::new(4, skip));
    let base64 = [0, 2, 4, 6].map(|skip| Digits::new(6, skip));
    hex.into_iter().chain(base64).map(|digits| View::new(Decoder::Digits(digits), None)).collect()
}

impl View {
    fn new(decoder: Decoder, blanks: Option<Blanks>) -> Self {
        Self { decoder, blanks, track: Track { state: None, starts: VecDeque::new() } }
    }

    /// Forgets all that was read.
    pub(super) fn restart(&mut self) {
        self.decoder.restart();
        self.blanks = self.blanks.as_ref().map(|_| Blanks::default());
        self.track.state = None;
        self.track.starts.clear();
    }

    /// Whether what was read has nothing to do with what follows, but for digits of which a part of a byte is known.
    pub(super) fn is_idle(&self) -> bool {
        self.track.starts.is_empty() && !self.is_within()
    }

    /// Where reading would have to begin again after all before `read`, if the filter is to find by itself what may have
    /// begun in the part that begins at `since`. `None` if this must read on.
    pub(super) fn resumes_at(&self, since: u64, read: u64) -> Option<u64> {
        let depth = self.track.starts.len() as u64;
        let Some(first) = self.track.starts.front().copied() else { return (!self.is_within()).then_some(read) };
        let is_open = match self.decoder {
            // The bits of the filter's window are not all read.
            Decoder::Digits(_) => depth < filter::WINDOW_BYTES,
            // Each byte stands for itself, so that the filter can find them.
            _ => depth < filter::PREFIX_BYTES as u64 && read - first == depth && !self.is_within(),
        };
        (is_open && first >= since).then_some(first)
    }

    /// Whether the decoders are within something.
    fn is_within(&self) -> bool {
        let decodes = match &self.decoder {
            Decoder::Raw | Decoder::Digits(_) => false,
            Decoder::Once(escapes) => escapes.pending().is_some(),
            Decoder::Twice(first, second) => first.pending().is_some() || second.pending().is_some(),
        };
        decodes || self.blanks.as_ref().is_some_and(Blanks::in_run)
    }

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
        let Self { decoder, blanks, track } = self;
        let mut step = |byte| track.step(matcher, search, byte, found);
        match blanks {
            None => decoder.end(&mut step),
            Some(blanks) => decoder.end(&mut |byte| blanks.take(byte, &mut step)),
        }
    }

    fn run(&mut self, matcher: &Matcher, search: &impl Automaton, at: u64, part: &[u8], found: &mut Vec<Found>) {
        let Self { decoder, blanks, track } = self;
        let mut step = |byte| track.step(matcher, search, byte, found);
        match blanks {
            None => decoder.read(at, part, &mut step),
            Some(blanks) => decoder.read(at, part, &mut |byte| blanks.take(byte, &mut step)),
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
    fn restart(&mut self) {
        match self {
            Decoder::Raw => {}
            Decoder::Once(escapes) => escapes.restart(),
            Decoder::Twice(first, second) => {
                first.restart();
                second.restart();
            }
            Decoder::Digits(digits) => digits.restart(),
        }
    }

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
