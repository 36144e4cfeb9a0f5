//! Who may call what: every method of the contract × every role, and what no method ever returns.

mod hidden;
pub(crate) mod roles;
pub(crate) mod table;
mod truth;
