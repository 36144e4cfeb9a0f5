//! The audit log as JSON lines, written by a thread of its own so that a slow or dead sink holds up nothing but the
//! calls that need it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    Audit, Event, Head, RECORD_WAIT_MAX, Unavailable, files,
    reached::reached,
    sink::{FileSink, Sink},
    writer::{Progress, Writer},
};
use crate::{
    clock::SystemClock,
    seal::{Uid, chain::Chain},
    store::Position,
};

pub use super::sink::OpenError;

/// Most lines that wait for the writer; more wait outside, until [`RECORD_WAIT_MAX`].
const QUEUE_LINES_MAX: usize = 1_024;
/// Most lines written, and with `sync` synced, as one group.
const GROUP_LINES_MAX: usize = 256;
/// How often what was written is synced, without `sync`, and how often the path is looked at.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// An open audit log. Dropping it, or [`AuditFile::close`], writes what was handed over; only closing ends the chain.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    queue: mpsc::Sender<Message>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    progress: Arc<Mutex<Option<Progress>>>,
    /// Whether the last line that was to be written was.
    healthy: AtomicBool,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether a line counts as recorded when it is on the disk; otherwise when the operating system has it, and it is on
    /// the disk within a second.
    pub sync: bool,
    /// Puts the file aside once it has this many bytes; 0 never.
    pub max_bytes: u64,
    /// How many of those files are kept; 0 keeps all.
    pub keep_files: u32,
}

/// A line to write, and where its caller waits.
#[derive(Debug)]
struct Line {
    event: Event,
    answer: oneshot::Sender<Result<(), Unavailable>>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all messages are lines")]
enum Message {
    Begin(Chain, oneshot::Sender<()>),
    Record(Line),
    Reopen,
    Close(oneshot::Sender<()>),
}

impl AuditFile {
    /// Opens `path` for appending, creating it with mode 0600. A directory or file that others can write to is refused.
    /// Pipes and devices (`/dev/stdout`) are taken too; a pipe needs its reader first.
    ///
    /// A file that is renamed or deleted is noticed within a second, and the log goes on in a new one at the path.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        Ok(Self { path: path.to_owned(), ..Self::over(FileSink::open(path)?, options) })
    }

    fn over(sink: impl Sink, options: Options) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE_LINES_MAX);
        let progress = Arc::default();
        let writer = Writer::new(sink, options, Arc::new(SystemClock), Arc::clone(&progress));
        let writer = thread::Builder::new().name("audit".to_owned()).spawn(move || run(writer, messages));
        if let Err(error) = &writer {
            tracing::error!(%error, "the audit thread cannot be started");
        }
        Self { path: PathBuf::new(), queue, writer: Mutex::new(writer.ok()), progress, healthy: AtomicBool::new(true) }
    }

    /// Opens the path again after the lines handed over so far: for whoever rotates the file by renaming it.
    pub fn reopen(&self) {
        if self.queue.try_send(Message::Reopen).is_err() {
            tracing::error!("the audit log is not reopened: its writer does not answer");
        }
    }

    /// Writes and syncs what was handed over and the last line of the chain, and ends the thread. Later lines are refused. A dead sink is given up
    /// after `wait_max`; the answer says whether everything was written.
    pub async fn close(&self, wait_max: Duration) -> bool {
        let (done, is_done) = oneshot::channel();
        let closing = async { self.queue.send(Message::Close(done)).await.is_ok() && is_done.await.is_ok() };
        let closed = timeout(wait_max, closing).await.unwrap_or(false);
        if closed && let Some(thread) = self.writer.lock().ok().and_then(|mut writer| writer.take()) {
            // It has answered and only returns from here on.
            let _ = thread.join();
        }
        closed
    }
}

#[async_trait]
impl Audit for AuditFile {
    async fn begin(&self, chain: Chain) -> Result<(), Unavailable> {
        let (done, is_done) = oneshot::channel();
        let beginning = async {
            self.queue.send(Message::Begin(chain, done)).await.map_err(|_| Unavailable)?;
            is_done.await.map_err(|_| Unavailable)
        };
        // A sink that hangs has the chain to begin with all the same.
        timeout(RECORD_WAIT_MAX, beginning).await.unwrap_or(Ok(()))
    }

    async fn record(&self, event: Event) -> Result<(), Unavailable> {
        let (answer, answered) = oneshot::channel();
        let recording = async {
            self.queue.send(Message::Record(Line { event, answer })).await.map_err(|_| Unavailable)?;
            answered.await.map_err(|_| Unavailable)?
        };
        let recorded = timeout(RECORD_WAIT_MAX, recording).await.unwrap_or(Err(Unavailable));
        self.healthy.store(recorded.is_ok(), Ordering::Relaxed);
        recorded
    }

    async fn reached(&self, store: Uid) -> Option<Position> {
        let path = self.path.clone();
        // Of a pipe or a device nothing is read back.
        if !path.is_file() {
            return None;
        }
        let read = tokio::task::spawn_blocking(move || {
            let files = files::of_log(&path).map_err(|error| error.to_string())?;
            reached(&files, store).map_err(|error| error.to_string())
        });
        let found = read.await.unwrap_or_else(|_| Err("its reader ended by itself".to_owned()));
        found.unwrap_or_else(|error| {
            tracing::warn!(error, "the store is not compared with its audit log, which cannot be read");
            None
        })
    }

    fn head(&self) -> Option<Head> {
        let progress = *self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        progress.map(|Progress { mark, is_waiting }| Head {
            chain: mark.chain,
            seq: mark.seq,
            mac: mark.mac,
            healthy: !is_waiting && self.healthy.load(Ordering::Relaxed),
        })
    }
}

/// The thread: takes groups of lines as they come, so that one write and one sync serve all that wait.
fn run<S: Sink>(mut writer: Writer<S>, mut messages: mpsc::Receiver<Message>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        tracing::error!("the audit thread cannot keep time");
        return;
    };
    runtime.block_on(async {
        let mut group = Vec::with_capacity(GROUP_LINES_MAX);
        let mut sync_at = Instant::now() + SYNC_INTERVAL;
        loop {
            let received = tokio::time::timeout_at(sync_at, messages.recv_many(&mut group, GROUP_LINES_MAX)).await;
            let closing = match received {
                Ok(0) => Some(None),
                Ok(_) => work(&mut writer, &mut group).map(Some),
                Err(_) => None,
            };
            if sync_at <= Instant::now() {
                writer.tick();
                sync_at = Instant::now() + SYNC_INTERVAL;
            }
            if let Some(done) = closing {
                // Refuses new lines; those already in the queue were handed over and are still written.
                messages.close();
                while messages.recv_many(&mut group, GROUP_LINES_MAX).await > 0 {
                    let _ = work(&mut writer, &mut group);
                }
                match done {
                    Some(done) => {
                        writer.end();
                        let _ = done.send(());
                    }
                    None => writer.settle(),
                }
                return;
            }
        }
    });
}

/// Does what a group of messages asks, in order; a close among them is returned.
fn work<S: Sink>(writer: &mut Writer<S>, group: &mut Vec<Message>) -> Option<oneshot::Sender<()>> {
    let mut closing = None;
    let mut lines = Vec::with_capacity(group.len());
    for message in group.drain(..) {
        match message {
            Message::Record(line) => lines.push(line),
            Message::Begin(chain, done) => {
                answer(writer, &mut lines);
                writer.begin(chain);
                let _ = done.send(());
            }
            Message::Reopen => {
                answer(writer, &mut lines);
                writer.reopen();
            }
            Message::Close(done) => closing = Some(done),
        }
    }
    answer(writer, &mut lines);
    closing
}

fn answer<S: Sink>(writer: &mut Writer<S>, lines: &mut Vec<Line>) {
    let (events, answers): (Vec<_>, Vec<_>) = lines.drain(..).map(|line| (line.event, line.answer)).unzip();
    for (answer, result) in answers.into_iter().zip(writer.write(&events)) {
        // Whoever gave up waiting is told nothing; its line stays, because what it was for may have begun.
        let _ = answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, os::unix::fs::PermissionsExt as _, process::Command, sync::Arc};

    use super::*;
    use crate::audit::{head::Note, line::tests::event, marker::tests::chain, rotation::Surplus, sink::Before};

    fn seqs(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).expect("the log");
        let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("one JSON object a line");
        text.lines().map(|line| parse(line)["seq"].as_u64().expect("a number")).collect()
    }

    async fn opened(path: &Path, sync: bool) -> AuditFile {
        begun(AuditFile::open(path, Options { sync, ..Options::default() }).expect("opens")).await
    }

    async fn begun(audit: AuditFile) -> AuditFile {
        audit.begin(chain()).await.expect("a writer");
        audit
    }

    #[tokio::test]
    async fn before_a_chain_no_line_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let audit = AuditFile::open(&path, Options::default()).expect("opens");
        assert_eq!(audit.record(event("m")).await, Err(Unavailable));
        assert_eq!(audit.head(), None);
        let audit = begun(audit).await;
        audit.record(event("m")).await.expect("a line");
        assert_eq!(seqs(&path), [1, 2]);
        assert_eq!(audit.head().map(|head| (head.seq, head.healthy)), Some((2, true)));
    }

    #[tokio::test]
    async fn lines_keep_their_order_and_none_is_lost() {
        for sync in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("audit.jsonl");
            let audit = Arc::new(opened(&path, sync).await);
            let tasks: Vec<_> = (0..20)
                .map(|_| {
                    let audit = Arc::clone(&audit);
                    tokio::spawn(async move {
                        for _ in 0..50 {
                            audit.record(event("m")).await.expect("a line");
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("a task");
            }
            assert!(audit.close(Duration::from_secs(10)).await);
            assert_eq!(seqs(&path), (1..=1_002).collect::<Vec<_>>(), "and the chain's first and last");
            assert_eq!(audit.record(event("late")).await, Err(Unavailable));
        }
    }

    #[tokio::test]
    async fn a_line_is_in_the_file_when_record_returns() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let audit = opened(&path, false).await;
        for count in 1..=20 {
            audit.record(event("m")).await.expect("a line");
            assert_eq!(seqs(&path).len(), 1 + count);
        }
    }

    #[tokio::test]
    async fn what_was_handed_over_is_written_when_the_log_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let audit = opened(&path, false).await;
        let mut answers = Vec::new();
        for _ in 0..500 {
            let (answer, answered) = oneshot::channel();
            audit.queue.send(Message::Record(Line { event: event("m"), answer })).await.expect("room");
            answers.push(answered);
        }
        assert!(audit.close(Duration::from_secs(10)).await);
        assert_eq!(seqs(&path).len(), 502);
        for answer in answers {
            assert_eq!(answer.await, Ok(Ok(())));
        }
    }

    #[tokio::test]
    async fn a_full_device_is_unavailable() {
        let audit = opened(Path::new("/dev/full"), false).await;
        assert_eq!(audit.record(event("m")).await, Err(Unavailable));
        assert_eq!(audit.head().map(|head| head.healthy), Some(false));
        assert!(audit.close(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_full_pipe_is_unavailable_within_the_wait() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
        let reader = fs::OpenOptions::new().read(true).write(true).open(&path).expect("an end that never reads");
        let audit = opened(&path, false).await;
        let mut big = event("m");
        big.details = vec![("padding", "x".repeat(32 * 1024))];
        let mut recorded = 0;
        let started = loop {
            let started = Instant::now();
            if audit.record(big.clone()).await.is_err() {
                break started;
            }
            recorded += 1;
            assert!(recorded < 1_000, "a pipe must fill");
        };
        let waited = started.elapsed();
        assert!(waited >= RECORD_WAIT_MAX && waited < RECORD_WAIT_MAX * 5, "{waited:?}");
        assert!(!audit.close(Duration::from_millis(50)).await, "the sink still hangs");
        drop(reader);
    }

    #[tokio::test]
    async fn a_rotated_file_is_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
        let audit = opened(&path, false).await;
        audit.record(event("m")).await.expect("a line");
        fs::rename(&path, &old).expect("rotated");
        audit.record(event("m")).await.expect("a line");
        audit.reopen();
        audit.record(event("m")).await.expect("a line");
        assert_eq!((seqs(&old), seqs(&path)), (vec![1, 2, 3], vec![4, 5]), "the new file says what goes on there");
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_deleted_or_replaced_is_followed_by_one_at_the_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("audit.jsonl"), directory.path().join("old"));
        let audit = opened(&path, false).await;
        audit.record(event("m")).await.expect("a line");
        type Deed<'a> = &'a dyn Fn() -> io::Result<()>;
        let rename: Deed<'_> = &|| fs::rename(&path, &old);
        let delete: Deed<'_> = &|| fs::remove_file(&path);
        let replace: Deed<'_> = &|| {
            fs::copy(&path, &old)?;
            fs::rename(&old, &path)
        };
        for deed in [rename, delete, replace] {
            let before = fs::read(&path).expect("a log").len();
            deed().expect("done");
            let deadline = Instant::now() + Duration::from_secs(20);
            while fs::read(&path).map_or(true, |text| text.len() == before) {
                assert!(Instant::now() < deadline, "nobody would find its lines");
                audit.record(event("m")).await.expect("a line");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(fs::metadata(&path).expect("the new file").permissions().mode() & 0o777, 0o600);
        }
        assert!(audit.close(Duration::from_secs(10)).await);
        let seqs = seqs(&path);
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    }

    struct HangingSync(std::sync::mpsc::Receiver<()>);

    impl Sink for HangingSync {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn cut_back(&mut self, _: u64) -> bool {
            false
        }

        fn sync(&mut self) -> io::Result<()> {
            let _ = self.0.recv();
            Ok(())
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
            0
        }

        fn rotate(&mut self, _: std::time::SystemTime, _: u64, _: u32) -> Result<Surplus, OpenError> {
            Ok(Surplus::default())
        }

        fn remove(&self, _: Surplus) {}

        fn keep(&self, _: &Note) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_hung_sync_holds_no_call_for_longer_than_the_wait() {
        let (release, hang) = std::sync::mpsc::channel();
        let audit =
            Arc::new(begun(AuditFile::over(HangingSync(hang), Options { sync: true, ..Options::default() })).await);
        let started = Instant::now();
        let calls: Vec<_> = (0..QUEUE_LINES_MAX * 2)
            .map(|_| {
                let audit = Arc::clone(&audit);
                tokio::spawn(async move { audit.record(event("m")).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.expect("a task"), Err(Unavailable));
        }
        assert!(started.elapsed() < RECORD_WAIT_MAX * 5);
        drop(release);
        assert!(audit.close(Duration::from_secs(10)).await);
    }
}
