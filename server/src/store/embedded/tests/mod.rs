//! Tests of the embedded store as a whole.

mod conform;
