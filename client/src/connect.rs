//! Turns a [`Config`] into a tonic endpoint.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::{
    Code,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::{Address, Config, Error, file};

/// Between two pings on a connection with calls under way.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A ping unanswered for this long ends the connection.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file of trusted certificates, in bytes: ten times the usual bundle of all public authorities.
const CA_FILE_BYTES: usize = 2 * 1024 * 1024;

/// An endpoint of each server, with all of its settings. Fails on a bad CA file, which the error names.
pub(crate) fn endpoints(config: &Config) -> Result<Vec<Endpoint>, Error> {
    let tls = match config.addresses.iter().any(Address::is_tls) {
        true => Some(trusted(config)?.timeout(config.connect_timeout)),
        false => None,
    };
    config.addresses.iter().map(|address| endpoint(config, address, tls.as_ref())).collect()
}

fn endpoint(config: &Config, address: &Address, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, Error> {
    let invalid = |message: String| Error::local(Code::InvalidArgument, None, message);
    let endpoint = Endpoint::from_shared(address.endpoint())
        .and_then(|endpoint| endpoint.user_agent(concat!("coffer-client/", env!("CARGO_PKG_VERSION"))))
        .map_err(|error| invalid(format!("{address}: {error}")))?
        .connect_timeout(config.connect_timeout)
        .timeout(config.call_timeout)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    match tls {
        Some(tls) if address.is_tls() => {
            endpoint.tls_config(tls.clone()).map_err(|error| Error::not_connected(address, &error))
        }
        _ => Ok(endpoint),
    }
}

fn trusted(config: &Config) -> Result<ClientTlsConfig, Error> {
    let Some(path) = &config.ca_file else {
        return Ok(ClientTlsConfig::new().with_native_roots());
    };
    let invalid = |message: String| Error::local(Code::InvalidArgument, None, message);
    let pem = file::read_bounded("CA file", path, CA_FILE_BYTES).map_err(invalid)?;
    // rustls would ignore what is no certificate, and then trust nobody without saying why.
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(found) if !found.is_empty() => Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pem[..]))),
        _ => Err(invalid(format!("CA file {}: must contain certificates in PEM format", path.display()))),
    }
}
