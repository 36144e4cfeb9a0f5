//! What was said last, so that it is not said again and again.

use crate::report;

/// The last of one kind.
#[derive(Default)]
pub(super) struct Said(Vec<String>);

impl Said {
    /// Says it, unless it is what was said last.
    pub(super) fn once<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        let lines: Vec<_> = lines.into_iter().map(str::to_owned).collect();
        if self.0 != lines {
            lines.iter().for_each(|line| report::line(line));
            self.0 = lines;
        }
    }

    /// It is over: should it come again, it is said again.
    pub(super) fn nothing(&mut self) {
        self.0.clear();
    }

    /// The same, and that is said too.
    pub(super) fn over(&mut self, line: &str) {
        if !self.0.is_empty() {
            report::line(line);
        }
        self.nothing();
    }
}
