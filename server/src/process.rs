//! What the process does to itself before it sees a secret: no core file, no reading of its memory by others of its
//! user, and none of it written to swap.

use std::sync::OnceLock;

use rustix::{
    io,
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

/// What [`guard`] came to. Anything that could not be had is no reason not to start, but one to say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// Whether all memory of the process, later memory included, stays out of swap.
    pub memory_locked: bool,
    /// Why it is not; empty if it is.
    pub memory_lock_problem: String,
    /// Whether the limit of core files is 0 for good.
    pub core_dumps_off: bool,
    /// Whether only a privileged process can attach to this one or read its memory. The kernel then writes no core file
    /// either, whatever it does with them (`/proc/sys/kernel/core_pattern`).
    pub undumpable: bool,
}

static GUARDED: OnceLock<Guarded> = OnceLock::new();

/// Guards the process, the first time it is called. To be called before anything secret is read and before there are
/// threads.
pub fn guard() -> &'static Guarded {
    GUARDED.get_or_init(|| {
        let locked = lock_memory();
        Guarded {
            memory_locked: locked.is_ok(),
            memory_lock_problem: locked.err().unwrap_or_default(),
            core_dumps_off: setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_ok(),
            undumpable: set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok(),
        }
    })
}

/// What [`guard`] came to in this process; nothing if it was not called.
pub fn guarded() -> Option<&'static Guarded> {
    GUARDED.get()
}

impl Guarded {
    /// Says it in the log, once.
    pub(crate) fn log(&self) {
        tracing::info!(
            memory_locked = self.memory_locked,
            memory_lock_problem = self.memory_lock_problem,
            core_dumps_off = self.core_dumps_off,
            undumpable = self.undumpable,
            "the process is guarded"
        );
    }
}

/// Locks all memory, each page when it is first used: reserved and unused addresses cost nothing.
///
/// Only without a limit: below a finite one every allocation that passes it would fail, and the server with it.
fn lock_memory() -> Result<(), String> {
    let limit = getrlimit(Resource::Memlock);
    let unlimited = Rlimit { current: None, maximum: None };
    // Raises a soft limit to an unlimited hard one, and the hard one where the process may (CAP_SYS_RESOURCE).
    if limit.current.is_some() && setrlimit(Resource::Memlock, unlimited).is_err() {
        let bytes = limit.maximum.unwrap_or_default();
        return Err(format!(
            "the limit of locked memory is {bytes} bytes and must be unlimited (LimitMEMLOCK=infinity)"
        ));
    }
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => Ok(()),
        Err(io::Errno::PERM) => Err("the system does not permit this process to lock memory".to_owned()),
        Err(error) => Err(format!("the system did not lock it: {error}")),
    }
}
