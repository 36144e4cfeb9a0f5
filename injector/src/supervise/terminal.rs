//! The terminal, if the injector has one: the command's group must own it while the command runs in the foreground.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
};

use nix::{
    sys::signal::{SigSet, SigmaskHow, Signal, kill},
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use rustix::fs::{FileType, fstat};

use super::group::Group;

/// Stdin, a terminal of which this process's group had the foreground at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    /// Whether others may use the terminal at the same time: a pager at the other end of a pipe.
    shared: bool,
}

impl Terminal {
    pub(super) fn of_stdin() -> Option<Self> {
        let is_ours = io::stdin().is_terminal() && foreground() == Some(getpgrp());
        is_ours.then(|| Self { shared: is_pipe(io::stdout().as_fd()) || is_pipe(io::stderr().as_fd()) })
    }

    /// Gives a new group the foreground, unless others of this group may read from the terminal: then when it asks.
    pub(super) fn give_at_start(self, group: Group) {
        if !self.shared {
            self.give(group);
        }
    }

    /// Takes the foreground back from a group.
    pub(super) fn take_back(self, group: Group) {
        if foreground() == Some(group.leader()) {
            set_foreground(getpgrp());
        }
    }

    /// What to do about a command that was stopped by a signal: the terminal's own, or for using it in the background.
    pub(super) fn stopped(self, group: Group, signal: Signal) {
        let owner = foreground();
        let wants_it = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        if wants_it && (owner == Some(getpgrp()) || owner == Some(group.leader())) {
            self.give(group);
            group.signal(Signal::SIGCONT);
        } else if owner == Some(group.leader()) {
            // As a shell's job: what was started as one job stops as one, and goes on when the shell says so. The kernel
            // ignores this where there is no shell to say so, and then the command goes on at once, as it would alone.
            set_foreground(getpgrp());
            let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
            if foreground() == Some(getpgrp()) {
                self.give(group);
            }
            group.signal(Signal::SIGCONT);
        }
    }

    fn give(self, group: Group) {
        set_foreground(group.leader());
    }
}

fn foreground() -> Option<Pid> {
    tcgetpgrp(io::stdin()).ok()
}

/// A group in the background would be stopped for this, unless it blocks the signal.
fn set_foreground(group: Pid) {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let Ok(before) = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
    let _ = tcsetpgrp(io::stdin(), group);
    let _ = before.thread_set_mask();
}

fn is_pipe(stream: std::os::fd::BorrowedFd<'_>) -> bool {
    fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
