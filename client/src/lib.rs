//! Client of coffer: connect, call, understand errors.
//!
//! - [`Address`]: where a server is; refuses to send tokens unencrypted beyond this machine.
//! - [`Credential`]: the bearer token, or the file that holds it.
//! - [`Config`] and [`Client`]: typed gRPC clients over one authenticated connection.
//! - [`Error`]: what a failed call says, with coffer's reasons and field violations read out.
//! - [`retry`]: full-jitter backoff under one deadline.
//!
//! Nothing here knows about terminals or processes, and nothing prints.

mod address;
mod client;
mod config;
mod connect;
mod credential;
mod error;
mod file;
pub mod retry;

pub use address::{Address, InvalidAddress};
pub use client::Client;
pub use config::Config;
pub use credential::{Authorize, Credential};
pub use error::Error;
pub use tonic::{Code, Response, Status};
pub use tonic_health::pb as health;

/// The service type of every client that [`Client`] gives out: a connection that adds the credential to each call.
pub type Channel = tonic::service::interceptor::InterceptedService<tonic::transport::Channel, Authorize>;
