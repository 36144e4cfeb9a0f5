//! A panic's message may hold anything, a value among them, so that only its place is told.

use std::panic;

use crate::{failure::Failure, print};

/// From here on a panic says where it happened and no more.
pub(crate) fn install() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        print::failure(&Failure::failed(format!("internal error at {place}")));
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    const CHILD: &str = "COFFER_TEST_PANIC";

    #[test]
    fn a_panic_tells_its_place_and_no_more() {
        if std::env::var_os(CHILD).is_some() {
            super::install();
            let thread = std::thread::spawn(|| panic!("hunter2"));
            drop(thread.join());
            panic!("hunter2");
        }
        let name = "panics::tests::a_panic_tells_its_place_and_no_more";
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("started");
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success(), "{stderr}");
        assert_eq!(stderr.matches("error: internal error at cli/src/panics.rs:").count(), 2, "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}
