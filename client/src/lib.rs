//! Client of coffer, a secrets service: connect, call, understand errors, follow changes.
//!
//! ```no_run
//! use coffer_client::{Client, Config, Credential};
//! use coffer_proto::v1::FetchEnvironmentRequest;
//!
//! # async fn run() -> Result<(), coffer_client::Error> {
//! let address = "https://coffer.example.com:7470".parse().expect("an address");
//! let mut config = Config::new(address);
//! config.credential = Some(Credential::TokenFile("/run/coffer/token".into()));
//! let client = Client::connect(config).await?;
//! let mut workloads = client.workloads();
//! let environment = client.call(workloads.fetch_environment(FetchEnvironmentRequest::default())).await?;
//! for variable in environment.variables {
//!     println!("{} from {}", variable.name, variable.source);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/follow.rs` is a whole program. Every call can be dropped at any time: a dropped call or stream is cancelled
//! on the server, too, and leaves nothing behind.
//!
//! - [`Addresses`]: where the servers are; refuses to send tokens unencrypted beyond this machine.
//! - [`Credential`]: the bearer token, or the file that holds it.
//! - [`Config`] and [`Client`]: typed gRPC clients over one authenticated connection, or one to each of several servers of
//!   one store: then an answer with `stale_since` is taken only if none of them has one of now.
//! - [`Error`]: what a failed call says, with coffer's reasons and field violations read out.
//! - [`retry`]: full-jitter backoff under one deadline.
//! - [`follow`]: a workload's environment from what one has to the newest, across lost connections.
//! - [`start`]: exchanges a single-use start token.
//!
//! Nothing here knows about terminals or processes, and nothing prints.

mod address;
mod certificate;
mod client;
mod config;
mod connect;
mod credential;
mod error;
mod file;
pub mod follow;
pub mod retry;
mod servers;
pub mod start;

pub use address::{Address, Addresses, InvalidAddress};
pub use certificate::CertificateProblem;
pub use client::Client;
pub use config::Config;
pub use credential::{Authorize, Credential};
pub use error::Error;
pub use servers::Servers;
pub use tonic::{Code, Response, Status};
pub use tonic_health::pb as health;

/// The service type of every client that [`Client`] gives out: a connection that adds the credential to each call.
pub type Channel = tonic::service::interceptor::InterceptedService<Servers, Authorize>;
