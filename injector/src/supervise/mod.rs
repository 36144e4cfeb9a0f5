//! Stays with the command: passes signals on, reaps what it leaves behind, and acts on changes of its environment.
//!
//! - [`start`]: what a start receives, made ready; [`apart`]: on a thread of its own.
//! - [`group`]: the command and what it starts, as one process group.
//! - [`signals`]: what the injector is sent; [`terminal`]: who owns it.
//! - [`changes`]: what is new, fetched in a task of its own. [`said`]: what is not said twice.
//!
//! One loop waits for all of it and is in one [`State`].

mod apart;
mod changes;
mod group;
mod said;
mod signals;
mod start;
mod terminal;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use coffer_proto::v1::FetchEnvironmentResponse;
use nix::sys::{
    prctl,
    signal::{SigSet, Signal},
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use self::{
    apart::{Apart, News, at},
    changes::{Began, Outcome, Times},
    group::{Event, Group},
    said::Said,
    signals::Signals,
    start::{Given, Prepared, Start, prepare, prepare_change, spawn},
    terminal::Terminal,
};
use crate::{
    Exit, Failure,
    args::OnChange,
    fetch::{Fetched, Source},
    mask::{Copying, Known},
    report,
};

pub(crate) use start::Work;

/// How long what the command printed last may take to be copied, where a process it left behind keeps the pipe open.
const COPY_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long killed processes may take to be gone.
const KILLED_WAIT_MAX: Duration = Duration::from_secs(5);
/// What may have become of answers that nobody has looked at yet: of one that was taken, one that is made ready and one
/// that waits there is one each.
const OUTCOMES_MAX: usize = 8;
/// How often a group that is to be gone is looked at: its processes need not be children of this one.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How the supervisor stands with the command.
enum State {
    Running,
    /// It was told to stop, and is killed then.
    Stopping {
        next: Next,
        kill_at: Instant,
    },
    /// It has ended; what it left of its group is to be gone.
    Clearing {
        next: Next,
        kill_at: Option<Instant>,
        give_up_at: Instant,
    },
}

/// What comes once the command is gone.
enum Next {
    Start(Box<Start>),
    End(u8),
    /// With the command's own code.
    EndWithIts,
}

struct Supervisor {
    work: Arc<Work>,
    known: Arc<Mutex<Known>>,
    terminal: Option<Terminal>,
    group: Group,
    given: Given,
    /// What its variables are from, which cannot change while it runs.
    started_with: Given,
    /// Whether it has all of `given`.
    has_all: bool,
    /// What is told of the changes that came.
    outcomes: mpsc::Sender<Outcome>,
    said: Said,
    /// What changed, being written and made ready.
    preparing: Option<Apart<Prepared>>,
    /// Of what was printed by this command and those before it.
    copying: Vec<Copying>,
    /// The signals that the command ignores from its start on.
    ignored: SigSet,
    state: State,
    /// A TERM or INT was passed on; the next one kills.
    was_told_to_end: bool,
}

/// Runs the command until it ends for good. Answers the exit code.
pub(crate) fn run(work: Work, fetched: Fetched) -> Result<u8, Failure> {
    let Fetched { answer, was_kept, runtime, source } = fetched;
    let began = Began { revision: answer.environment_revision.clone(), was_kept };
    let known = Mutex::new(Known::default());
    let start = prepare(&work, &known, answer)?;
    let fail = |what: &str, error: &dyn std::fmt::Display| Failure::new(Exit::Internal, format!("{what}: {error}"));
    // What this process knows, the command's user must not read out of it.
    prctl::set_dumpable(false).map_err(|error| fail("cannot protect this process's memory", &error))?;
    prctl::set_child_subreaper(true).map_err(|error| fail("cannot adopt what the command leaves behind", &error))?;
    let code = runtime.block_on(async {
        let signals = Signals::catch().map_err(|error| fail("cannot catch signals", &error))?;
        let (outcomes, told) = mpsc::channel(OUTCOMES_MAX);
        let supervisor = Supervisor::start(Arc::new(work), Arc::new(known), start, outcomes, signals.ignored())?;
        supervisor.run(signals, source, began, told).await
    });
    runtime.shutdown_background();
    code
}

impl Supervisor {
    fn start(
        work: Arc<Work>,
        known: Arc<Mutex<Known>>,
        start: Start,
        outcomes: mpsc::Sender<Outcome>,
        ignored: SigSet,
    ) -> Result<Self, Failure> {
        let terminal = Terminal::of_stdin();
        let (group, given, copying) = spawn(&work, start, ignored)?;
        if let Some(terminal) = terminal {
            terminal.give_at_start(group);
        }
        Ok(Self {
            work,
            known,
            terminal,
            group,
            started_with: given.clone(),
            given,
            has_all: true,
            outcomes,
            said: Said::default(),
            preparing: None,
            copying: copying.into_iter().collect(),
            ignored,
            state: State::Running,
            was_told_to_end: false,
        })
    }

    async fn run(
        mut self,
        mut signals: Signals,
        source: Source,
        began: Began,
        outcomes: mpsc::Receiver<Outcome>,
    ) -> Result<u8, Failure> {
        let (sender, mut news) = mpsc::channel(1);
        if self.work.args.supervise.on_change.is_some() {
            let (times, cache) = (Times::new(&self.work.args), self.work.cache.clone());
            tokio::spawn(changes::follow(source.clone(), began, times, cache, sender, outcomes));
        }
        let mut looks = looks();
        let end = loop {
            let may_change = matches!(self.state, State::Running) && self.preparing.is_none();
            let is_clearing = matches!(self.state, State::Clearing { .. });
            let deadline = self.deadline();
            tokio::select! {
                signal = signals.next() => self.signaled(signal),
                Some(answer) = news.recv(), if may_change => self.changed(&source, answer),
                told = news_of(&mut self.preparing) => self.prepared(told),
                () = at(deadline) => self.late(),
                _ = looks.tick(), if is_clearing => {}
            }
            if let Some(end) = self.go_on().transpose() {
                break end;
            }
        };
        copied(self.copying, &mut signals).await;
        end
    }

    fn signaled(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => group::reap().into_iter().for_each(|event| self.happened(event)),
            Signal::SIGTERM | Signal::SIGINT if self.was_told_to_end => self.group.signal(Signal::SIGKILL),
            Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => {
                self.was_told_to_end |= signal != Signal::SIGQUIT;
                self.group.signal(signal);
                // No start comes after this.
                if let State::Stopping { next, .. } | State::Clearing { next, .. } = &mut self.state
                    && matches!(next, Next::Start(_))
                {
                    *next = Next::EndWithIts;
                }
            }
            other => self.group.signal(other),
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Ended(pid, code) if pid == self.group.leader() => self.ended(code),
            Event::Stopped(pid, signal) if pid == self.group.leader() => {
                if let Some(terminal) = self.terminal {
                    terminal.stopped(self.group, signal);
                }
            }
            Event::Ended(..) | Event::Stopped(..) => {}
        }
    }

    fn ended(&mut self, code: u8) {
        if let Some(terminal) = self.terminal {
            terminal.take_back(self.group);
        }
        let (next, kill_at) = match std::mem::replace(&mut self.state, State::Running) {
            State::Running => (Next::End(code), self.grace()),
            State::Stopping { next: Next::EndWithIts, kill_at } => (Next::End(code), kill_at),
            State::Stopping { next, kill_at } => (next, kill_at),
            // It ends once.
            state @ State::Clearing { .. } => {
                self.state = state;
                return;
            }
        };
        if !self.group.is_empty() {
            self.group.signal(self.work.args.supervise.stop_signal);
        }
        self.state = State::Clearing { next, kill_at: Some(kill_at), give_up_at: kill_at + KILLED_WAIT_MAX };
    }

    fn changed(&mut self, source: &Source, answer: FetchEnvironmentResponse) {
        if let Err(failure) = source.check(&answer) {
            return self.refused(&failure);
        }
        let (work, known, given) = (Arc::clone(&self.work), Arc::clone(&self.known), self.given.clone());
        let patience = self.work.args.timeout;
        self.preparing = Some(Apart::begin(patience, move || prepare_change(&work, &known, &given, answer)));
    }

    fn prepared(&mut self, told: News<Prepared>) {
        let News::Done(prepared) = told else {
            return report::line(
                "what changed is not written after the time of --timeout; the command runs on with what it has until it is",
            );
        };
        self.preparing = None;
        // The end may have come first.
        if !matches!(self.state, State::Running) {
            return;
        }
        let start = match prepared {
            Ok(Prepared::Start(start)) => start,
            Ok(Prepared::Same(revision)) => return self.taken(revision),
            Err(failure) => return self.refused(&failure),
        };
        let next = match self.work.args.supervise.on_change {
            Some(OnChange::Restart) => Next::Start(start),
            Some(OnChange::Exit) => Next::End(Exit::Changed as u8),
            Some(OnChange::Signal) | None => {
                self.has_all = start.completes(&self.work.args, &self.started_with);
                self.given = start.given;
                self.group.signal(self.work.args.supervise.change_signal);
                return self.taken(start.revision);
            }
        };
        report::verbose(self.work.args.verbose, || "what the command was given changed: stopping it".to_owned());
        self.group.signal(self.work.args.supervise.stop_signal);
        self.group.signal(Signal::SIGCONT);
        self.state = State::Stopping { next, kill_at: self.grace() };
    }

    /// The command was told of this environment, or needs nothing of it.
    fn taken(&mut self, revision: String) {
        self.said.nothing();
        self.tell(Outcome::Taken(self.has_all.then_some(revision)));
    }

    fn refused(&mut self, failure: &Failure) {
        let first = "what changed cannot be given to the command, which runs on with what it has:";
        self.said.once(std::iter::once(first).chain(failure.problems()));
        self.tell(Outcome::Refused);
    }

    /// There is room, as [`OUTCOMES_MAX`] says; without anybody who follows changes there is nobody to be told.
    fn tell(&self, outcome: Outcome) {
        let _ = self.outcomes.try_send(outcome);
    }

    fn grace(&self) -> Instant {
        Instant::now() + self.work.args.supervise.grace
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Running => None,
            State::Stopping { kill_at, .. } => Some(*kill_at),
            State::Clearing { kill_at, give_up_at, .. } => Some(kill_at.unwrap_or(*give_up_at)),
        }
    }

    /// A deadline has passed.
    fn late(&mut self) {
        match &mut self.state {
            State::Running => return,
            // It cannot ignore this; its end comes as every other.
            State::Stopping { kill_at, .. } => *kill_at += KILLED_WAIT_MAX,
            State::Clearing { kill_at, .. } => *kill_at = None,
        }
        self.group.signal(Signal::SIGKILL);
    }

    /// Once the group is gone: what comes next. Answers the exit code if that is the end.
    fn go_on(&mut self) -> Result<Option<u8>, Failure> {
        let State::Clearing { kill_at, give_up_at, .. } = &self.state else { return Ok(None) };
        let gives_up = kill_at.is_none() && Instant::now() >= *give_up_at;
        if !self.group.is_empty() && !gives_up {
            return Ok(None);
        }
        match std::mem::replace(&mut self.state, State::Running) {
            State::Clearing { next: Next::End(code), .. } => Ok(Some(code)),
            // A start was called off after the command had ended: as if the signal had found it.
            State::Clearing { next: Next::EndWithIts, .. } => Ok(Some(group::ENDED_BY_TERM)),
            State::Clearing { next: Next::Start(start), .. } => {
                let revision = start.revision.clone();
                let copying;
                (self.group, self.given, copying) = spawn(&self.work, *start, self.ignored)?;
                self.copying.retain(|copying| !copying.is_over());
                self.copying.extend(copying);
                self.started_with.clone_from(&self.given);
                (self.has_all, self.was_told_to_end) = (true, false);
                self.taken(revision);
                if let Some(terminal) = self.terminal {
                    terminal.give_at_start(self.group);
                }
                Ok(None)
            }
            state => {
                self.state = state;
                Ok(None)
            }
        }
    }
}

/// When to look; what a long run of the command missed is not made up for.
fn looks() -> Interval {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}

/// Waits until all that was printed is read, unless a signal says that this is too long.
async fn copied(copying: Vec<Copying>, signals: &mut Signals) {
    let deadline = std::time::Instant::now() + COPY_WAIT_MAX;
    let left_open = move || copying.into_iter().map(|copying| copying.finish(deadline)).filter(|all| !all).count();
    let mut finish = spawn_blocking(left_open);
    loop {
        tokio::select! {
            left_open = &mut finish => {
                if left_open.is_ok_and(|count| count > 0) {
                    report::line("--mask: a process that the command left behind prints to nobody from here on");
                }
                return;
            }
            signal = signals.next() => match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP => {
                    return report::line("--mask: told to end before all that the command printed was read");
                }
                Signal::SIGCHLD => drop(group::reap()),
                _ => {}
            }
        }
    }
}

/// Waits for news of it; for ever if there is none under way.
async fn news_of(preparing: &mut Option<Apart<Prepared>>) -> News<Prepared> {
    match preparing {
        Some(preparing) => preparing.news().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    #[tokio::test(start_paused = true)]
    async fn after_a_long_run_it_looks_no_oftener() {
        let mut looks = looks();
        looks.tick().await;
        advance(Duration::from_secs(60 * 60)).await;
        looks.tick().await;
        assert!(timeout(LOOK_INTERVAL / 2, looks.tick()).await.is_err());
        assert!(timeout(LOOK_INTERVAL, looks.tick()).await.is_ok());
    }
}
