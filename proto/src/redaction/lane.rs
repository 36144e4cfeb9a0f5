//! Readings that begin and end together: where the filter says so, and when none of them is within a value any more.

use super::{
    filter::{self, Digits},
    matcher::Matcher,
    view::{self, Found, View},
};

/// So many bytes are read before it is asked again whether all readings are idle.
const STEP_BYTES: usize = 16;

/// A kind of writing, with all of its readings.
#[derive(Debug)]
pub(super) struct Lane {
    writing: Writing,
    views: Vec<View>,
    /// Whether the readings have read all up to now. Otherwise there is nothing before from which a value may begin.
    is_reading: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Text,
    Digits,
}

impl Lane {
    /// Every way in which values are found. `has_lines`: some have more than one.
    pub(super) fn all(has_lines: bool) -> Vec<Self> {
        let lane = |writing, views| Self { writing, views, is_reading: false };
        vec![lane(Writing::Text, view::texts(has_lines)), lane(Writing::Digits, view::digits())]
    }

    /// Reads on. `at` is where in the whole text the part begins.
    pub(super) fn read(&mut self, matcher: &Matcher, at: u64, part: &[u8], found: &mut Vec<Found>) {
        let mut reading = Reading { lane: self, matcher, at, part, found };
        match reading.lane.writing {
            Writing::Text => reading.text(),
            Writing::Digits => reading.digits(),
        }
    }

    /// The text has ended.
    pub(super) fn end(&mut self, matcher: &Matcher, found: &mut Vec<Found>) {
        if self.is_reading {
            self.views.iter_mut().for_each(|view| view.end(matcher, found));
        }
    }

    /// Where a value may begin that has not ended yet.
    pub(super) fn pending(&self, matcher: &Matcher) -> Option<u64> {
        self.active().filter_map(|view| view.pending(matcher)).min()
    }

    /// How many characters of a value match so far that is not complete.
    pub(super) fn matching_chars(&self, matcher: &Matcher) -> u32 {
        self.active().map(|view| view.matching_chars(matcher)).max().unwrap_or(0)
    }

    fn active(&self) -> impl Iterator<Item = &View> {
        self.views.iter().filter(|_| self.is_reading)
    }

    fn resumes_at(&self, since: u64, read: u64) -> Option<u64> {
        self.views.iter().try_fold(read, |resume, view| Some(resume.min(view.resumes_at(since, read)?)))
    }

    fn is_idle(&self) -> bool {
        self.views.iter().all(View::is_idle)
    }
}

/// One part that is read.
struct Reading<'a> {
    lane: &'a mut Lane,
    matcher: &'a Matcher,
    at: u64,
    part: &'a [u8],
    found: &'a mut Vec<Found>,
}

impl Reading<'_> {
    fn text(&mut self) {
        let mut read = if self.lane.is_reading { self.go_on(0, 0) } else { 0 };
        while let Some(place) = self.matcher.filter().text(self.part, read) {
            read = self.begin(place.start, place.end);
        }
        self.lane.is_reading = !self.lane.is_idle();
    }

    fn digits(&mut self) {
        let Some(last) = self.part.last() else { return };
        let mut read = if self.lane.is_reading { self.go_on(0, filter::first_digits(self.part)) } else { 0 };
        for place in Digits::new(self.matcher.filter(), self.part) {
            // Otherwise the readings have seen it.
            if place.end > read {
                read = self.begin(place.start, place.end);
            }
        }
        if read < self.part.len() {
            let last = filter::last_digits(self.part);
            self.begin(last, self.part.len());
        }
        self.lane.is_reading = filter::in_run(*last) || !self.lane.is_idle();
    }

    /// Begins to read at `start`, as far as [`Self::go_on`] does.
    fn begin(&mut self, start: usize, until: usize) -> usize {
        self.lane.views.iter_mut().for_each(View::restart);
        self.go_on(start, until)
    }

    /// Reads from `start` to `until` and on while a reading is within a value. Answers from where on the filter is to look.
    fn go_on(&mut self, start: usize, until: usize) -> usize {
        let mut read = start;
        let mut end = until.max(start);
        loop {
            end = end.min(self.part.len());
            for view in &mut self.lane.views {
                view.read(self.matcher, self.at + read as u64, &self.part[read..end], self.found);
            }
            read = end;
            if read == self.part.len() {
                return read;
            }
            // Half of what is read is done with, so that nothing is read again and again.
            let resume = self.lane.resumes_at(self.at, self.at + read as u64).map(|resume| (resume - self.at) as usize);
            if let Some(resume) = resume.filter(|resume| *resume > usize::midpoint(start, read))
                && filter::is_free(self.part, resume)
            {
                return resume;
            }
            end = read + STEP_BYTES;
        }
    }
}
