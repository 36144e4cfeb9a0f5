//! Sinks that are full, broken, and rotated.

use std::{
    io,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use super::*;
use crate::{
    audit::{
        line::tests::event,
        marker::tests::Sealed,
        rotation::Surplus,
        sink::OpenError,
        verify::{
            Expected, Witness,
            tests::{report_by, report_on},
        },
    },
    clock::SystemClock,
    seal::Uid,
};

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Room left before ENOSPC.
    room: usize,
    can_cut: bool,
    sync_fails: bool,
    rotated: Vec<Vec<u8>>,
    note: Option<Note>,
}

#[derive(Clone, Default)]
struct Small(Arc<Mutex<State>>);

impl Small {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().expect("a lock"))
    }

    fn lines(&self) -> Vec<String> {
        self.with(|state| String::from_utf8(state.bytes.clone()).expect("UTF-8").lines().map(str::to_owned).collect())
    }
}

impl Sink for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|state| {
            let taken = bytes.len().min(state.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.bytes.extend_from_slice(&bytes[..taken]);
            state.room -= taken;
            Ok(taken)
        })
    }

    fn cut_back(&mut self, bytes: u64) -> bool {
        self.with(|state| {
            let length = state.bytes.len() - usize::try_from(bytes).expect("small");
            if state.can_cut {
                state.bytes.truncate(length);
            }
            state.can_cut
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state| if state.sync_fails { Err(io::Error::other("EIO")) } else { Ok(()) })
    }

    fn is_displaced(&self) -> bool {
        false
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        Ok(())
    }

    fn before(&self) -> Before {
        Before::default()
    }

    fn bytes(&self) -> u64 {
        self.with(|state| state.bytes.len() as u64)
    }

    fn rotate(&mut self, _: std::time::SystemTime, _: u64, _: u32) -> Result<Surplus, OpenError> {
        self.with(|state| {
            let file = std::mem::take(&mut state.bytes);
            state.rotated.push(file);
        });
        Ok(Surplus::default())
    }

    fn remove(&self, _: Surplus) {}

    fn keep(&self, note: &Note) -> io::Result<()> {
        self.with(|state| state.note = Some(*note));
        Ok(())
    }
}

fn writer(sink: &Small, options: Options) -> Writer<Small> {
    Writer::new(sink.clone(), options, Arc::new(SystemClock), Arc::default())
}

fn group(count: usize) -> Vec<Event> {
    (0..count).map(|_| event("m")).collect()
}

fn seq(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64()
}

proptest! {
    /// Whatever room is left at each write: the lines answered with Ok are in the sink, whole and in order, and the
    /// chain goes over what stands there.
    #[test]
    fn what_is_answered_is_there(rooms in prop::collection::vec(0_usize..1_500, 1..8), can_cut: bool) {
        let (sink, sealed) = (Small::default(), Sealed::new());
        sink.with(|state| state.can_cut = can_cut);
        let mut writer = writer(&sink, Options::default());
        writer.begin(sealed.chain());
        let mut answered = 0;
        for room in rooms {
            sink.with(|state| state.room = room);
            answered += writer.write(&group(3)).iter().filter(|answer| answer.is_ok()).count();
        }
        sink.with(|state| state.room = usize::MAX);
        answered += writer.write(&group(1)).iter().filter(|answer| answer.is_ok()).count();
        let lines = sink.lines();
        let seqs: Vec<_> = lines.iter().filter_map(|line| seq(line)).collect();
        // A line that lacked nothing but its newline is completed by the next, though its call was told otherwise.
        prop_assert!(seqs.len() > answered, "with the first line of the chain");
        prop_assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
        if can_cut {
            prop_assert_eq!(lines.len(), answered + 1, "no fragments");
            prop_assert_eq!(&seqs, &(1..=answered as u64 + 1).collect::<Vec<_>>());
        }
        let report = report_on(vec![sink.with(|state| state.bytes.clone())], vec![], &sealed.source);
        prop_assert!(report.findings.is_empty(), "{:?}\n{:#?}", report.findings, lines);
        prop_assert_eq!(report.lines, seqs.len() as u64);
        prop_assert_eq!(report.notes.len(), lines.len() - seqs.len(), "each fragment is mentioned");
    }
}

#[test]
fn without_a_chain_no_line_is_written() {
    let sink = Small::default();
    sink.with(|state| state.room = usize::MAX);
    let mut writer = writer(&sink, Options::default());
    assert_eq!(writer.write(&group(2)), [Err(Unavailable), Err(Unavailable)]);
    writer.end();
    assert_eq!(sink.lines(), [""; 0]);
}

#[test]
fn a_full_file_is_put_aside_and_every_file_can_be_checked_by_itself() {
    let (sink, sealed) = (Small::default(), Sealed::new());
    sink.with(|state| state.room = usize::MAX);
    let mut writer = writer(&sink, Options { max_bytes: 2_000, ..Options::default() });
    writer.begin(sealed.chain());
    for _ in 0..60 {
        assert_eq!(writer.write(&group(1)), [Ok(())]);
    }
    writer.end();
    let (mut files, note) = sink.with(|state| (state.rotated.clone(), state.note));
    assert!(files.len() > 3, "{}", files.len());
    assert!(files.iter().all(|file| file.len() >= 2_000));
    files.push(sink.with(|state| state.bytes.clone()));
    for file in &files {
        let partial = Expected { is_partial: true, ..Expected::default() };
        let report = report_by(vec![file.clone()], partial, &sealed.source);
        assert!(report.findings.is_empty() && report.lines > 1, "{report:?}");
    }
    let report = report_on(files.clone(), vec![Witness::Noted(note.expect("noted"))], &sealed.source);
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!(report.lines, 62 + files.len() as u64 - 1);
    files.remove(1);
    assert!(!report_on(files, vec![], &sealed.source).findings.is_empty(), "a gap");
}

#[test]
fn what_is_not_on_the_disk_is_not_noted() {
    let (sink, sealed) = (Small::default(), Sealed::new());
    sink.with(|state| (state.room, state.sync_fails) = (usize::MAX, true));
    let mut writer = writer(&sink, Options::default());
    writer.begin(sealed.chain());
    writer.write(&group(1));
    writer.tick();
    assert!(sink.with(|state| state.note).is_none());
    sink.with(|state| state.sync_fails = false);
    writer.write(&group(1));
    writer.tick();
    assert_eq!(sink.with(|state| state.note).map(|note| note.mark.seq), Some(3));
}

#[test]
fn lines_cut_off_are_told_by_the_next_chain_and_nothing_else_is() {
    let mark = |chain: u8, seq| Mark { chain: Uid([chain; 16]), seq, mac: Mac::NONE };
    let tail = |mark, begun_after| Some(Tail { mark, begun_after });
    let told = |tail, noted| match opening(Before { tail, noted }) {
        Marker::Begin { previous, missing_after, note: None } => (previous, missing_after),
        other => panic!("{other:?}"),
    };
    let to = |mark: Option<Mark>| mark.map_or(Noted::Nothing, Noted::To);
    assert_eq!(told(None, Noted::Nothing), (None, None));
    assert_eq!(told(None, to(Some(mark(1, 5)))), (Some(mark(1, 5)), None), "rotated while no server ran");
    let (at, noted) = (mark(1, 5), Some(mark(1, 5)));
    assert_eq!(told(tail(at, None), to(noted)), (Some(at), None));
    assert_eq!(told(tail(mark(1, 6), None), to(noted)), (Some(mark(1, 6)), None), "killed within the second");
    assert_eq!(told(tail(mark(1, 4), None), to(noted)), (Some(mark(1, 4)), noted));
    let other = Mark { mac: sealed_mac(), ..at };
    assert_eq!(told(tail(other, None), to(noted)), (Some(other), noted));
    assert_eq!(told(tail(mark(2, 1), Some(at)), to(noted)), (Some(mark(2, 1)), None), "killed at its start");
    assert_eq!(told(tail(mark(2, 9), Some(mark(1, 4))), to(noted)), (Some(mark(2, 9)), noted));
    assert_eq!(told(tail(mark(2, 9), None), to(noted)), (Some(mark(2, 9)), noted), "a whole chain is gone");
    assert_eq!(told(tail(mark(1, 1), None), Noted::Nothing), (Some(mark(1, 1)), None), "killed before the first note");
}

#[test]
fn a_note_that_is_gone_or_cannot_be_read_is_told_by_the_next_chain() {
    let mark = |chain: u8, seq| Mark { chain: Uid([chain; 16]), seq, mac: Mac::NONE };
    let note = |tail, noted| match opening(Before { tail, noted }) {
        Marker::Begin { note, missing_after: None, .. } => note,
        other => panic!("{other:?}"),
    };
    let tail = |mark, begun_after| Some(Tail { mark, begun_after });
    assert_eq!(note(tail(mark(1, 2), None), Noted::Nothing), Some(NoteDoubt::Missing));
    assert_eq!(note(tail(mark(2, 1), Some(mark(1, 2))), Noted::Nothing), Some(NoteDoubt::Missing));
    assert_eq!(note(tail(mark(1, 1), None), Noted::Unreadable), Some(NoteDoubt::Unreadable));
    assert_eq!(note(None, Noted::Unreadable), Some(NoteDoubt::Unreadable));
}

fn sealed_mac() -> Mac {
    Sealed::new().chain().link(Mac::NONE, b"")
}

#[test]
fn after_a_failed_sync_no_line_counts_until_a_sync_succeeds() {
    let sink = Small::default();
    sink.with(|state| state.room = usize::MAX);
    let mut writer = writer(&sink, Options::default());
    writer.begin(Sealed::new().chain());
    sink.with(|state| state.sync_fails = true);
    assert_eq!(writer.write(&group(1)), [Ok(())]);
    writer.tick();
    assert_eq!(writer.write(&group(2)), [Err(Unavailable), Err(Unavailable)]);
    sink.with(|state| state.sync_fails = false);
    assert_eq!(writer.write(&group(1)), [Ok(())]);
}

#[test]
fn with_sync_a_failed_sync_fails_its_whole_group() {
    let sink = Small::default();
    sink.with(|state| (state.room, state.sync_fails) = (usize::MAX, true));
    let mut writer = writer(&sink, Options { sync: true, ..Options::default() });
    writer.begin(Sealed::new().chain());
    assert_eq!(writer.write(&group(2)), [Err(Unavailable), Err(Unavailable)]);
}
