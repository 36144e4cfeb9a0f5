//! Watching and breaking what a process asks of the kernel.

use std::process::{Command, Stdio};

/// strace, which must be there. Its environment holds PATH alone.
pub(crate) fn strace() -> Command {
    let command = || {
        let mut command = Command::new("strace");
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command
    };
    let traced = command().args(["-o", "/dev/null", "true"]).stdin(Stdio::null()).output();
    let reason =
        "strace is missing, or may not trace here: install it (Debian: apt-get install strace) and allow ptrace";
    assert!(traced.is_ok_and(|output| output.status.success()), "{reason}");
    command()
}
