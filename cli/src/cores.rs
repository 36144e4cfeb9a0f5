//! No core file: it would hold the values that were typed, read or fetched.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// From here on no core file of this process is written, and only a privileged process can read its memory. Where that
/// cannot be had the command works as well.
pub(crate) fn forbid() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let maximum = getrlimit(Resource::Core).maximum;
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
}
