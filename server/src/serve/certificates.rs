//! The TLS certificate, read again when its files change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use super::Marks;
use crate::config::Tls;

/// The protocol that gRPC is spoken over.
const ALPN_HTTP2: &[u8] = b"h2";

/// A certificate and its key. New connections get the newest good pair; old ones keep what they have.
#[derive(Debug)]
pub struct Certificates {
    files: Tls,
    current: RwLock<Arc<CertifiedKey>>,
    /// Of the files when they were last read.
    marks: Marks,
}

/// Why a certificate pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The file is not there, or no PEM.
    #[error("{what} {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The certificate or the key.
        what: &'static str,
        /// Its file.
        path: PathBuf,
        /// What the PEM reader says; it never quotes the file.
        error: rustls_pki_types::pem::Error,
    },
    /// No certificate in the file.
    #[error("certificate file {} has no certificate", .0.display())]
    Empty(PathBuf),
    /// The key is of another certificate, or of no supported kind.
    #[error("certificate {} and key {} do not fit: {error}", files.cert.display(), files.key.display())]
    Unfit {
        /// Both files.
        files: Tls,
        /// What rustls says.
        error: rustls::Error,
    },
}

impl Certificates {
    /// Reads the pair.
    pub fn load(files: Tls) -> Result<Self, CertificatesError> {
        let marks = Marks::of(vec![files.cert.clone(), files.key.clone()]);
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, current, marks })
    }

    /// Reads the pair again. A bad one is logged, and the one in use stays.
    pub fn reload(&self) {
        self.marks.renew();
        self.read_again();
    }

    /// Reads the pair again if a file looks different from when it was last read, or if it was no good then.
    pub fn reload_if_changed(&self) {
        if self.marks.look() {
            self.read_again();
        }
    }

    fn read_again(&self) {
        match read(&self.files) {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                self.marks.were_read(None);
                tracing::info!(certificate = %self.files.cert.display(), "the certificate is read again");
            }
            Err(error) => {
                if self.marks.were_read(Some(error.to_string())) {
                    tracing::error!(%error, "the certificate is not read again; the old one stays in use");
                }
            }
        }
    }

    /// TLS 1.3 with HTTP/2, always with the newest pair.
    pub(super) fn acceptor(self: Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self);
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        // A call in early data could be sent again by whoever saw it (RFC 8446, 8).
        config.max_early_data_size = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn read(files: &Tls) -> Result<CertifiedKey, CertificatesError> {
    let unreadable = |what, path: &Path| {
        let path = path.to_owned();
        move |error| CertificatesError::Unreadable { what, path, error }
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable("certificate", &files.cert))?;
    if chain.is_empty() {
        return Err(CertificatesError::Empty(files.cert.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable("key", &files.key))?;
    let unfit = |error| CertificatesError::Unfit { files: files.clone(), error };
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(unfit)?;
    pair.keys_match().map_err(unfit)?;
    Ok(pair)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    /// Writes a new self-signed pair for `localhost`; returns the certificate, to trust.
    pub(in crate::serve) fn write_pair(directory: &Path) -> (Tls, CertificateDer<'static>) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let files = Tls { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
        fs::write(&files.cert, pair.cert.pem()).expect("a file");
        fs::write(&files.key, pair.signing_key.serialize_pem()).expect("a file");
        (files, pair.cert.der().clone())
    }

    fn served(certificates: &Certificates) -> CertificateDer<'static> {
        certificates.current.read().expect("a lock").cert[0].clone()
    }

    #[test]
    fn a_new_pair_is_taken_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(directory.path());
        let certificates = Certificates::load(files.clone()).expect("a pair");
        assert_eq!(served(&certificates), first);

        // A new certificate with the old key: half of a rotation.
        let old_key = fs::read(&files.key).expect("the key");
        let (_, second) = write_pair(directory.path());
        let new_key = fs::read(&files.key).expect("the key");
        fs::write(&files.key, old_key).expect("written");
        certificates.reload();
        assert_eq!(served(&certificates), first, "the old pair stays");
        fs::write(&files.key, new_key).expect("written");
        certificates.reload();
        assert_eq!(served(&certificates), second);
    }

    #[test]
    fn only_a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(directory.path());
        let certificates = Certificates::load(files.clone()).expect("a pair");
        let written = fs::metadata(&files.cert).expect("the file").modified().expect("a time");
        let (_, second) = write_pair(directory.path());
        let later = written + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&files.cert).expect("opens").set_modified(later).expect("a time");
        assert_eq!(served(&certificates), first);
        certificates.reload_if_changed();
        assert_eq!(served(&certificates), second);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_though_it_looks_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, _) = write_pair(directory.path());
        let certificates = Certificates::load(files.clone()).expect("a pair");
        let (_, second) = write_pair(directory.path());
        let good = fs::read(&files.cert).expect("the certificate");
        fs::write(&files.cert, vec![b'x'; good.len()]).expect("written");
        let written = fs::metadata(&files.cert).expect("the file").modified().expect("a time");
        certificates.reload_if_changed();
        fs::write(&files.cert, good).expect("written");
        fs::File::options().write(true).open(&files.cert).expect("opens").set_modified(written).expect("a time");
        certificates.reload_if_changed();
        assert_eq!(served(&certificates), second);
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, _) = write_pair(directory.path());
        let (other, _) = write_pair(tempfile::tempdir().expect("a directory").keep().as_path());
        for (tls, text) in [
            (Tls { cert: directory.path().join("none"), ..files.clone() }, "certificate "),
            (Tls { key: files.cert.clone(), ..files.clone() }, "key "),
            (Tls { cert: files.key.clone(), ..files.clone() }, "has no certificate"),
            (Tls { key: other.key, ..files }, "do not fit"),
        ] {
            let error = Certificates::load(tls).expect_err("a bad pair").to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
