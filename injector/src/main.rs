//! Injector.
fn main() {}
