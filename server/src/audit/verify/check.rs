//! From chain to chain and from file to file.

use std::collections::{HashMap, HashSet};

use super::{
    End, Expected, Line, Place, Report, Witness, lines,
    thread::{Suspect, Thread, torn},
};
use crate::{
    audit::{
        Mark, line,
        marker::{ChainData, Kind, NoteDoubt},
        read::Links,
    },
    seal::{
        KeyId, Keyring, Uid,
        chain::{Chain, Mac},
        header,
        source::KeySource,
    },
};

/// How every line begins.
const LINE_START: &[u8] = b"{\"time\":\"";

/// Torn lines remembered before any chain.
const TORN_MAX: usize = 64;

/// What a line is held against.
enum State {
    /// No chain has begun yet, or the one that did cannot be opened: its lines are counted.
    Unknown(Unknown),
    Following(Box<Thread>),
}

#[derive(Default)]
struct Unknown {
    /// What looks torn before the first of its lines; the first few.
    torn: Vec<Place>,
    first: Option<Place>,
    count: u64,
    /// The key of their chain is not available.
    is_locked: bool,
}

impl Default for State {
    fn default() -> Self {
        State::Unknown(Unknown::default())
    }
}

/// A check under way.
pub(super) struct Check<'a> {
    source: &'a dyn KeySource,
    state: State,
    /// How far each chain was seen.
    seen: HashMap<Uid, u64>,
    /// The last header that was opened; most chains have the same.
    opened: Option<(Vec<u8>, Keyring)>,
    witnesses: Vec<(Witness, bool)>,
    /// Chains whose key is not available, by what their markers say.
    locked: HashSet<Uid>,
    /// What the first line follows, which is not in these files.
    before_all: Option<(Place, Mark)>,
    /// Up to where files were removed because enough others are kept.
    removed: Vec<Mark>,
    store: Option<Uid>,
    /// The root keys that chains are under, and where the first chain of each begins.
    roots: Vec<(Place, KeyId)>,
    /// The root key that the store has now.
    root: Option<KeyId>,
    is_partial: bool,
    report: Report,
}

impl<'a> Check<'a> {
    pub(super) fn new(source: &'a dyn KeySource, expected: Expected) -> Self {
        let Expected { witnesses, doubts, store, root, is_partial } = expected;
        let mut report = Report::default();
        for doubt in doubts {
            report.find(None, doubt);
        }
        Self {
            source,
            state: State::default(),
            seen: HashMap::new(),
            opened: None,
            witnesses: witnesses.into_iter().map(|witness| (witness, false)).collect(),
            locked: HashSet::new(),
            before_all: None,
            removed: Vec::new(),
            store,
            roots: Vec::new(),
            root,
            is_partial,
            report,
        }
    }

    /// The next line.
    pub(super) async fn line(&mut self, file: usize, line: Line<'_>, is_last_file: bool) {
        let at = Place { file, line: line.number };
        let links = Links::of(line.bytes).filter(|_| !line.is_too_long);
        let claimed = line::code_of(line.bytes).filter(|_| !line.is_too_long);
        if !line.is_ended && is_last_file && (links.is_none() || claimed.is_none()) {
            self.report.note(at, "is not yet written to its end".to_owned());
            return;
        }
        if let (Some(links), Some(mac)) = (&links, claimed)
            && let Some(kind) = links.marker()
            && let Some(data) = links.chain()
            && self.marker(at, line.bytes, links, mac, kind, data).await
        {
            return;
        }
        let is_torn = links.is_none() && claimed.is_none() && !line.is_too_long && is_beginning(line.bytes);
        let thread = match &mut self.state {
            State::Unknown(unknown) if is_torn => {
                if unknown.torn.len() < TORN_MAX {
                    unknown.torn.push(at);
                }
                return;
            }
            State::Unknown(unknown) => {
                // What looked torn was edited, if lines follow that nothing begins.
                unknown.first.get_or_insert(unknown.torn.first().copied().unwrap_or(at));
                unknown.count += 1;
                return;
            }
            State::Following(thread) => thread,
        };
        let body = &line.bytes[..line.bytes.len().saturating_sub(line::ENDING_BYTES)];
        if let (Some(links), Some(mac)) = (&links, claimed) {
            let chain = &thread.chain;
            // The borrow of the chain ends before the thread is changed: the codes are asked for, not kept.
            let link = |previous: Mac| chain.link(previous, body) == mac;
            let found = thread.predecessor(links.seq.saturating_sub(1), link);
            if let Some(found) = found {
                let before = thread.go(&mut self.report, at, links.seq.saturating_sub(1), found);
                let mark = Mark { chain: thread.chain.id(), seq: links.seq, mac };
                thread.accept(mark, at, links.time.clone());
                if links.marker() == Some(Kind::End) {
                    thread.report.end = End::Ended;
                }
                self.report.lines += 1;
                self.witness(before);
                self.witness(mark);
                return;
            }
        }
        let computed = (!body.is_empty()).then(|| thread.chain.link(thread.good.mac, body));
        let seq = links.map(|links| links.seq);
        let before = seq.and_then(|seq| thread.recent(seq.checked_sub(1)?));
        let is_own = before.is_some_and(|before| Some(thread.chain.link(before, body)) == claimed);
        thread.suspect(Suspect { at, seq, claimed, computed, is_own, is_torn });
    }

    /// A line that begins or continues a chain; `false` if it does so nowhere and is to be taken like any other.
    async fn marker(&mut self, at: Place, bytes: &[u8], links: &Links, mac: Mac, kind: Kind, data: ChainData) -> bool {
        let is_current = matches!(&self.state, State::Following(thread) if thread.chain.id() == data.id);
        let is_known = is_current || self.seen.contains_key(&data.id);
        // Within a file, a chain that was there already is one whose lines were repeated or moved.
        if is_known && !is_current && at.line > 1 {
            return false;
        }
        let base = match (kind, links.previous) {
            (Kind::Begin, _) => Mark { chain: data.id, seq: 0, mac: Mac::NONE },
            (Kind::Continued, Some(previous)) if previous.chain == data.id => previous,
            _ => return false,
        };
        let chain = match self.open(&data).await {
            Ok(chain) => chain,
            Err(_) if is_current => return false,
            Err(header::Error::Source(error)) => {
                self.leave(true);
                let what = format!("its chain cannot be checked: {error}");
                self.report.leave_unchecked(Some(at), what);
                self.locked.insert(data.id);
                self.state = State::Unknown(Unknown { is_locked: true, ..Unknown::default() });
                return true;
            }
            Err(error) => {
                self.leave(true);
                self.report.find(Some(at), format!("begins a chain that cannot be opened: {error}"));
                self.state = State::default();
                return true;
            }
        };
        let body = &bytes[..bytes.len() - line::ENDING_BYTES];
        let is_authentic = chain.link(base.mac, body) == mac;
        let mark = Mark { chain: data.id, seq: links.seq, mac };
        if is_current {
            return is_authentic && self.go_on(at, links, kind, base, mark);
        }
        self.check_note(&chain);
        self.check_store(at, data.store);
        if is_authentic {
            self.check_root(at);
            self.check_connection(at, links, kind, base);
        }
        self.leave(true);
        let mut thread = Box::new(Thread::new(chain, base, at));
        if is_authentic {
            thread.accept(mark, at, links.time.clone());
            self.report.lines += 1;
        } else {
            let computed = Some(thread.chain.link(base.mac, body));
            thread.suspect(Suspect {
                at,
                seq: Some(links.seq),
                claimed: Some(mac),
                computed,
                is_own: false,
                is_torn: false,
            });
        }
        self.state = State::Following(thread);
        if is_authentic {
            self.witness(base);
            self.witness(mark);
        }
        true
    }

    /// An authentic marker of the chain at hand.
    fn go_on(&mut self, at: Place, links: &Links, kind: Kind, base: Mark, mark: Mark) -> bool {
        let State::Following(thread) = &mut self.state else { return false };
        let is_next = thread.predecessor(base.seq, |mac| mac == base.mac);
        match is_next {
            Some(found) => {
                thread.go(&mut self.report, at, base.seq, found);
            }
            None if base.seq > thread.good.seq => thread.skip_to(&mut self.report, base.seq, Some(at)),
            None if at.line == 1 => {
                let what = format!(
                    "its file belongs before line {} of the chain: it goes on after line {}",
                    thread.good.seq, base.seq
                );
                self.report.find(Some(at), what);
                thread.turn_back(&mut self.report);
            }
            None => return false,
        }
        debug_assert!(kind != Kind::End);
        self.removed.extend(links.removed_to);
        thread.accept(mark, at, links.time.clone());
        self.report.lines += 1;
        self.witness(base);
        self.witness(mark);
        true
    }

    /// Whether it is the log of one store, and of the right one.
    fn check_store(&mut self, at: Place, store: Uid) {
        match self.store {
            None => self.store = Some(store),
            Some(right) if right != store => {
                let what = format!("is of the log of another store: {store}, and this one is of {right}");
                self.report.find(Some(at), what);
            }
            Some(_) => {}
        }
    }

    /// Whether what a chain says of the one before it is so.
    fn check_connection(&mut self, at: Place, links: &Links, kind: Kind, base: Mark) {
        let is_first = self.seen.is_empty() && self.locked.is_empty() && !matches!(self.state, State::Following(_));
        self.removed.extend(links.removed_to);
        if let Some(doubt) = links.note {
            let doubt = match doubt {
                NoteDoubt::Missing => "no head",
                NoteDoubt::Unreadable => "no head that could be read",
            };
            let what = format!(
                "the server found {doubt} beside the log when it started here: \
                 whether lines were cut off before it, nobody knows"
            );
            self.report.find(Some(at), what);
        }
        if let State::Following(thread) = &mut self.state
            && kind == Kind::Begin
            && let Some(previous) = links.previous.filter(|previous| previous.chain == thread.chain.id())
        {
            match thread.predecessor(previous.seq, |mac| mac == previous.mac) {
                Some(found) => {
                    let before = thread.go(&mut self.report, at, previous.seq, found);
                    self.witness(before);
                }
                None => thread.skip_to(&mut self.report, previous.seq, Some(at)),
            }
        } else {
            let previous = if kind == Kind::Begin { links.previous } else { Some(base) };
            if let Some(previous) = previous {
                let (chain, seq) = (previous.chain, previous.seq);
                let reached = self.reached(chain);
                if is_first {
                    self.before_all = Some((at, previous));
                } else if self.locked.contains(&chain) {
                    // What is before it cannot be told, which was said there.
                } else if reached.is_none_or(|reached| reached < seq) {
                    self.report
                        .find(Some(at), format!("lines are missing before it: up to line {seq} of chain {chain}"));
                } else if kind == Kind::Continued || matches!(self.state, State::Following(_)) {
                    let what = format!("is not where it belongs: it follows line {seq} of chain {chain}");
                    self.report.find(Some(at), what);
                }
            } else if !is_first {
                let what = "begins a log anew, though lines stand before it".to_owned();
                if self.is_partial {
                    self.report.note(at, what);
                } else {
                    self.report.find(Some(at), what);
                }
            }
        }
        if let Some(missing) = links.missing_after.filter(|missing| !is_first && !self.locked.contains(&missing.chain))
            && self.reached(missing.chain).is_none_or(|reached| reached < missing.seq)
        {
            let (chain, seq) = (missing.chain, missing.seq);
            let what = format!("lines were cut off before the server started here: up to line {seq} of chain {chain}");
            self.report.find(Some(at), what);
        }
    }

    /// How far a chain was seen.
    fn reached(&self, chain: Uid) -> Option<u64> {
        let current = match &self.state {
            State::Following(thread) if thread.chain.id() == chain => Some(thread.reached()),
            _ => None,
        };
        current.max(self.seen.get(&chain).copied())
    }

    fn check_note(&mut self, chain: &Chain) {
        for (witness, is_found) in &mut self.witnesses {
            if let Witness::Noted(note) = witness
                && note.mark.chain == chain.id()
                && !note.is_of(chain)
            {
                *is_found = true;
                self.report.find(None, format!("{witness} was edited"));
            }
        }
    }

    fn witness(&mut self, mark: Mark) {
        for (witness, is_found) in &mut self.witnesses {
            *is_found |= witness.mark() == mark;
        }
    }

    /// Ends with the chain at hand.
    fn leave(&mut self, is_followed: bool) {
        match std::mem::take(&mut self.state) {
            State::Unknown(Unknown { first: Some(first), count, is_locked: true, .. }) => {
                let what = format!("{} from here on cannot be checked without their key", lines(count));
                self.report.leave_unchecked(Some(first), what);
            }
            State::Unknown(Unknown { first: Some(first), count, .. }) => {
                let what = format!("{} from here on cannot be checked: no chain begins before them", lines(count));
                self.report.find(Some(first), what);
            }
            State::Unknown(Unknown { torn: places, .. }) => {
                places.into_iter().for_each(|at| torn(&mut self.report, at))
            }
            State::Following(mut thread) => {
                thread.close(&mut self.report);
                if is_followed && thread.report.end == End::Open {
                    thread.report.end = End::Killed;
                }
                let reached = self.seen.entry(thread.chain.id()).or_default();
                *reached = thread.reached().max(*reached);
                let ends_at = thread.good_at;
                for (witness, is_found) in &mut self.witnesses {
                    let mark = witness.mark();
                    if !*is_found && mark.chain == thread.chain.id() {
                        *is_found = true;
                        if mark.seq < thread.base {
                            self.report.note(ends_at, format!("{witness} is of a file that is not among these"));
                            continue;
                        }
                        let what = if mark.seq > *reached {
                            format!(
                                "is the last line of chain {}, but {witness} is line {}: the end is cut off",
                                mark.chain, mark.seq
                            )
                        } else {
                            format!("line {} of chain {} is not as {witness} knows it", mark.seq, mark.chain)
                        };
                        self.report.find(Some(ends_at), what);
                    }
                }
                self.report.chains.push(thread.report);
            }
        }
    }

    /// After the last line.
    pub(super) fn finish(mut self) -> Report {
        self.leave(false);
        self.check_last_root();
        if let Some((at, Mark { chain, seq, .. })) = self.before_all {
            let is_removed = self.removed.iter().any(|removed| Some(*removed) == self.before_all.map(|(_, mark)| mark));
            let follows = format!("follows line {seq} of chain {chain}");
            if is_removed {
                self.report
                    .note(at, format!("{follows}; the server removed the files before it, of which enough are kept"));
            } else if self.is_partial {
                self.report.note(at, format!("{follows}, which is not in these files"));
            } else {
                self.report
                    .find(Some(at), format!("{follows}, which is not in these files: lines are missing before it"));
            }
        }
        for (witness, is_found) in &self.witnesses {
            let chain = witness.mark().chain;
            if !is_found && self.locked.contains(&chain) {
                let what = format!("{witness} is of chain {chain}, which cannot be checked");
                self.report.leave_unchecked(None, what);
            } else if !is_found {
                self.report.find(None, format!("the chain of {witness}, {chain}, is not in these files"));
            }
        }
        self.report
    }

    /// Whoever once had a root key can write whole chains under it. Once it was rotated away no server does.
    fn check_root(&mut self, at: Place) {
        let Some(root) = self.opened.as_ref().map(|(_, keyring)| keyring.root_id()) else { return };
        match self.roots.iter().position(|(_, known)| *known == root) {
            None => self.roots.push((at, root)),
            Some(known) if known + 1 < self.roots.len() => {
                let what = "is of a chain under a root key that was rotated away before: no server wrote it here";
                self.report.find(Some(at), what.to_owned());
            }
            Some(_) => {}
        }
    }

    /// A server goes on with the chain that it began before the root key was rotated, until its next start.
    fn check_last_root(&mut self) {
        if let (Some(now), Some((at, last))) = (self.root, self.roots.last().copied())
            && now != last
        {
            let what = "the last chains, from here on, are under a root key that was rotated away since: whoever has that \
                        key could have written them; what the server writes after its next start vouches for them";
            self.report.note(at, what.to_owned());
        }
    }

    async fn open(&mut self, data: &ChainData) -> Result<Chain, header::Error> {
        if self.opened.as_ref().is_none_or(|(header, _)| *header != data.header) {
            let keyring = header::open(self.source, &data.header).await?;
            self.opened = Some((data.header.clone(), keyring));
        }
        match &self.opened {
            Some((header, keyring)) if keyring.store() == data.store => {
                Ok(Chain::open(keyring, header, data.id, data.nonce))
            }
            _ => Err(header::Error::Damaged),
        }
    }
}

/// Whether this could be the beginning of a line.
fn is_beginning(bytes: &[u8]) -> bool {
    let length = bytes.len().min(LINE_START.len());
    bytes[..length] == LINE_START[..length]
}
