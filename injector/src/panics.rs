//! A panic's message may hold anything, so that only its place is told.

use std::panic::{self, PanicHookInfo};

use crate::{Exit, report};

/// From here on a panic ends the process with [`Exit::Internal`] and a line that says where it happened.
pub(crate) fn install() {
    panic::set_hook(Box::new(end));
}

#[expect(clippy::disallowed_methods, reason = "after a panic the alternative is abort, which leaves a core file")]
fn end(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    report::line(&format!("internal error at {place}; the command was not started"));
    std::process::exit(Exit::Internal as i32);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    const CHILD: &str = "COFFER_TEST_PANIC";

    #[test]
    fn a_panic_tells_its_place_and_no_more() {
        if std::env::var_os(CHILD).is_some() {
            super::install();
            panic!("hunter2");
        }
        let name = "panics::tests::a_panic_tells_its_place_and_no_more";
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("started");
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), Some(70), "{stderr}");
        assert!(stderr.contains("coffer-inject: internal error at injector/src/panics.rs:"), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}
