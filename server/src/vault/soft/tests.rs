//! Starts and uses, from one vault to the next.
