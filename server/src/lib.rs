//! The coffer secrets service.
//!
//! ```text
//!   client ─► api ─► identity ─► access ─► vault ──► seal ─► store (embedded: log + sled)
//!                                            ▲                  │ committed changes, in order
//!                                            └──── view ◄───────┘
//! ```
//!
//! - [`command`]: `init`, `operator`, `run`, `dev`, `check-config`: what the process is told to do, and how it says that
//!   it failed.
//! - [`server`]: the one place that puts all of it together; the standard services beside coffer's own.
//! - [`api`]: one file a service; turns wire messages into types and errors into statuses. Besides it only `serve`,
//!   `server` and what `dev` sets up name tonic.
//! - [`serve`]: sockets, TLS, limits and the drain.
//! - [`identity`]: who calls.
//! - [`access`]: may they: a pure decision; the only maker of a `Permit`.
//! - [`vault`]: what coffer does; nothing acts without a permit, and nothing acts without an audit record.
//! - [`view`]: the state in memory, fed only by committed changes; reads never touch the store.
//! - [`record`]: what the store holds: the keys of records, and their contents, sealed.
//! - [`audit`]: who did what, before it is done; each line linked to all before it.
//! - [`seal`]: the only module that sees keys: key sources, keyring, cipher, envelope.
//! - [`store`]: durable, ordered transactions on sealed records; it never sees a value.
//! - [`config`]: flags, environment and file; [`telemetry`]: logs and what a panic may say; [`clock`]: the time;
//!   [`process`]: what the process does to itself first, so that its memory stays its own; `draft`: small files put in place
//!   in one step; `escape`: what a terminal must not obey.
//!
//! Dependencies point down this list; a test holds the direction. Only `vault` sees a value and a store at once.

pub mod access;
pub mod api;
pub mod audit;
pub mod clock;
pub mod command;
pub mod config;
mod draft;
mod escape;
pub mod identity;
mod lock;
pub mod process;
pub mod record;
pub mod seal;
pub mod serve;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod vault;
pub mod view;
