//! Vaults over the model store: several on one store behave as one.

mod decided;
mod durable;
mod followed;
mod former_keys;
mod fresh;
mod guard;
mod health;
mod limits;
mod operations;
mod references;
mod replicas;
mod revival;
mod rotated_beside;
mod rotation;
mod sessions;
mod tampering;
mod walks;
pub(crate) mod world;
