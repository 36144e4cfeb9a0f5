//! Programs in namespaces of their own, where mounts, addresses and ports are nobody else's.

use std::process::Command;

/// A kind of namespace, by unshare(1)'s flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// Mounts are its own.
    Mount,
    /// Addresses and ports are its own; the loopback device is down at first.
    Network,
}

/// Returns an `unshare` command that runs, as root of the namespaces, what is appended to it. Panics where the kernel lets
/// nobody make them, since a test that was skipped would prove nothing.
pub(crate) fn unshared(namespaces: &[Namespace]) -> Command {
    let unshare = || {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(namespaces.iter().map(|namespace| match namespace {
            Namespace::Mount => "--mount",
            Namespace::Network => "--net",
        }));
        command
    };
    let tried = unshare().args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let is_possible = tried.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        is_possible,
        "missing: unshare(1) with {namespaces:?} namespaces; run the tests as root, or let users make namespaces \
         (sysctl kernel.unprivileged_userns_clone=1): {tried:?}"
    );
    unshare()
}
