//! Copies one stream and replaces values on the way.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, mpsc::SyncSender},
    thread::{self, JoinHandle},
    time::Duration,
};

use coffer_proto::redaction::Redactor;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionread, read, write},
};
use zeroize::Zeroizing;

use super::{LeftOpen, Live};
use crate::report;

/// Read at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;
/// After so long without more, what was held back is shown if it tells nothing: a prompt without a line end.
const PAUSE: Duration = Duration::from_millis(100);

/// What happened to a stream.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// There is something to read, or the end.
    Readable,
    /// Nothing came for a while.
    Pause,
    /// Nobody reads what is written any more.
    Gone,
    /// What is written from here on is not waited for.
    Last,
}

/// Copies in a thread until the end of the stream, or until nobody reads the copy: then the stream is closed, and who
/// writes to it is told as it would be without the thread. Once `last` is readable, no more is copied than what was
/// written before; if somebody could have written more, that is sent to `alive`, which is dropped at the end.
pub(super) fn start(
    from: OwnedFd,
    to: OwnedFd,
    live: Arc<Live>,
    last: Arc<OwnedFd>,
    alive: SyncSender<LeftOpen>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("mask".to_owned()).spawn(move || {
        match run(from, &to, &last, &live) {
            Ok(None) => {}
            // There is room for one, which is enough.
            Ok(Some(LeftOpen)) => drop(alive.try_send(LeftOpen)),
            Err(error) => {
                report::line(&format!("--mask: a stream of the command is closed: {}", io::Error::from(error)));
            }
        }
        // What is written is with its reader before anybody is told.
        drop(to);
        drop(alive);
    })
}

fn run(from: OwnedFd, to: &OwnedFd, last: &OwnedFd, live: &Live) -> Result<Option<LeftOpen>, Errno> {
    let mut matcher = live.now();
    let mut redactor = Redactor::new(Arc::clone(&matcher));
    let mut buffer = Zeroizing::new(vec![0; BUFFER_BYTES]);
    let mut clean = Vec::new();
    let mut lost = false;
    let mut paused = true;
    // Bytes that were written in time and are still to be read.
    let mut left = None;
    while left != Some(0) {
        // What a pause did not release waits for what comes next.
        let pause = (!paused && redactor.held() > 0).then_some(PAUSE);
        match wait(&from, to, Some(last).filter(|_| left.is_none()), pause)? {
            Event::Gone => return Ok(None),
            Event::Last => left = Some(ioctl_fionread(&from)?),
            Event::Pause => {
                paused = true;
                redactor.release(&mut clean);
            }
            Event::Readable => {
                // Not in the middle of what may be a value, unless its writer has left it there.
                if (paused || redactor.held() == 0) && !Arc::ptr_eq(&matcher, &live.now()) {
                    redactor.finish(&mut clean);
                    matcher = live.now();
                    redactor = Redactor::new(Arc::clone(&matcher));
                }
                paused = false;
                let bytes_max = left.map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES as u64) as usize);
                match read(&from, &mut buffer[..bytes_max]) {
                    Ok(0) => {
                        redactor.finish(&mut clean);
                        written(write_all(to, &clean), &mut lost);
                        return Ok(None);
                    }
                    Ok(count) => {
                        redactor.push(&buffer[..count], &mut clean);
                        left = left.map(|left| left.saturating_sub(count as u64));
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if !written(write_all(to, &clean), &mut lost) {
            return Ok(None);
        }
        clean.clear();
    }
    redactor.finish(&mut clean);
    written(write_all(to, &clean), &mut lost);
    Ok(Some(LeftOpen))
}

/// Whether somebody still reads. A full disk costs the output, not the command, whose own writes succeed: it is told
/// once.
fn written(end: Result<(), Errno>, lost: &mut bool) -> bool {
    match end {
        Ok(()) => {}
        Err(Errno::PIPE) => return false,
        Err(_) if *lost => {}
        Err(error) => {
            *lost = true;
            report::line(&format!("--mask: output of the command is lost: {}", io::Error::from(error)));
        }
    }
    true
}

fn wait(from: &OwnedFd, to: &OwnedFd, last: Option<&OwnedFd>, pause: Option<Duration>) -> Result<Event, Errno> {
    let timeout = pause.and_then(|pause| Timespec::try_from(pause).ok());
    loop {
        // Of the other side only errors are asked for: its reader may go while the command is silent.
        let mut ends = vec![PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::empty())];
        ends.extend(last.map(|last| PollFd::new(last, PollFlags::IN)));
        match poll(&mut ends, timeout.as_ref()) {
            Ok(0) => return Ok(Event::Pause),
            Ok(_) if ends[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) => return Ok(Event::Gone),
            // Nobody can write more, and all that was written will be read.
            Ok(_) if ends[0].revents().contains(PollFlags::HUP) => return Ok(Event::Readable),
            Ok(_) if ends.get(2).is_some_and(|last| !last.revents().is_empty()) => return Ok(Event::Last),
            Ok(_) => return Ok(Event::Readable),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes everything, also to a stream that somebody made non-blocking. Waits for its reader as long as it takes, and
/// meanwhile the command waits too.
fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(to, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mask::Known, received::tests::secrets};
    use rustix::event::{EventfdFlags, eventfd};
    use std::{
        fs::File,
        io::{PipeReader, PipeWriter, Read as _, Write as _},
        sync::mpsc::{Receiver, sync_channel},
    };

    const VALUE: &str = "hunter2-hunter2";
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A pump between the two ends, and what tells that it ended.
    fn pump(to: impl Into<OwnedFd>) -> (PipeWriter, Receiver<LeftOpen>) {
        let (from, writer) = io::pipe().expect("a pipe");
        let (alive, ended) = sync_channel(0);
        let matcher = Known::default().matcher(&secrets(&[("A", VALUE)]));
        start(from.into(), to.into(), matcher, never(), alive).expect("started");
        (writer, ended)
    }

    /// All that comes is waited for.
    fn never() -> Arc<OwnedFd> {
        Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("made"))
    }

    fn through_pipe() -> (PipeWriter, PipeReader, Receiver<LeftOpen>) {
        let (reader, to) = io::pipe().expect("a pipe");
        let (writer, ended) = pump(to);
        (writer, reader, ended)
    }

    fn next(reader: &mut PipeReader, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        reader.read_exact(&mut bytes).expect("there is so much");
        assert_eq!(String::from_utf8(bytes).expect("text"), expected);
    }

    #[test]
    fn a_value_in_pieces_is_replaced() {
        let (mut writer, mut reader, ended) = through_pipe();
        for at in 0..VALUE.len() {
            writer.write_all(&VALUE.as_bytes()[at..=at]).expect("written");
        }
        writer.write_all(b" tail").expect("written");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "{{A}} tail");
        assert!(ended.recv_timeout(PATIENCE).is_err());
    }

    #[test]
    fn a_value_that_comes_later_is_replaced_too() {
        let (mut reader, to) = io::pipe().expect("a pipe");
        let (from, mut writer) = io::pipe().expect("a pipe");
        let mut known = Known::default();
        let live = known.matcher(&secrets(&[("A", VALUE)]));
        start(from.into(), to.into(), live, never(), sync_channel(0).0).expect("started");
        writeln!(writer, "{VALUE} later-value").expect("written");
        next(&mut reader, "{{A}} later-value\n");
        known.matcher(&secrets(&[("A", "later-value")]));
        writeln!(writer, "{VALUE} later-value").expect("written");
        next(&mut reader, "{{A}} {{A}}\n");
    }

    #[test]
    fn a_line_in_hex_is_shown_while_its_writer_waits() {
        let (mut writer, mut reader, _ended) = through_pipe();
        writeln!(writer, "{VALUE}").expect("written");
        next(&mut reader, "{{A}}\n");
        for digits in VALUE.bytes() {
            write!(writer, "{digits:02x}").expect("written");
        }
        writeln!(writer).expect("written");
        next(&mut reader, "{{A}}\n");
    }

    #[test]
    fn a_prompt_is_shown_while_its_writer_waits() {
        let (mut writer, mut reader, _ended) = through_pipe();
        writer.write_all(b"password, h").expect("written");
        next(&mut reader, "password, h");
        // What was shown does not make the rest readable.
        writer.write_all(b"unter2-hunter2\n").expect("written");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("text");
        assert!(!rest.contains("unter2-hunter2"), "{rest}");
    }

    #[test]
    fn every_byte_arrives_in_order() {
        let (mut writer, mut reader, _ended) = through_pipe();
        let content: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
        let sent = content.clone();
        let writing = thread::spawn(move || writer.write_all(&sent).expect("written"));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("read");
        writing.join().expect("written");
        assert!(read == content);
    }

    #[test]
    fn who_writes_is_told_when_nobody_reads() {
        let (mut writer, reader, ended) = through_pipe();
        drop(reader);
        // Told although it was silent all the time.
        assert!(ended.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        assert_eq!(writer.write_all(b"x").expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_stream_that_does_not_block_loses_nothing() {
        let (mut reader, to) = io::pipe().expect("a pipe");
        rustix::fs::fcntl_setfl(&to, rustix::fs::OFlags::NONBLOCK).expect("set");
        let (mut writer, _ended) = pump(to);
        let writing = thread::spawn(move || writer.write_all(&[b'x'; 1_000_000]).expect("written"));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("read");
        writing.join().expect("written");
        assert_eq!(read.len(), 1_000_000);
    }

    #[test]
    fn a_full_disk_does_not_stop_the_command() {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let (mut writer, ended) = pump(full);
        for _ in 0..10 {
            writer.write_all(&[b'x'; 50_000]).expect("taken");
        }
        drop(writer);
        assert!(ended.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_slow_reader_makes_the_writer_wait() {
        let (writer, mut reader, _ended) = through_pipe();
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("set");
        // Until nothing moves: two pipes and one buffer, and whatever the pump takes while this writes.
        let mut taken = 0;
        loop {
            match write(&writer, &[b'x'; 4096]) {
                Ok(count) => taken += count,
                Err(Errno::AGAIN) => {
                    let timeout = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
                    if poll(&mut [PollFd::new(&writer, PollFlags::OUT)], Some(&timeout)) == Ok(0) {
                        break;
                    }
                }
                Err(error) => panic!("{error}"),
            }
            assert!(taken < 10 * BUFFER_BYTES, "it reads what it cannot write");
        }
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("read");
        assert_eq!(read.len(), taken);
    }
}
