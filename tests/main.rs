//! Behaviour tests of coffer: the real binaries, driven from outside, all in one test binary.
//!
//! [`harness`] starts servers and runs tools; every other module is one behaviour.

mod bad_input;
mod environment;
mod harness;
mod permissions;
mod platform;
mod products;
mod tidy;
