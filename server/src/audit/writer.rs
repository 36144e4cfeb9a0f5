//! Puts groups of audit lines into a sink so that it holds one JSON object a line, whatever fails, and each line is linked
//! to the one that stands before it there.

use std::sync::{Arc, Mutex};

use super::{
    Event, LINE_BYTES_MAX, Mark, Unavailable,
    file::Options,
    head::Note,
    line,
    marker::{self, Marker, NoteDoubt},
    sink::{Before, Noted, Sink},
    tail::Tail,
};
use crate::{
    clock::Clock,
    seal::chain::{Chain, Mac},
};

/// How far the log is, for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) mark: Mark,
    /// Whether the first line of the chain, or of a new file, still waits to be written.
    pub(super) is_waiting: bool,
}

/// Numbers, links, writes and syncs lines.
pub(super) struct Writer<S> {
    sink: S,
    options: Options,
    clock: Arc<dyn Clock>,
    link: Option<Link>,
    progress: Arc<Mutex<Option<Progress>>>,
    /// What the note beside the log says.
    noted: Option<Mark>,
    /// Written since the last sync.
    dirty: bool,
    /// A sync failed: what it covered may be lost, so from here each group must be synced until one is.
    doubtful: bool,
    /// A part of a line could not be removed; the next write ends it first.
    torn: bool,
    /// The path names another file or none, and could not be opened again; said once.
    displaced: bool,
    /// The file could not be put aside; tried again at the next [`Writer::tick`].
    rotation_failed: bool,
}

/// A chain, and where it stands in the sink.
struct Link {
    chain: Chain,
    /// The last line that stands.
    last: Mark,
    next_seq: u64,
    /// To be written before anything else.
    opening: Option<Marker>,
}

/// Lines to be written at once.
struct Group {
    buffer: Vec<u8>,
    /// Bytes before the first line.
    prefix: usize,
    /// Each with its end, counted with the newline.
    lines: Vec<(usize, Mark)>,
    last: Mark,
    next_seq: u64,
}

impl Group {
    /// Adds a line; its number among those added, or `None` if it cannot be formed.
    fn add(
        &mut self,
        chain: &Chain,
        form: impl FnOnce(&mut Vec<u8>, u64) -> Result<(), serde_json::Error>,
    ) -> Option<usize> {
        let start = self.buffer.len();
        let formed = form(&mut self.buffer, self.next_seq).is_ok();
        if !formed || self.buffer.len() - start > LINE_BYTES_MAX - line::ENDING_BYTES {
            self.buffer.truncate(start);
            return None;
        }
        let mac = line::seal(&mut self.buffer, start, chain, self.last.mac);
        self.last = Mark { chain: chain.id(), seq: self.next_seq, mac };
        self.next_seq += 1;
        self.lines.push((self.buffer.len(), self.last));
        Some(self.lines.len() - 1)
    }
}

impl<S: Sink> Writer<S> {
    pub(super) fn new(
        sink: S,
        options: Options,
        clock: Arc<dyn Clock>,
        progress: Arc<Mutex<Option<Progress>>>,
    ) -> Self {
        Self {
            sink,
            options,
            clock,
            link: None,
            progress,
            noted: None,
            dirty: false,
            doubtful: false,
            torn: false,
            displaced: false,
            rotation_failed: false,
        }
    }

    /// Begins a chain, after what stands in the log.
    pub(super) fn begin(&mut self, chain: Chain) {
        let opening = match &self.link {
            Some(link) => Marker::Begin { previous: Some(link.last), missing_after: None, note: None },
            None => opening(self.sink.before()),
        };
        let last = Mark { chain: chain.id(), seq: 0, mac: Mac::NONE };
        self.link = Some(Link { chain, last, next_seq: 1, opening: Some(opening) });
        self.append(&[], None);
        self.settle();
    }

    /// Writes the lines of `events`; one answer for each, in order.
    pub(super) fn write(&mut self, events: &[Event]) -> Vec<Result<(), Unavailable>> {
        if events.is_empty() {
            return Vec::new();
        }
        self.rotate_if_full();
        self.append(events, None)
    }

    /// Writes the last line of the chain.
    pub(super) fn end(&mut self) {
        self.append(&[], Some(&Marker::End));
        self.settle();
    }

    /// What is to be done every second.
    pub(super) fn tick(&mut self) {
        self.rotation_failed = false;
        self.settle();
        self.follow_path();
        self.sink.keep_room();
    }

    /// Syncs what was written, and notes how far the log came.
    pub(super) fn settle(&mut self) {
        self.sync_written();
        self.keep_note();
    }

    fn append(&mut self, events: &[Event], closing: Option<&Marker>) -> Vec<Result<(), Unavailable>> {
        let unavailable = vec![Err(Unavailable); events.len()];
        let Some(link) = &mut self.link else { return unavailable };
        let buffer = if self.torn { vec![b'\n'] } else { Vec::new() };
        let prefix = buffer.len();
        let mut group = Group { buffer, prefix, lines: Vec::new(), last: link.last, next_seq: link.next_seq };
        let now = self.clock.now();
        let chain = &link.chain;
        if let Some(opening) = &link.opening
            && group.add(chain, |buffer, seq| marker::append(buffer, seq, now, chain, opening)).is_none()
        {
            return unavailable;
        }
        // A line that cannot be formed has no number, and so is never among the written ones.
        let numbers: Vec<_> =
            events.iter().map(|event| group.add(chain, |buffer, seq| line::append(buffer, seq, event))).collect();
        if let Some(closing) = closing {
            group.add(chain, |buffer, seq| marker::append(buffer, seq, now, chain, closing));
        }
        let whole = self.put(&group);
        let durable = if self.options.sync || self.doubtful { self.sync_now() } else { true };
        let is_recorded = |number: Option<usize>| number.is_some_and(|number| number < whole) && durable;
        numbers.into_iter().map(|number| if is_recorded(number) { Ok(()) } else { Err(Unavailable) }).collect()
    }

    /// Writes a group and moves the chain to the last of its lines that stands; how many were written whole.
    fn put(&mut self, group: &Group) -> usize {
        let written = self.put_bytes(&group.buffer);
        let whole = group.lines.iter().filter(|(end, _)| *end <= written).count();
        let mut standing = whole;
        let mut trace = false;
        if written >= group.prefix {
            let good_end = group.lines[..whole].last().map_or(group.prefix, |(end, _)| *end);
            let partial = written - good_end;
            self.torn = partial > 0 && !self.sink.cut_back(partial as u64);
            // A line that lacks nothing but its newline stands: the newline comes before whatever is written next.
            let lacks_newline = group.lines.get(whole).is_some_and(|(end, _)| *end == written + 1);
            standing += usize::from(self.torn && lacks_newline);
            trace = self.torn && !lacks_newline;
        }
        if let Some(link) = &mut self.link {
            if let Some((_, last)) = group.lines[..standing].last() {
                (link.last, link.opening) = (*last, None);
                link.next_seq = last.seq + 1;
            }
            // A number is used again only if no trace of it is left.
            link.next_seq += u64::from(trace);
            let progress = Progress { mark: link.last, is_waiting: link.opening.is_some() };
            *self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(progress);
        }
        whole
    }

    /// Syncs what was written since the last sync, if anything.
    fn sync_written(&mut self) {
        if self.dirty {
            self.sync_now();
        }
    }

    /// Notes how far the log came. Only what is on the disk, so that a power loss never looks like a deletion.
    fn keep_note(&mut self) {
        let Some(link) = &self.link else { return };
        if self.dirty || self.doubtful || link.last.seq == 0 || self.noted == Some(link.last) {
            return;
        }
        match self.sink.keep(&Note::new(&link.chain, link.last)) {
            Ok(()) => self.noted = Some(link.last),
            Err(error) => tracing::error!(%error, "the head of the audit log cannot be written beside it"),
        }
    }

    /// Puts the file aside once it has reached its size.
    fn rotate_if_full(&mut self) {
        let Options { max_bytes, keep_files, .. } = self.options;
        let Some(link) = &self.link else { return };
        let seq = link.last.seq;
        if max_bytes == 0 || self.rotation_failed || self.sink.bytes() < max_bytes {
            return;
        }
        self.sync_written();
        if self.sink.is_displaced() {
            return self.follow_path();
        }
        match self.sink.rotate(self.clock.now(), seq, keep_files) {
            Ok(surplus) => {
                self.go_on(surplus.removed_to);
                // What goes is written down first, or nobody could tell it from what somebody else removed.
                self.sync_written();
                if !self.doubtful && self.link.as_ref().is_some_and(|link| link.opening.is_none()) {
                    self.sink.remove(surplus);
                }
            }
            Err(error) => {
                self.rotation_failed = true;
                tracing::error!(%error, "the full audit log is not rotated; it stays in use");
            }
        }
    }

    pub(super) fn reopen(&mut self) {
        self.sync_written();
        match self.sink.reopen() {
            Ok(()) => {
                self.go_on(None);
                tracing::info!("the audit log is open again");
            }
            Err(error) => tracing::error!(%error, "the audit log is not reopened; the old file stays in use"),
        }
    }

    /// Opens the path again if it no longer names the open file: for whoever renames or deletes it and tells nobody.
    fn follow_path(&mut self) {
        if !self.sink.is_displaced() {
            self.displaced = false;
            return;
        }
        self.sync_written();
        match self.sink.reopen() {
            Ok(()) => {
                self.displaced = false;
                self.go_on(None);
                tracing::warn!("the audit log was renamed or deleted under the server; it goes on in a new file");
            }
            Err(error) if !self.displaced => {
                self.displaced = true;
                tracing::error!(%error, "the audit log was renamed or deleted, and is not opened again yet");
            }
            Err(_) => {}
        }
    }

    /// Says in a file that was just opened which chain goes on there, and up to where older files are to go.
    fn go_on(&mut self, removed_to: Option<Mark>) {
        self.torn = false;
        if let Some(link) = &mut self.link
            && link.last.seq > 0
        {
            link.opening = Some(Marker::Continued { previous: link.last, removed_to });
        }
        self.append(&[], None);
    }

    /// How many bytes the sink took; fewer than all is a failure.
    fn put_bytes(&mut self, buffer: &[u8]) -> usize {
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

/// What the first line of a chain says of what was before; and a word to the operator if that is not all there.
fn opening(Before { tail, noted }: Before) -> Marker {
    let (noted, note) = match noted {
        Noted::To(mark) => (Some(mark), None),
        // Before the second line of a log there may be no note yet, or if nothing is there at all.
        Noted::Nothing if tail.is_none_or(|tail| tail.mark.seq == 1 && tail.begun_after.is_none()) => (None, None),
        Noted::Nothing => (None, Some(NoteDoubt::Missing)),
        Noted::Unreadable => (None, Some(NoteDoubt::Unreadable)),
    };
    if note.is_some() {
        tracing::error!("there is no head beside the audit log: nobody knows whether lines were cut off its end");
    }
    let Some(Tail { mark, begun_after }) = tail else {
        if let Some(noted) = noted {
            tracing::warn!(last = %noted, "the audit log begins anew; an earlier file must hold its lines up to the last");
        }
        return Marker::Begin { previous: noted, missing_after: None, note };
    };
    let reaches = |mark: Mark, noted: Mark| {
        mark.chain == noted.chain && (mark.seq > noted.seq || (mark.seq == noted.seq && mark.mac == noted.mac))
    };
    let is_there = |noted: &Mark| reaches(mark, *noted) || begun_after.is_some_and(|after| reaches(after, *noted));
    let missing_after = noted.filter(|noted| !is_there(noted));
    if let Some(noted) = missing_after {
        tracing::error!(found = %mark, last = %noted, "lines were cut off the end of the audit log");
    }
    Marker::Begin { previous: Some(mark), missing_after, note }
}

#[cfg(test)]
mod tests;
