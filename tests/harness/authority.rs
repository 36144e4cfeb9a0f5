//! Certificates, as files.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority, and a certificate of 127.0.0.1 that it signed, with its key.
pub(crate) struct Authority {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn write_to(home: &TempDir, name: &str) -> Self {
        Self::write_for(home, name, &["127.0.0.1"])
    }

    /// The same with a certificate of these host names and addresses.
    pub(crate) fn write_for(home: &TempDir, name: &str, hosts: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
            .expect("parameters");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let write = |what: &str, text: String| {
            let path = home.path().join(format!("{name}-{what}.pem"));
            fs::write(&path, text).expect("written");
            path
        };
        Self {
            ca: write("ca", authority.pem()),
            certificate: write("cert", certificate.pem()),
            key: write("key", key.serialize_pem()),
        }
    }
}
