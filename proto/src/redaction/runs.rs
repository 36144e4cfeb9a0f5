//! Parts of the text that are replaced: found values, those that overlap put together.

use std::collections::{BTreeSet, VecDeque};

use super::view::Found;

/// A part of the text that consists of values.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub start: u64,
    pub end: u64,
    /// In the order in which they begin, none within another. Each value once: one that repeats itself in steps shorter
    /// than itself would otherwise be written once for every step.
    values: Vec<Found>,
    seen: BTreeSet<u32>,
}

/// Those not written yet, in order. They do not touch each other's text.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(VecDeque<Run>);

impl Runs {
    /// Adds a value. Ends come in order but for small differences between the ways to read the text.
    pub(super) fn add(&mut self, found: Found) {
        let mut run = Run { start: found.start, end: found.end, values: Vec::new(), seen: BTreeSet::new() };
        // Runs that begin behind this value: it has been read to its end later than theirs.
        let mut behind = Vec::new();
        while self.0.back().is_some_and(|last| last.end > found.start) {
            let Some(last) = self.0.pop_back() else { break };
            if last.start >= found.end {
                behind.push(last);
                continue;
            }
            run = last.followed_by(run);
        }
        run.insert(found);
        self.0.push_back(run);
        self.0.extend(behind.into_iter().rev());
    }

    pub(super) fn first(&self) -> Option<&Run> {
        self.0.front()
    }

    pub(super) fn take_first(&mut self) -> Option<Run> {
        self.0.pop_front()
    }
}

impl Run {
    /// The values, in the order in which they are written.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        self.values.iter().map(|found| found.value)
    }

    fn followed_by(mut self, next: Self) -> Self {
        self.start = self.start.min(next.start);
        self.end = self.end.max(next.end);
        // Mostly one of them is empty or short.
        for found in next.values {
            if self.seen.insert(found.value) {
                self.values.push(found);
            }
        }
        self
    }

    fn insert(&mut self, new: Found) {
        let is_within = |inner: &Found, outer: &Found| outer.start <= inner.start && inner.end <= outer.end;
        if self.values.iter().rev().take_while(|known| known.end >= new.end).any(|known| is_within(&new, known)) {
            return;
        }
        while let Some(within) = self.values.pop_if(|known| is_within(known, &new)) {
            self.seen.remove(&within.value);
        }
        if self.seen.insert(new.value) {
            self.values.push(new);
        }
    }
}
