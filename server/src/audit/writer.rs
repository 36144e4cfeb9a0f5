//! Puts groups of audit lines into a sink so that it holds one JSON object a line, whatever fails.

use super::{Event, Unavailable, line, sink::Sink};

/// Numbers, writes and syncs lines.
pub(super) struct Writer<S> {
    sink: S,
    /// Whether every group is synced before it is answered.
    sync: bool,
    next_seq: u64,
    /// Written since the last sync.
    dirty: bool,
    /// A sync failed: what it covered may be lost, so from here each group must be synced until one is.
    doubtful: bool,
    /// A part of a line could not be removed; the next write ends it first.
    torn: bool,
    /// The path names another file or none, and could not be opened again; said once.
    displaced: bool,
}

impl<S: Sink> Writer<S> {
    pub(super) fn new(sink: S, sync: bool) -> Self {
        Self { sink, sync, next_seq: 1, dirty: false, doubtful: false, torn: false, displaced: false }
    }

    /// Writes the lines of `events`; one answer for each, in order.
    pub(super) fn write(&mut self, events: &[Event]) -> Vec<Result<(), Unavailable>> {
        if events.is_empty() {
            return Vec::new();
        }
        let mut buffer = if self.torn { vec![b'\n'] } else { Vec::new() };
        let prefix = buffer.len();
        let mut ends = Vec::with_capacity(events.len());
        for event in events {
            // A line that cannot be formed has no end, and so is never among the written ones.
            let formed = line::append(&mut buffer, self.next_seq + ends.len() as u64, event).is_ok();
            ends.push(if formed { buffer.len() } else { usize::MAX });
        }
        let written = self.put(&buffer);
        let whole = ends.iter().filter(|end| **end <= written).count();
        self.next_seq += whole as u64;
        if written >= prefix {
            let good_end = ends.iter().copied().filter(|end| *end <= written).max().unwrap_or(prefix);
            let partial = written - good_end;
            self.torn = partial > 0 && !self.sink.cut_back(partial as u64);
            // A number is used again only if no trace of it is left.
            self.next_seq += u64::from(self.torn);
        }
        let durable = if self.sync || self.doubtful { self.sync_now() } else { true };
        ends.iter().map(|end| if *end <= written && durable { Ok(()) } else { Err(Unavailable) }).collect()
    }

    /// Syncs what was written since the last sync, if anything.
    pub(super) fn sync_written(&mut self) {
        if self.dirty {
            self.sync_now();
        }
    }

    pub(super) fn reopen(&mut self) {
        self.sync_written();
        match self.sink.reopen() {
            Ok(()) => {
                self.torn = false;
                tracing::info!("the audit log is open again");
            }
            Err(error) => tracing::error!(%error, "the audit log is not reopened; the old file stays in use"),
        }
    }

    /// Opens the path again if it no longer names the open file: for whoever renames or deletes it and tells nobody.
    pub(super) fn follow_path(&mut self) {
        if !self.sink.is_displaced() {
            self.displaced = false;
            return;
        }
        self.sync_written();
        match self.sink.reopen() {
            Ok(()) => {
                (self.torn, self.displaced) = (false, false);
                tracing::warn!("the audit log was renamed or deleted under the server; it goes on in a new file");
            }
            Err(error) if !self.displaced => {
                self.displaced = true;
                tracing::error!(%error, "the audit log was renamed or deleted, and is not opened again yet");
            }
            Err(_) => {}
        }
    }

    /// How many bytes the sink took; fewer than all is a failure.
    fn put(&mut self, buffer: &[u8]) -> usize {
        let mut written = 0;
        while written < buffer.len() {
            match self.sink.write(&buffer[written..]) {
                Ok(0) => {
                    tracing::error!("the audit log takes no bytes");
                    break;
                }
                Ok(bytes) => {
                    written += bytes;
                    self.dirty = true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(%error, "the audit log cannot be written; the calls of its lines fail");
                    break;
                }
            }
        }
        written
    }

    fn sync_now(&mut self) -> bool {
        let synced = self.sink.sync();
        self.dirty = false;
        self.doubtful = synced.is_err();
        if let Err(error) = &synced {
            tracing::error!(%error, "the audit log cannot be synced");
        }
        synced.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::audit::{line::tests::event, sink::OpenError};

    #[derive(Default)]
    struct State {
        bytes: Vec<u8>,
        /// Room left before ENOSPC.
        room: usize,
        can_cut: bool,
        sync_fails: bool,
    }

    #[derive(Clone, Default)]
    struct Small(Arc<Mutex<State>>);

    impl Small {
        fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
            act(&mut self.0.lock().expect("a lock"))
        }

        fn lines(&self) -> Vec<String> {
            self.with(|state| {
                String::from_utf8(state.bytes.clone()).expect("UTF-8").lines().map(str::to_owned).collect()
            })
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
    }

    fn group(count: usize) -> Vec<Event> {
        (0..count).map(|_| event("m")).collect()
    }

    fn seq(line: &str) -> Option<u64> {
        serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64()
    }

    proptest! {
        /// Whatever room is left at each write: the lines answered with Ok are in the sink, whole and in order.
        #[test]
        fn what_is_answered_is_there(rooms in prop::collection::vec(0_usize..900, 1..8), can_cut: bool) {
            let sink = Small::default();
            sink.with(|state| state.can_cut = can_cut);
            let mut writer = Writer::new(sink.clone(), false);
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
            prop_assert!(seqs.len() >= answered);
            prop_assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]));
            if can_cut {
                prop_assert_eq!(lines.len(), answered, "no fragments");
                prop_assert_eq!(seqs, (1..=answered as u64).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn after_a_failed_sync_no_line_counts_until_a_sync_succeeds() {
        let sink = Small::default();
        sink.with(|state| (state.room, state.sync_fails) = (usize::MAX, true));
        let mut writer = Writer::new(sink.clone(), false);
        assert_eq!(writer.write(&group(1)), [Ok(())]);
        writer.sync_written();
        assert_eq!(writer.write(&group(2)), [Err(Unavailable), Err(Unavailable)]);
        sink.with(|state| state.sync_fails = false);
        assert_eq!(writer.write(&group(1)), [Ok(())]);
    }

    #[test]
    fn with_sync_a_failed_sync_fails_its_whole_group() {
        let sink = Small::default();
        sink.with(|state| (state.room, state.sync_fails) = (usize::MAX, true));
        assert_eq!(Writer::new(sink, true).write(&group(2)), [Err(Unavailable), Err(Unavailable)]);
    }
}
