//! The real binary against a server with canned answers.

#[path = "exec/fake.rs"]
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
