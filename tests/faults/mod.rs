//! What a disk that fails, fills up or hangs does to the real server: nothing that is not durable is answered with
//! success, nothing is tried a second time, reads go on, and the next start has everything that was acknowledged.
//!
//! strace makes single system calls of the server fail, one after the other.

mod broken;
mod full;
mod hung;
mod stage;
mod starved;
