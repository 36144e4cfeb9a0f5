//! The real binary delivering otherwise than by variables of the secrets' names, against a server with canned answers.

#[path = "deliver/cache.rs"]
mod cache;
#[path = "exec/fake.rs"]
#[allow(dead_code, reason = "shared with the other test binary")]
mod fake;
#[path = "deliver/files.rs"]
mod files;
#[path = "deliver/manifest.rs"]
mod manifest;
#[path = "deliver/mask.rs"]
mod mask;
#[path = "exec/run.rs"]
#[allow(dead_code, reason = "shared with the other test binary")]
mod run;
#[path = "deliver/variables.rs"]
mod variables;
