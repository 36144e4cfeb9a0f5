//! A call's intent and outcome as one row, at the intent's place.

use std::collections::VecDeque;

use crate::audit::read::Shown;

/// Rows held back for an outcome that may still come: calls overlap, but none lasts for so many others.
const WAITING_MAX: usize = 4_096;
/// And what they hold, in bytes: lines may name much.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Rows in the order in which calls began.
#[derive(Debug, Default)]
pub(super) struct Joined {
    rows: VecDeque<(Shown, bool)>,
    bytes: usize,
}

impl Joined {
    /// Takes a line; gives back the rows that are complete.
    pub(super) fn add(&mut self, line: Shown) -> Vec<Shown> {
        let is_outcome = matches!(line.phase.as_str(), "done" | "failed") && !line.call.is_empty();
        let is_same = |row: &Shown| row.call == line.call && row.method == line.method;
        let begun = self.rows.iter_mut().rev().find(|(row, waits)| is_outcome && *waits && is_same(row));
        match begun {
            Some((row, waits)) => {
                row.phase = line.phase;
                row.reason = line.reason;
                *waits = false;
            }
            None => {
                let waits = line.phase == "intent";
                self.bytes += size(&line);
                self.rows.push_back((line, waits));
            }
        }
        let mut ready = Vec::new();
        while let Some((_, waits)) = self.rows.front() {
            if *waits && self.rows.len() <= WAITING_MAX && self.bytes <= WAITING_BYTES_MAX {
                break;
            }
            let row = self.rows.pop_front().map(|(row, _)| row);
            self.bytes -= row.as_ref().map_or(0, size);
            ready.extend(row);
        }
        ready
    }

    /// Those whose outcome never came, too.
    pub(super) fn rest(self) -> impl Iterator<Item = Shown> {
        self.rows.into_iter().map(|(row, _)| row)
    }
}

/// Roughly what a row takes: what grows are its subjects. An outcome changes nothing of that.
fn size(row: &Shown) -> usize {
    let subjects = row.subjects.iter().map(|subject| size_of_val(subject) + subject.name.len()).sum::<usize>();
    size_of_val(row) + row.principal.len() + row.peer.as_ref().map_or(0, String::len) + subjects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(call: &str, phase: &str) -> Shown {
        let reason = (phase == "failed").then(|| "SCOPE_FULL".to_owned());
        Shown { call: call.to_owned(), phase: phase.to_owned(), time: "t".to_owned(), reason, ..Shown::default() }
    }

    fn rows(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut joined = Joined::default();
        let mut shown: Vec<_> = lines.iter().flat_map(|(call, phase)| joined.add(line(call, phase))).collect();
        shown.extend(joined.rest());
        shown.into_iter().map(|row| (row.call, row.phase)).collect()
    }

    #[test]
    fn an_outcome_joins_its_intent_and_overlapping_calls_keep_their_order() {
        let row = |call: &str, phase: &str| (call.to_owned(), phase.to_owned());
        let lines = [("a", "intent"), ("b", "intent"), ("c", "read"), ("b", "done"), ("a", "failed"), ("d", "intent")];
        assert_eq!(rows(&lines), [row("a", "failed"), row("b", "done"), row("c", "read"), row("d", "intent")]);
        assert_eq!(rows(&[("a", "done"), ("a", "done")]), [row("a", "done"), row("a", "done")], "no intent was shown");
        let mut joined = Joined::default();
        joined.add(line("a", "intent"));
        assert_eq!(joined.add(line("a", "failed"))[0].reason.as_deref(), Some("SCOPE_FULL"));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut joined = Joined::default();
        let shown: usize = (0..3 * WAITING_MAX).map(|call| joined.add(line(&call.to_string(), "intent")).len()).sum();
        assert_eq!(shown, 2 * WAITING_MAX);
        assert_eq!(joined.rest().count(), WAITING_MAX);
    }

    #[test]
    fn rows_that_name_much_do_not_wait_for_ever() {
        let mut joined = Joined::default();
        let subject = crate::audit::read::ShownSubject { name: "n".repeat(1_000_000) };
        let large = |call: &str| Shown { subjects: vec![subject.clone()], ..line(call, "intent") };
        let given: usize = (0..30).map(|call| joined.add(large(&call.to_string())).len()).sum();
        assert_eq!(given, 22, "eight fit");
        assert_eq!(joined.rest().count(), 8);
    }
}
