//! What every test stands on: the real binaries, started in a directory of their own and cleaned up after.

mod authority;
mod binaries;
mod command;
mod etcd;
pub(crate) mod kms;
mod ledger;
mod namespace;
mod offline;
mod people;
mod raw;
mod scan;
mod server;
mod status;
mod strace;
mod wait;

pub(crate) use authority::Authority;
pub(crate) use binaries::{binary, prepared};
pub(crate) use command::{Finished, Tool};
pub(crate) use etcd::{Asked, COFFER, Etcd};
pub(crate) use ledger::{Ledger, environment};
pub(crate) use namespace::{Namespace, unshared};
pub(crate) use offline::{admit, done, not_done, restore};
pub(crate) use people::{again, client_at, pairs, secret, write_private};
pub(crate) use raw::Raw;
pub(crate) use scan::{Planted, forms_of, holds, occurrences};
pub(crate) use server::{Server, server_command, text};
pub(crate) use status::{Refusal, refused};
pub(crate) use strace::strace;
pub(crate) use wait::{until, until_async, until_within};
