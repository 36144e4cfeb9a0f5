//! `--mask`: the command's stdout and stderr without its encrypted values.
//!
//! Each stream that is no terminal becomes a pipe, and a thread of its own copies it and replaces values on the way
//! ([`pump`]). A terminal is never touched: job control, colours and line editing need the real one.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    time::Instant,
};

use coffer_proto::{name::VariableName, redaction::Matcher, value::SecretValue};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{FileType, fstat},
    io::write,
};

use crate::received::{PLAIN, Variable};

mod pump;

/// Environments whose values are looked for: a restarted command may still print what an older one left.
const ENVIRONMENTS_MAX: usize = 8;

/// The values that are looked for: of this start and of those before it.
#[derive(Default)]
pub(crate) struct Known {
    environments: VecDeque<Vec<(VariableName, SecretValue)>>,
    live: Option<Arc<Live>>,
}

/// What finds the values. A command that is told of a change instead of being restarted may print the new ones.
pub(crate) struct Live(RwLock<Arc<Matcher>>);

impl Known {
    /// Adds an environment, and returns what finds its values and the older ones; so does from now on what was returned
    /// before. Plain ones are not looked for.
    pub(crate) fn matcher(&mut self, secrets: &[Variable]) -> Arc<Live> {
        self.environments.truncate(ENVIRONMENTS_MAX - 1);
        let encrypted = secrets.iter().filter(|secret| secret.kind != PLAIN);
        self.environments.push_front(encrypted.map(|secret| (secret.name.clone(), secret.value.clone())).collect());
        let values = self.environments.iter().flatten().map(|(name, value)| (name, value));
        let matcher = Arc::new(Matcher::new(values));
        let live = self.live.get_or_insert_with(|| Arc::new(Live(RwLock::new(Arc::clone(&matcher)))));
        *live.0.write().unwrap_or_else(PoisonError::into_inner) = matcher;
        Arc::clone(live)
    }
}

impl Live {
    fn now(&self) -> Arc<Matcher> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a command writes to instead of this process's own streams. Dropped, the copying goes on until the command and
/// its children have closed their ends.
pub(crate) struct Outputs {
    /// Its stdout; none if that is to be inherited.
    pub(crate) stdout: Option<OwnedFd>,
    /// Its stderr; none if that is to be inherited.
    pub(crate) stderr: Option<OwnedFd>,
    copying: Copying,
}

/// Streams that are being copied.
pub(crate) struct Copying {
    ended: Receiver<LeftOpen>,
    /// An eventfd: once it is readable, only what was written before is copied.
    last: Arc<OwnedFd>,
}

/// Somebody could have written more to a stream when its copying ended.
#[derive(Debug, PartialEq, Eq)]
struct LeftOpen;

impl Outputs {
    /// For this process's stdout and stderr.
    pub(crate) fn new(matcher: &Arc<Live>) -> io::Result<Self> {
        Self::of(io::stdout().as_fd(), io::stderr().as_fd(), matcher)
    }

    fn of(stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>, matcher: &Arc<Live>) -> io::Result<Self> {
        let (alive, ended) = sync_channel(1);
        let last = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let out = mask(stdout, matcher, &last, &alive)?;
        // One pipe (`2>&1`) stays one, so that the order of what is written stays too.
        let err = match &out {
            Some(out) if one_pipe(stdout, stderr)? => Some(out.try_clone()?),
            _ => mask(stderr, matcher, &last, &alive)?,
        };
        Ok(Self { stdout: out, stderr: err, copying: Copying { ended, last } })
    }

    /// Takes the streams apart from the copying, which can be waited for once the command has them.
    pub(crate) fn split(self) -> (Option<OwnedFd>, Option<OwnedFd>, Copying) {
        (self.stdout, self.stderr, self.copying)
    }
}

impl Copying {
    /// Waits until all that was written is copied, however slow its reader is. A process that the command left behind may
    /// keep its end open: from the deadline on nothing more is taken. Whether all ends were closed.
    pub(crate) fn finish(self, deadline: Instant) -> bool {
        match self.ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Disconnected) => return true,
            Ok(LeftOpen) | Err(RecvTimeoutError::Timeout) => {}
        }
        // It cannot fail: nobody else writes to it.
        let _ = write(&self.last, &1_u64.to_ne_bytes());
        self.ended.iter().count() == 0
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.try_recv().is_err_and(|error| error == TryRecvError::Disconnected)
    }
}

/// The end to write to, if this stream is to be masked.
fn mask(
    stream: BorrowedFd<'_>,
    matcher: &Arc<Live>,
    last: &Arc<OwnedFd>,
    alive: &SyncSender<LeftOpen>,
) -> io::Result<Option<OwnedFd>> {
    if stream.is_terminal() {
        return Ok(None);
    }
    let (reader, writer) = io::pipe()?;
    let (to, alive) = (stream.try_clone_to_owned()?, alive.clone());
    pump::start(reader.into(), to, Arc::clone(matcher), Arc::clone(last), alive)?;
    Ok(Some(writer.into()))
}

fn one_pipe(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> io::Result<bool> {
    let (first, second) = (fstat(first)?, fstat(second)?);
    let is_stream = matches!(FileType::from_raw_mode(first.st_mode), FileType::Fifo | FileType::Socket);
    Ok(is_stream && (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::received::tests::secrets;
    use std::{
        fs::File,
        io::{Read as _, Write as _},
        thread,
        time::Duration,
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    fn in_time() -> Instant {
        Instant::now() + PATIENCE
    }

    fn text(mut reader: impl io::Read) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    }

    fn matcher(pairs: &[(&str, &str)]) -> Arc<Live> {
        Known::default().matcher(&secrets(pairs))
    }

    #[test]
    fn two_streams_are_masked_each() {
        let ((out, out_writer), (err, err_writer)) = (io::pipe().expect("a pipe"), io::pipe().expect("a pipe"));
        let outputs = Outputs::of(out_writer.as_fd(), err_writer.as_fd(), &matcher(&[("A", "hunter2-hunter2")]));
        drop((out_writer, err_writer));
        let (stdout, stderr, copying) = outputs.expect("started").split();
        assert!(!copying.is_over(), "both are open");
        for (stream, line) in [(stdout, "out hunter2-hunter2\n"), (stderr, "err hunter2-hunter2\n")] {
            File::from(stream.expect("masked")).write_all(line.as_bytes()).expect("written");
        }
        assert_eq!((text(out), text(err)), ("out {{A}}\n".to_owned(), "err {{A}}\n".to_owned()));
        assert!(copying.finish(in_time()));
    }

    /// A command's stream, what copies it to a pipe, and that pipe.
    fn masked() -> (File, Copying, io::PipeReader) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let null = File::open("/dev/null").expect("everybody has it");
        let outputs = Outputs::of(writer.as_fd(), null.as_fd(), &matcher(&[("A", "hunter2-hunter2")]));
        let (stdout, _, copying) = outputs.expect("started").split();
        (File::from(stdout.expect("masked")), copying, reader)
    }

    #[test]
    fn a_slow_reader_gets_all_that_was_written_in_time() {
        const BYTES: usize = 100_000;
        for left_open in [false, true] {
            let (mut stream, copying, mut reader) = masked();
            stream.write_all(&[b'x'; BYTES]).expect("taken");
            let left_behind = left_open.then(|| stream.try_clone().expect("another"));
            drop(stream);
            let (ended, end) = sync_channel(1);
            thread::spawn(move || ended.send(copying.finish(Instant::now())));
            assert_eq!(end.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout), "it waits");
            let mut read = vec![0; BYTES];
            reader.read_exact(&mut read).expect("all of it");
            assert_eq!(end.recv_timeout(PATIENCE), Ok(!left_open));
            drop(left_behind);
            assert_eq!(text(reader), "");
        }
    }

    #[test]
    fn what_is_left_behind_and_never_silent_does_not_hold_up_the_end() {
        let (mut stream, copying, mut reader) = masked();
        let writing = thread::spawn(move || while stream.write_all(b"more ").is_ok() {});
        let reading = thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        assert!(!copying.finish(Instant::now()));
        // It is told as if nobody read any more.
        writing.join().expect("ended");
        reading.join().expect("ended").expect("read");
    }

    #[test]
    fn a_terminal_is_left_as_it_is() {
        let terminal = File::options().read(true).write(true).open("/dev/ptmx").expect("Linux has it");
        let outputs = Outputs::of(terminal.as_fd(), terminal.as_fd(), &matcher(&[("A", "hunter2-hunter2")]));
        let (stdout, stderr, copying) = outputs.expect("started").split();
        assert!(stdout.is_none() && stderr.is_none());
        assert!(copying.finish(in_time()), "nothing is copied");
    }

    #[test]
    fn one_pipe_keeps_its_order() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let outputs = Outputs::of(writer.as_fd(), writer.as_fd(), &matcher(&[("A", "hunter2-hunter2")]));
        drop(writer);
        let (stdout, stderr, _copying) = outputs.expect("started").split();
        let mut streams = [stdout, stderr].map(|stream| File::from(stream.expect("masked")));
        let mut expected = String::new();
        for number in 0..1_000 {
            writeln!(streams[number % 2], "{number} hunter2-hunter2").expect("written");
            expected += &format!("{number} {{{{A}}}}\n");
        }
        drop(streams);
        assert_eq!(text(reader), expected);
    }

    #[test]
    fn values_of_older_environments_are_looked_for_but_not_forever() {
        let mut known = Known::default();
        let masked = |live: &Live, given: &str| {
            let mut redactor = coffer_proto::redaction::Redactor::new(live.now());
            let mut out = Vec::new();
            redactor.push(given.as_bytes(), &mut out);
            redactor.finish(&mut out);
            String::from_utf8(out).expect("text")
        };
        for number in 0..8 {
            let matcher = known.matcher(&secrets(&[("A", &format!("value-number-{number}"))]));
            assert_eq!(masked(&matcher, "value-number-0"), "{{A}}", "{number}");
        }
        let matcher = known.matcher(&secrets(&[("A", "value-number-8")]));
        assert_eq!(masked(&matcher, "value-number-0"), "value-number-0");
        assert_eq!(masked(&matcher, "value-number-1 value-number-8"), "{{A}} {{A}}");
    }

    #[test]
    fn plain_values_are_shown() {
        let mut plain = secrets(&[("A", "hunter2-hunter2"), ("B", "localhost:5432")]);
        plain[1].kind = PLAIN;
        let (reader, writer) = io::pipe().expect("a pipe");
        let null = File::open("/dev/null").expect("everybody has it");
        let outputs = Outputs::of(writer.as_fd(), null.as_fd(), &Known::default().matcher(&plain));
        drop(writer);
        let (stdout, ..) = outputs.expect("started").split();
        File::from(stdout.expect("masked")).write_all(b"hunter2-hunter2 localhost:5432").expect("written");
        assert_eq!(text(reader), "{{A}} localhost:5432");
    }
}
