//! One chain, followed over its lines.
//!
//! A line that does not follow the last good one is a suspect until a later line tells: a later line's code vouches for
//! its predecessor's, so the next intact line shows whether suspects were edited, put in, or lack others before them.

use std::collections::VecDeque;

use super::{ChainReport, End, Place, Report, lines};
use crate::{
    audit::Mark,
    seal::chain::{Chain, Mac},
};

/// Suspects kept in full; older ones are counted.
const SUSPECTS_MAX: usize = 64;
/// How many suspects a line is tried on, so that a ruined file costs little more than a good one.
const TRIED_MAX: usize = 4;
/// Last lines remembered, to know a repeated one.
const RECENT_MAX: usize = 4_096;

/// A chain being followed.
pub(super) struct Thread {
    pub(super) chain: Chain,
    pub(super) report: ChainReport,
    /// The last line that is proved, and where it stands.
    pub(super) good: Mark,
    pub(super) good_at: Place,
    /// The number of the line before the first one here.
    pub(super) base: u64,
    /// Where the chain was before it went back to lines that stand out of their order.
    front: Option<Mark>,
    pub(super) suspects: VecDeque<Suspect>,
    /// Suspects too many to be kept: the first one's place, and how many.
    lost: Option<(Place, u64)>,
    /// Lines that were found to be strange, until another line shows that they only stand in the wrong place.
    strays: VecDeque<(Mac, Option<usize>)>,
    recent: VecDeque<(u64, Mac)>,
}

/// A line that does not follow the last good one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) at: Place,
    /// Its number, if it says one.
    pub(super) seq: Option<u64>,
    /// The code that it ends with.
    pub(super) claimed: Option<Mac>,
    /// The code that it should have, were it the next line.
    pub(super) computed: Option<Mac>,
    /// The line that it says it follows was there, and vouches for it: it was only moved.
    pub(super) is_own: bool,
    /// It looks like the beginning of a line that a crash or a full disk cut short.
    pub(super) is_torn: bool,
}

/// Which line is the predecessor of the one at hand.
pub(super) enum Found {
    Good,
    Front,
    Suspect(usize, Mac),
    Stray(usize),
}

impl Thread {
    /// A chain whose line `good` is taken as it is, or as what stands before the first.
    pub(super) fn new(chain: Chain, good: Mark, good_at: Place) -> Self {
        let report = ChainReport {
            id: chain.id(),
            store: chain.store(),
            lines: 0,
            first_time: String::new(),
            last_time: String::new(),
            last: good,
            end: End::Open,
        };
        Self {
            chain,
            report,
            good,
            good_at,
            base: good.seq,
            front: None,
            suspects: VecDeque::new(),
            lost: None,
            strays: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    /// The highest number reached.
    pub(super) fn reached(&self) -> u64 {
        self.front.map_or(0, |front| front.seq).max(self.good.seq)
    }

    /// What follows stands before what was read.
    pub(super) fn turn_back(&mut self, report: &mut Report) {
        self.settle(report);
        self.front = Some(self.front.filter(|front| front.seq > self.good.seq).unwrap_or(self.good));
    }

    /// Takes a line as proved.
    pub(super) fn accept(&mut self, mark: Mark, at: Place, time: String) {
        (self.good, self.good_at) = (mark, at);
        self.report.lines += 1;
        self.report.last = mark;
        if self.report.first_time.is_empty() {
            self.report.first_time.clone_from(&time);
        }
        self.report.last_time = time;
        if self.front.is_some_and(|front| front.seq < mark.seq) {
            self.front = None;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((mark.seq, mark.mac));
    }

    /// The code of a line that was there lately.
    pub(super) fn recent(&self, seq: u64) -> Option<Mac> {
        self.recent.iter().rev().find(|(recent, _)| *recent == seq).map(|(_, mac)| *mac)
    }

    pub(super) fn suspect(&mut self, suspect: Suspect) {
        if self.suspects.len() == SUSPECTS_MAX
            && let Some(oldest) = self.suspects.pop_front()
        {
            self.lost.get_or_insert((oldest.at, 0)).1 += 1;
        }
        self.suspects.push_back(suspect);
    }

    /// Goes on to a line at `at` whose predecessor, number `seq`, was found. Says what that shows of the suspects, and
    /// returns that predecessor.
    pub(super) fn go(&mut self, report: &mut Report, at: Place, seq: u64, found: Found) -> Mark {
        let predecessor = |mac| Mark { chain: self.chain.id(), seq, mac };
        match found {
            Found::Good => self.settle(report),
            Found::Front => {
                self.settle(report);
                self.good = self.front.take().unwrap_or(self.good);
            }
            Found::Stray(number) => {
                let Some((mac, finding)) = self.strays.remove(number) else { return self.good };
                let mark = predecessor(mac);
                report.amend(finding, format!("stands out of its order: it is line {seq} of its chain"));
                self.skip_to(report, seq.saturating_sub(1), Some(at));
                return mark;
            }
            Found::Suspect(number, mac) => {
                let mark = predecessor(mac);
                self.resolve(report, seq, number, mac);
                return mark;
            }
        }
        self.good
    }

    /// The line whose code `is_predecessor` knows; its number should be `seq`.
    pub(super) fn predecessor(&self, seq: u64, is_predecessor: impl Fn(Mac) -> bool) -> Option<Found> {
        if is_predecessor(self.good.mac) {
            return Some(Found::Good);
        }
        let newest = self.suspects.iter().enumerate().rev();
        let (near, far) = (newest.clone().take(TRIED_MAX), newest.skip(TRIED_MAX));
        for (number, suspect) in near.chain(far.filter(|(_, suspect)| suspect.seq == Some(seq)).take(TRIED_MAX)) {
            let mac = [suspect.claimed, suspect.computed].into_iter().flatten().find(|mac| is_predecessor(*mac));
            if let Some(mac) = mac {
                return Some(Found::Suspect(number, mac));
            }
        }
        if self.front.is_some_and(|front| is_predecessor(front.mac)) {
            return Some(Found::Front);
        }
        let stray = self.strays.iter().position(|(mac, _)| is_predecessor(*mac));
        stray.map(Found::Stray)
    }

    /// One of the suspects is line `seq` of the chain: says what it and those around it are.
    fn resolve(&mut self, report: &mut Report, seq: u64, number: usize, mac: Mac) {
        let mut before: Vec<_> = self.suspects.drain(..=number).collect();
        let Some(found) = before.pop() else { return };
        // What stands between it and the line at hand belongs to nothing.
        self.settle(report);
        if seq <= self.good.seq {
            let what =
                format!("stands out of its order: it is line {seq} of its chain and follows line {}", self.good.seq);
            report.find(Some(found.at), what);
            self.foreign(report, before);
            return self.turn_back(report);
        }
        let between = seq - self.good.seq - 1;
        let whole = before.iter().filter(|suspect| !suspect.is_torn).count() as u64;
        let count = before.len() as u64;
        // As many lines as are missing were edited, torn ones too if there are no others.
        let edited_torn = count <= between;
        let mut edited = Vec::new();
        for suspect in before {
            if suspect.is_torn && !edited_torn {
                torn(report, suspect.at);
            } else if whole > between {
                report.find(Some(suspect.at), "was edited, or put in".to_owned());
            } else {
                edited.push(suspect.at);
            }
        }
        let count = edited.len() as u64;
        let is_missing = between > count && whole <= between;
        if is_missing {
            self.missing(report, found.at, self.good.seq + 1 + count, seq - 1);
        }
        if !is_missing || found.seq != Some(seq) || found.claimed != Some(mac) {
            edited.push(found.at);
        }
        match edited[..] {
            [] => {}
            [at] if found.claimed != Some(mac) => {
                report.find(Some(at), "was edited: its code is not its own".to_owned());
            }
            [at] => {
                report.find(Some(at), "was edited".to_owned());
            }
            [first, ..] => {
                let many = lines(edited.len() as u64);
                report
                    .find(Some(first), format!("{many} from here on were edited, or cannot be checked for the first"));
            }
        }
    }

    /// Goes on after lines that are not there: at a marker, which names its predecessor itself.
    pub(super) fn skip_to(&mut self, report: &mut Report, seq: u64, at: Option<Place>) {
        if seq > self.good.seq {
            let suspects: Vec<_> = self.suspects.drain(..).collect();
            let (first, altered) = (self.good.seq + 1, suspects.len() as u64);
            let is_missing = seq + 1 > first + altered;
            for suspect in suspects {
                if suspect.is_torn && seq + 1 < first + altered {
                    torn(report, suspect.at);
                } else {
                    report.find(Some(suspect.at), "was edited, or put in".to_owned());
                }
            }
            if is_missing && let Some(at) = at {
                self.missing(report, at, first + altered, seq);
            }
        }
        self.settle(report);
    }

    fn missing(&self, report: &mut Report, at: Place, first: u64, last: u64) {
        let (count, id) = (lines(last - first + 1), self.chain.id());
        let numbers = if first == last { format!("number {first}") } else { format!("numbers {first} to {last}") };
        report.find(Some(at), format!("{count} of chain {id} missing before it: {numbers}"));
    }

    /// The chain goes on without the suspects: says what they are.
    fn settle(&mut self, report: &mut Report) {
        self.tell_lost(report);
        let suspects: Vec<_> = self.suspects.drain(..).collect();
        self.foreign(report, suspects);
    }

    fn foreign(&mut self, report: &mut Report, suspects: Vec<Suspect>) {
        for suspect in suspects {
            if suspect.is_torn {
                torn(report, suspect.at);
                continue;
            }
            let repeated = suspect.seq.zip(suspect.claimed).filter(|line| self.recent.contains(line));
            let what = match (repeated, suspect.seq) {
                (Some((seq, _)), _) => format!("repeats line {seq} of its chain"),
                (None, Some(seq)) if suspect.is_own => {
                    format!("stands out of its order: it is line {seq} of its chain")
                }
                _ => "was put in: the chain goes on without it".to_owned(),
            };
            let finding = report.find(Some(suspect.at), what);
            if let (None, Some(mac)) = (repeated, suspect.claimed) {
                if self.strays.len() == SUSPECTS_MAX {
                    self.strays.pop_front();
                }
                self.strays.push_back((mac, finding));
            }
        }
    }

    fn tell_lost(&mut self, report: &mut Report) {
        if let Some((at, count)) = self.lost.take() {
            report.find(Some(at), format!("{} from here on were edited or put in", lines(count)));
        }
    }

    /// Nothing follows that could tell what the suspects are.
    pub(super) fn close(&mut self, report: &mut Report) {
        self.tell_lost(report);
        let suspects: Vec<_> = self.suspects.drain(..).collect();
        if suspects.iter().all(|suspect| suspect.is_torn) {
            return suspects.iter().for_each(|suspect| torn(report, suspect.at));
        }
        // Among lines that nothing vouches for, one that looks torn may be what was edited.
        match suspects[..] {
            [] => {}
            [one] => {
                report.find(Some(one.at), "was edited or put in: it does not follow the line before it".to_owned());
            }
            [first, ..] => {
                let many = lines(suspects.len() as u64);
                let what = format!("{many} from here on were edited or put in, or the line before them is missing");
                report.find(Some(first.at), what);
            }
        }
    }
}

pub(super) fn torn(report: &mut Report, at: Place) {
    report.note(at, "is a part of a line that could not be written whole; nothing is missing".to_owned());
}
