//! What a client must know.

use std::{path::PathBuf, time::Duration};

use crate::{Addresses, Credential};

/// How to reach a server, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server is, or several of one store.
    pub addresses: Addresses,
    /// Who calls; without one only health checks are answered.
    pub credential: Option<Credential>,
    /// PEM file with the certificates of the authorities to trust, and no others; without one the system's.
    pub ca_file: Option<PathBuf>,
    /// For connecting, TLS handshake included.
    pub connect_timeout: Duration,
    /// For each call; the server is told.
    pub call_timeout: Duration,
}

impl Config {
    /// No credential, the system's authorities, 5 seconds to connect, 10 seconds a call.
    pub fn new(addresses: Addresses) -> Self {
        Self {
            addresses,
            credential: None,
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
        }
    }
}
