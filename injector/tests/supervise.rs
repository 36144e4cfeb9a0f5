//! The real binary looking after its command, against a server with canned answers.

#[path = "supervise/changes.rs"]
mod changes;
#[path = "exec/fake.rs"]
#[allow(dead_code, reason = "shared with the other test binaries")]
mod fake;
#[path = "supervise/processes.rs"]
mod processes;
#[path = "exec/run.rs"]
#[allow(dead_code, reason = "shared with the other test binaries")]
mod run;
#[path = "supervise/settled.rs"]
mod settled;
#[path = "supervise/signals.rs"]
mod signals;
#[path = "supervise/supervised.rs"]
mod supervised;
#[path = "supervise/terminal.rs"]
mod terminal;
