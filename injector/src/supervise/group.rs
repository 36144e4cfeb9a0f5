//! The command as a child: a process group of its own, its signals, its end.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use nix::{
    errno::Errno,
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{Command, Environment, cores};

/// What a shell adds to the number of the signal that ended a command.
const SIGNALED: i32 = 128;

/// The exit code of a command that TERM ended.
pub(super) const ENDED_BY_TERM: u8 = (SIGNALED + Signal::SIGTERM as i32) as u8;

/// A command's process group; the command is its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(Pid);

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It ended, with this exit code as a shell has it.
    Ended(Pid, u8),
    /// It was stopped by this signal.
    Stopped(Pid, Signal),
}

impl Group {
    /// Starts the command. Signals are as at the start of every program: none blocked, and none ignored but `ignored`.
    ///
    /// posix_spawn(3) and not std's Command: that keeps copies of the environment that nobody wipes, and would wait for
    /// its child by itself.
    pub(super) fn start(
        command: &Command,
        environment: Environment,
        stdout: Option<&OwnedFd>,
        stderr: Option<&OwnedFd>,
        ignored: SigSet,
    ) -> io::Result<Self> {
        let path = CString::new(command.path().as_os_str().as_bytes())?;
        let words = command.words().iter().map(|word| CString::new(word.as_bytes()));
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let variables = environment.into_strings()?;
        let variables: Vec<&std::ffi::CStr> = variables.iter().map(|variable| variable.as_c_str()).collect();
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        let mut default = SigSet::all();
        ignored.iter().for_each(|signal| default.remove(signal));
        attributes.set_sigdefault(&default)?;
        attributes.set_sigmask(&SigSet::empty())?;
        let mut actions = PosixSpawnFileActions::init()?;
        for (output, number) in [(stdout, 1), (stderr, 2)] {
            if let Some(output) = output {
                actions.add_dup2(output.as_raw_fd(), number)?;
            }
        }
        let pid = cores::allowed(|| posix_spawn(path.as_c_str(), &actions, &attributes, &words, &variables))?;
        Ok(Self(pid))
    }

    pub(super) fn leader(self) -> Pid {
        self.0
    }

    /// Signals every process of the group. None left is none to signal.
    pub(super) fn signal(self, signal: Signal) {
        let _ = killpg(self.0, signal);
    }

    /// Whether nothing of the group is left.
    pub(super) fn is_empty(self) -> bool {
        killpg(self.0, None) == Err(Errno::ESRCH)
    }
}

/// Takes note of every child that ended or was stopped, adopted ones among them.
pub(super) fn reap() -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(pid, code)) => events.push(Event::Ended(pid, code as u8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                events.push(Event::Ended(pid, (SIGNALED + signal as i32) as u8));
            }
            Ok(WaitStatus::Stopped(pid, signal)) => events.push(Event::Stopped(pid, signal)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return events,
            Err(Errno::EINTR) | Ok(_) => {}
            // There is no other error with these flags, and no use in asking again.
            Err(_) => return events,
        }
    }
}
