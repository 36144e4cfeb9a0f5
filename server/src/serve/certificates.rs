//! The TLS certificate, read again when its files change.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};

use super::{
    Daily, Marks,
    pair::{Of, Pair, Unusable, read},
};
use crate::{clock::Clock, config::Tls};

/// The protocol that gRPC is spoken over.
const ALPN_HTTP2: &[u8] = b"h2";
/// A certificate and its key. New connections get the newest good pair; old ones keep what they have.
pub struct Certificates {
    files: Tls,
    clock: Arc<dyn Clock>,
    current: RwLock<Current>,
    /// Of the files when they were last read.
    marks: Marks,
    warned: Daily,
}

/// The pair in use.
struct Current {
    pair: Pair,
    key: Arc<CertifiedKey>,
}

/// Why a certificate pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The certificate is wrong, or of another key.
    #[error("certificate {} {why}", path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: Unusable,
    },
    /// The key is wrong.
    #[error("key {} {why}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong; never anything of the key.
        why: Unusable,
    },
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the pair, which must be valid now.
    pub fn load(files: Tls, clock: Arc<dyn Clock>) -> Result<Self, CertificatesError> {
        let marks = Marks::of(vec![files.cert.clone(), files.key.clone()]);
        let current = RwLock::new(open(&files, clock.as_ref())?);
        Ok(Self { files, clock, current, marks, warned: Daily::default() })
    }

    /// Reads the pair again. A bad one is logged, and the one in use stays.
    pub fn reload(&self) {
        self.marks.renew();
        self.read_again();
    }

    /// Reads the pair again if a file looks different from when it was last read, or if it was no good then. Warns once a
    /// day while the one in use ends soon, or has ended.
    pub fn look_after(&self) {
        if self.marks.look() {
            self.read_again();
        }
        if self.warned.is_due(self.clock.uptime()) {
            self.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        }
    }

    /// What is to be done soon about the certificate in use.
    pub fn warnings(&self) -> Vec<String> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let name = format!("certificate {}", self.files.cert.display());
        current.pair.warnings(self.clock.now()).map(|warning| format!("{name} {warning}")).collect()
    }

    fn read_again(&self) {
        match open(&self.files, self.clock.as_ref()) {
            Ok(current) => {
                let valid_until = current.pair.valid_until();
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                self.marks.were_read(None);
                self.warned.reset();
                tracing::info!(certificate = %self.files.cert.display(), valid_until, "the certificate is read again");
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
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

fn open(files: &Tls, clock: &dyn Clock) -> Result<Current, CertificatesError> {
    let of_certificate = |why| CertificatesError::Certificate { path: files.cert.clone(), why };
    let of_key = |why| CertificatesError::Key { path: files.key.clone(), why };
    let certificate = read(&files.cert).map_err(of_certificate)?;
    let key = read(&files.key).map_err(of_key)?;
    let pair = Pair::of(&certificate, &key, clock.now()).map_err(|(of, why)| match of {
        Of::Certificate => of_certificate(why),
        Of::Key => of_key(why),
    })?;
    let key = Arc::new(pair.key.clone());
    Ok(Current { pair, key })
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, path::Path};

    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::clock::SystemClock;

    /// Writes a new self-signed pair for `localhost`; returns the certificate, to trust.
    pub(in crate::serve) fn write_pair(directory: &Path) -> (Tls, CertificateDer<'static>) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let files = Tls { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
        fs::write(&files.cert, pair.cert.pem()).expect("a file");
        fs::write(&files.key, pair.signing_key.serialize_pem()).expect("a file");
        (files, pair.cert.der().clone())
    }

    /// The pair, by this machine's clock.
    pub(in crate::serve) fn load(files: Tls) -> Result<Certificates, CertificatesError> {
        Certificates::load(files, Arc::new(SystemClock))
    }

    fn served(certificates: &Certificates) -> CertificateDer<'static> {
        certificates.current.read().expect("a lock").key.cert[0].clone()
    }

    #[test]
    fn a_new_pair_is_taken_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(directory.path());
        let certificates = load(files.clone()).expect("a pair");
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
    fn a_pair_that_cannot_be_used_replaces_no_good_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(directory.path());
        let certificates = load(files.clone()).expect("a pair");
        for (from, to, said) in [(2000, 2001, "expired at 2001-01-01"), (4000, 4001, "is not valid before 4000-01-01")]
        {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
            (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
            fs::write(&files.cert, params.self_signed(&key).expect("a certificate").pem()).expect("written");
            fs::write(&files.key, key.serialize_pem()).expect("written");
            certificates.reload();
            assert_eq!(served(&certificates), first, "the old pair stays");
            let error = load(files.clone()).expect_err("no start with it either").to_string();
            assert!(error.contains(said) && error.contains("cert.pem"), "{error}");
        }
    }

    #[test]
    fn only_a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, first) = write_pair(directory.path());
        let certificates = load(files.clone()).expect("a pair");
        let written = fs::metadata(&files.cert).expect("the file").modified().expect("a time");
        let (_, second) = write_pair(directory.path());
        let later = written + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&files.cert).expect("opens").set_modified(later).expect("a time");
        assert_eq!(served(&certificates), first);
        certificates.look_after();
        assert_eq!(served(&certificates), second);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_though_it_looks_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let (files, _) = write_pair(directory.path());
        let certificates = load(files.clone()).expect("a pair");
        let (_, second) = write_pair(directory.path());
        let good = fs::read(&files.cert).expect("the certificate");
        fs::write(&files.cert, vec![b'x'; good.len()]).expect("written");
        let written = fs::metadata(&files.cert).expect("the file").modified().expect("a time");
        certificates.look_after();
        fs::write(&files.cert, good).expect("written");
        fs::File::options().write(true).open(&files.cert).expect("opens").set_modified(written).expect("a time");
        certificates.look_after();
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
            (Tls { cert: files.key.clone(), ..files.clone() }, "has no certificate in PEM"),
            (Tls { key: other.key, ..files }, "is of another key"),
        ] {
            let error = load(tls).expect_err("a bad pair").to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
