//! The real binary against a server with canned answers.

#[path = "exec/fake.rs"]
#[allow(dead_code, reason = "shared with the other test binaries")]
mod fake;
#[path = "exec/refused.rs"]
mod refused;
#[path = "exec/run.rs"]
mod run;
#[path = "exec/transparent.rs"]
mod transparent;
#[path = "exec/unavailable.rs"]
mod unavailable;
#[path = "exec/values.rs"]
mod values;
