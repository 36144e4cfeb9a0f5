//! No core file of the injector, and the workload's own as before.
//!
//! The kernel makes a process dumpable again at every exec, but passes the limit of core files on: that one is put back.
//! Only the soft limit is lowered, for a hard one cannot be raised again.

use std::{io, sync::OnceLock};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// What the process was started with.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// From here on no core file of this process is written, and only a privileged process can read its memory.
pub(crate) fn forbid() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let inherited = INHERITED.get_or_init(|| getrlimit(Resource::Core));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: inherited.maximum })?;
    Ok(())
}

/// Starts another program by `start` with the limit that this process was started with. Not dumpable it stays.
pub(crate) fn allowed<T>(start: impl FnOnce() -> T) -> T {
    // Neither call can fail: it stays below the hard limit.
    let Some(inherited) = INHERITED.get() else { return start() };
    let _ = setrlimit(Resource::Core, *inherited);
    let started = start();
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: inherited.maximum });
    started
}
