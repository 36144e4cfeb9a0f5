//! Who may call what: every method of the contract × every role, and what no method ever returns.

mod hidden;
mod roles;
mod table;
mod truth;
