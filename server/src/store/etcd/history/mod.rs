//! A store in etcd of which this server keeps the history in a directory of its own, so that what was can be restored.
//!
//! ```text
//!   load, commit, changes, latest ─► etcd ─► watch ─► recorder ─► run: log and snapshots on this server's disk
//!   snapshot, snapshots           ─────────────────────────────────┘
//! ```
//! Nothing that the store answers waits for the disk: the recorder follows etcd as every server does, behind what is
//! acknowledged. While the directory cannot be written the server goes on, says so, and tries again; what etcd has forgotten
//! meanwhile is a gap, after which a new run begins.

mod recorder;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use self::recorder::Recorder;
use super::Etcd;
use crate::store::{
    Backup, Condition, Conflict, Error, Follow, Load, Position, Snapshot, Store, Transaction,
    embedded::{Options, Run, Runs, recorded_to},
};

/// How long a snapshot waits for the recorder to reach what was acknowledged.
const REACH_MAX: Duration = Duration::from_secs(5);

/// How far the recorder is.
#[derive(Clone, Default)]
struct State {
    /// The directory, once it is open.
    runs: Option<Arc<Runs>>,
    /// The run, while it goes on, and how far it has come.
    run: Option<(Arc<Run>, Position)>,
    /// Why nothing is recorded now.
    problem: Option<String>,
    /// Whether what was recorded before is known by now.
    is_read: bool,
}

/// A store in etcd whose history is kept. Clones are handles of one store; when the last is gone, the recording ends.
#[derive(Clone)]
pub struct Recorded {
    store: Etcd,
    recording: Arc<Recording>,
}

struct Recording {
    directory: PathBuf,
    state: watch::Receiver<State>,
    /// Why what was recorded before could not be read, if it could not.
    unread: OnceLock<String>,
    begin: watch::Sender<bool>,
    /// Dropping it ends the task.
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Recorded {
    /// Keeps the history of a store in a directory, from [`Recorded::begin`] on. What the embedded store keeps of itself by
    /// the same options is kept of this one. Needs the runtime of tokio.
    pub fn new(store: Etcd, directory: PathBuf, options: Options) -> Self {
        let (state, known) = watch::channel(State::default());
        let (stop, mut stopped) = watch::channel(false);
        let (begin, mut begun) = watch::channel(false);
        let recorder = Recorder::new(store.clone(), directory.clone(), options, state, stopped.clone());
        let task = Mutex::new(Some(tokio::spawn(async move {
            let is_begun = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => false,
                begun = begun.wait_for(|begun| *begun) => begun.is_ok(),
            };
            if is_begun {
                recorder.run().await;
            }
        })));
        Self {
            store,
            recording: Arc::new(Recording { directory, state: known, unread: OnceLock::new(), begin, stop, task }),
        }
    }

    /// Every later answer of etcd must have reached what was recorded of the store before. An etcd that has not was put
    /// back to an earlier state, which the next load says to everybody.
    pub async fn recall(&self) {
        let Some(instance) = self.store.instance() else { return };
        let directory = self.recording.directory.clone();
        let error = match spawn_blocking(move || recorded_to(&directory, instance)).await {
            Ok(Ok(end)) => return end.into_iter().for_each(|end| self.store.reached(end)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "reading it ended by itself".to_owned(),
        };
        tracing::error!(error, "whether etcd was put back is not known: the history cannot be read");
        let _ = self.recording.unread.set(error);
    }

    /// What is wrong with the history, as far as the recorder knows.
    fn problem(&self) -> Option<String> {
        let state = self.recording.state.borrow();
        match self.recording.unread.get() {
            Some(unread) if !state.is_read => {
                let why = state.problem.as_ref().unwrap_or(unread);
                Some(format!("{why}; and until it is read, nobody here knows whether etcd was put back"))
            }
            _ => state.problem.clone(),
        }
    }

    /// Begins to record, in a directory that is created if it is not there. Not to be called before it is sure that this
    /// is the store that was meant.
    pub fn begin(&self) {
        self.recording.begin.send_replace(true);
    }

    /// Ends the recording in good order: the next start goes on where it ends.
    pub async fn close(&self) {
        self.recording.stop.send_replace(true);
        let task = self.recording.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // What a panic left is repaired by the next start.
            let _ = task.await;
        }
    }

    /// The run that has recorded everything up to a position.
    pub(super) async fn reached(&self, position: Position) -> Result<Arc<Run>, Error> {
        let mut state = self.recording.state.clone();
        let has_it = |state: &State| state.run.as_ref().is_some_and(|(_, at)| *at >= position);
        let reached = timeout(REACH_MAX, state.wait_for(has_it)).await;
        if let Ok(Ok(state)) = &reached
            && let Some((run, _)) = &state.run
        {
            return Ok(Arc::clone(run));
        }
        drop(reached);
        let problem = state.borrow().problem.clone();
        Err(Error::NoHistory(match problem {
            Some(problem) => format!("the history is not kept now: {problem}"),
            None => "the history is behind the store: try again".into(),
        }))
    }

    fn runs(&self) -> Option<Arc<Runs>> {
        self.recording.state.borrow().runs.clone()
    }
}

#[async_trait]
impl Store for Recorded {
    async fn load(&self) -> Result<Box<dyn Load>, Error> {
        self.store.load().await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Result<Position, Conflict>, Error> {
        self.store.commit(transaction).await
    }

    async fn changes(&self, after: Position) -> Result<Box<dyn Follow>, Error> {
        self.store.changes(after).await
    }

    async fn latest(&self) -> Result<Position, Error> {
        self.store.latest().await
    }

    async fn condition(&self) -> Condition {
        let mut condition = self.store.condition().await;
        condition.history_problem = self.problem();
        let Some(runs) = self.runs() else { return condition };
        let look = move || (runs.extent(), runs.free_bytes(), runs.problem());
        let Ok(((oldest, bytes), free, lost)) = spawn_blocking(look).await else { return condition };
        let history_problem = condition.history_problem.or(lost);
        Condition { history_problem, oldest, history_bytes: bytes, free_bytes: free, ..condition }
    }

    async fn snapshot(&self) -> Result<Snapshot, Error> {
        let latest = self.store.latest().await?;
        self.reached(latest).await?.snapshot().await
    }

    async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let Some(runs) = self.runs() else { return Ok(Vec::new()) };
        let looked = spawn_blocking(move || runs.snapshots()).await;
        looked.map_err(|_| Error::Unavailable("the snapshots cannot be listed".into()))?
    }

    async fn backup(&self) -> Result<Backup, Error> {
        self.store.backup().await
    }
}
