//! A certificate with its key, read from files and checked for use.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::Path,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use tokio_rustls::rustls::{
    CertificateError, Error as TlsError, RootCertStore, client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring, server::ParsedCertificate, sign::CertifiedKey,
};
use zeroize::Zeroizing;

/// Largest file of a certificate or a key: far more than any chain.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long before its end a certificate is to be renewed.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A pair that can be used now.
#[derive(Debug)]
pub(crate) struct Pair {
    /// For rustls.
    pub(super) key: CertifiedKey,
    /// The end of the first certificate, which is the pair's own.
    not_after: SystemTime,
    /// Why coffer's clients would refuse a server with it, if they would.
    doubt: Option<String>,
}

/// What is wrong with a certificate or a key, to be said after the name of its file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum Unusable {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is longer than {} KiB", FILE_BYTES_MAX / 1024)]
    TooLong,
    #[error("is no good PEM: {0}")]
    NoPem(rustls_pki_types::pem::Error),
    #[error("has no certificate in PEM (BEGIN CERTIFICATE)")]
    NoCertificate,
    #[error(
        "is of X.509 version 1, which TLS libraries refuse: make one of version 3, with its names (openssl x509 -req \
         makes one with -extfile, openssl req -x509 by itself)"
    )]
    Version1,
    #[error("cannot be understood: {0}")]
    NotUnderstood(TlsError),
    #[error("expired at {}: renew it", Shown(.0))]
    Expired(SystemTime),
    #[error("is not valid before {}: take another one, or set this machine's clock", Shown(.0))]
    NotYetValid(SystemTime),
    #[error("has no private key in PEM (BEGIN PRIVATE KEY)")]
    NoKey,
    #[error(
        "is encrypted, and nobody is there to enter a passphrase: write it without one (openssl pkey -in FILE -out FILE), \
         mode 0600"
    )]
    Encrypted,
    #[error(
        "is of a kind that is not supported: make one of ECDSA P-256 or P-384, of Ed25519, or of RSA with 2,048 to 8,192 \
         bits (openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256)"
    )]
    UnsupportedKey,
    #[error("is of another key than the one given")]
    Mismatch,
}

/// Which of the two files it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Certificate,
    Key,
}

/// A time as RFC 3339 has it.
struct Shown<'a>(&'a SystemTime);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(*self.0).fmt(f)
    }
}

impl Pair {
    /// Makes a pair of two files' contents, if it can be used at `now`.
    pub(crate) fn of(certificate: &[u8], key: &[u8], now: SystemTime) -> Result<Self, (Of, Unusable)> {
        let of_certificate = |why| (Of::Certificate, why);
        let chain = certificates(certificate).map_err(of_certificate)?;
        let own = chain.first().ok_or((Of::Certificate, Unusable::NoCertificate))?;
        let (not_after, doubt) = check(own, now).map_err(of_certificate)?;
        let key = private_key(key).map_err(|why| (Of::Key, why))?;
        let provider = ring::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| (Of::Key, Unusable::UnsupportedKey))?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| (Of::Certificate, Unusable::Mismatch))?;
        Ok(Self { key, not_after, doubt })
    }

    /// When the certificate ends, as RFC 3339 has it.
    pub(super) fn valid_until(&self) -> String {
        Shown(&self.not_after).to_string()
    }

    /// Says that the certificate ends soon, or has ended, to be said after its name.
    pub(crate) fn end_warning(&self, now: SystemTime) -> Option<String> {
        match self.not_after.duration_since(now) {
            Ok(left) if left > ENDS_SOON => None,
            Ok(left) => {
                let days = left.as_secs() / (24 * 60 * 60);
                Some(format!("expires at {}, in {days} days: renew it", Shown(&self.not_after)))
            }
            Err(_) => Some(Unusable::Expired(self.not_after).to_string()),
        }
    }

    /// Everything that is to be done about a server's certificate soon, though it can be used at `now`.
    pub(super) fn warnings(&self, now: SystemTime) -> impl Iterator<Item = String> {
        self.end_warning(now).into_iter().chain(self.doubt.clone())
    }
}

/// Reads a file, up to the limit.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(Unusable::TooLong) } else { Ok(bytes) }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(Unusable::NoPem)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Unusable> {
    // PKCS #8, and what OpenSSL wrote before 1.0 (RFC 1421): both say so in a line of text.
    let is_encrypted = |line: &[u8]| {
        line.starts_with(b"-----BEGIN ENCRYPTED PRIVATE KEY") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
    };
    if pem.split(|byte| *byte == b'\n').any(is_encrypted) {
        return Err(Unusable::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => Unusable::NoKey,
        error => Unusable::NoPem(error),
    })
}

/// Returns when the certificate ends, and why coffer's clients would refuse a server with it, if it is valid at `now`.
fn check(own: &CertificateDer<'_>, now: SystemTime) -> Result<(SystemTime, Option<String>), Unusable> {
    if is_version_1(own) {
        return Err(Unusable::Version1);
    }
    // The verifier of the clients, with nobody to trust: it looks at the times first, and at the issuer last. So at the end
    // of time it tells when the certificate ends.
    let at = |time: Duration| {
        let parsed = ParsedCertificate::try_from(own)?;
        let (nobody, time) = (RootCertStore::empty(), UnixTime::since_unix_epoch(time));
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], time, algorithms)
    };
    let not_after = match at(Duration::from_secs(u64::MAX)) {
        Err(TlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            SystemTime::UNIX_EPOCH + Duration::from_secs(not_after.as_secs())
        }
        Err(error) => return Err(Unusable::NotUnderstood(error)),
        Ok(()) => return Err(Unusable::NotUnderstood(TlsError::General("it has no end".to_owned()))),
    };
    match at(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()) {
        Err(TlsError::InvalidCertificate(CertificateError::ExpiredContext { .. })) => Err(Unusable::Expired(not_after)),
        Err(TlsError::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(not_before.as_secs());
            Err(Unusable::NotYetValid(not_before))
        }
        Err(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) | Ok(()) => Ok((not_after, None)),
        Err(error) => Ok((not_after, Some(format!("is none that coffer's clients accept of a server: {error}")))),
    }
}

/// RFC 5280, 4.1: a certificate and what is signed of it are sequences, and all versions but the first say theirs before
/// anything else, in a field of the context's class with number 0.
fn is_version_1(certificate: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let inside = |der: &[u8]| -> Option<usize> {
        let [SEQUENCE, length, ..] = der else { return None };
        // The length itself, or how many bytes have it.
        Some(2 + length.checked_sub(0x80).map_or(0, usize::from))
    };
    let signed = inside(certificate).and_then(|at| certificate.get(at..)).unwrap_or_default();
    let first = inside(signed).and_then(|at| signed.get(at));
    first.is_some_and(|tag| *tag != VERSION)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// A pair that is valid from 2030 to the end of 2031, changed by `change`.
    fn pems(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2032, 1, 1);
        change(&mut params);
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn at(time: &str) -> SystemTime {
        humantime::parse_rfc3339(time).expect("a time")
    }

    fn of((certificate, key): &(String, String), time: &str) -> Result<Pair, String> {
        let pair = Pair::of(certificate.as_bytes(), key.as_bytes(), at(time));
        pair.map_err(|(of, why)| format!("{of:?} {why}"))
    }

    #[test]
    fn a_certificate_is_good_from_its_first_to_its_last_second() {
        let pems = pems(|_| ());
        for (time, said) in [
            ("2029-12-31T23:59:59Z", Some("Certificate is not valid before 2030-01-01T00:00:00Z: ")),
            ("2030-01-01T00:00:00Z", None),
            ("2032-01-01T00:00:00Z", None),
            ("2032-01-01T00:00:01Z", Some("Certificate expired at 2032-01-01T00:00:00Z: renew it")),
        ] {
            match (of(&pems, time), said) {
                (Ok(pair), None) => assert_eq!(pair.valid_until(), "2032-01-01T00:00:00Z"),
                (Err(error), Some(said)) => assert!(error.starts_with(said), "{error}"),
                (other, _) => panic!("{time}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_end_is_told_two_weeks_before() {
        let pair = of(&pems(|_| ()), "2031-01-01T00:00:00Z").expect("good");
        let end = at("2032-01-01T00:00:00Z");
        assert_eq!(pair.end_warning(end - 15 * DAY), None);
        let soon = pair.end_warning(end - 13 * DAY).expect("soon");
        assert_eq!(soon, "expires at 2032-01-01T00:00:00Z, in 13 days: renew it");
        let over = pair.end_warning(end + DAY).expect("over");
        assert_eq!(over, "expired at 2032-01-01T00:00:00Z: renew it");
    }

    #[test]
    fn what_clients_refuse_of_a_server_is_told() {
        let time = "2031-01-01T00:00:00Z";
        let authority = pems(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        let client = pems(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        for pems in [authority, client] {
            let warnings: Vec<_> = of(&pems, time).expect("usable").warnings(at(time)).collect();
            assert!(warnings.len() == 1 && warnings[0].contains("none that coffer's clients accept"), "{warnings:?}");
        }
        assert_eq!(of(&pems(|_| ()), time).expect("usable").warnings(at(time)).count(), 0);
    }

    #[test]
    fn a_key_of_another_certificate_is_told_from_none() {
        let (time, (certificate, key), (_, other)) = ("2031-01-01T00:00:00Z", pems(|_| ()), pems(|_| ()));
        for (certificate, key, said) in [
            (&certificate, &other, "Certificate is of another key"),
            (&certificate, &certificate, "Key has no private key"),
            (&key, &key, "Certificate has no certificate"),
        ] {
            let error = of(&(certificate.clone(), key.clone()), time).expect_err("no pair");
            assert!(error.starts_with(said), "{error}");
        }
    }

    /// Of `openssl x509 -req -signkey` without an extension, by OpenSSL 3.0.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBJDCBywIUCONI+WHc2jOSCgtcumO57Nx+mIswCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTIwMTEyNDkzOVoYDzIxMjYxMTA3MTI0OTM5
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQOc+7dSXR0ttGz23neXjqqzmfhdeqd6qx5+YdliKnRi5WN33Lqb/dwhUah4Ywx
WekO19Aq+ZuOkISRwcv6yyPpMAoGCCqGSM49BAMCA0gAMEUCIDX7wK2bYnavm4DB
4/7zDguWfW+KrWqrmnmOHPuf2PMfAiEAr5N6IesBtrLLyE6fdk9t6YAAJ0xBWE+2
QLXeQQzrrQQ=
-----END CERTIFICATE-----";

    #[test]
    fn a_certificate_of_version_1_is_named() {
        let error = of(&(VERSION_1.to_owned(), String::new()), "2031-01-01T00:00:00Z").expect_err("of no use");
        assert!(error.starts_with("Certificate is of X.509 version 1"), "{error}");
    }

    #[test]
    fn any_bytes_are_a_certificate_or_an_error() {
        let (pem, key) = pems(|_| ());
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        for length in 0..der.len() {
            let _ = is_version_1(&der[..length]);
            let cut = CertificateDer::from(der[..length].to_vec());
            assert!(check(&cut, at("2031-01-01T00:00:00Z")).is_err(), "{length} bytes");
        }
        assert!(!is_version_1(&der), "{key}");
    }
}
