//! What a client finds wrong with a server's certificate.

use std::{error::Error as StdError, io};

use tokio_rustls::rustls::{CertificateError, Error as TlsError};

/// Why a server's certificate was refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateProblem {
    /// It has ended, by this machine's clock.
    Expired,
    /// It has not begun, by this machine's clock.
    NotYetValid,
    /// It is of other names than the address has.
    WrongName,
    /// No authority that is trusted here has signed it.
    UnknownIssuer,
    /// It is an authority's own, which may sign others but is no server's.
    Authority,
    /// Anything else, as the message says.
    Other,
}

impl CertificateProblem {
    /// Returns the problem if `error`, or what caused it, is about a certificate.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let tls = error.downcast_ref::<TlsError>().or_else(|| {
            // The source of an io::Error is that of what it carries, which would be passed over.
            error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<TlsError>()
        });
        let Some(TlsError::InvalidCertificate(problem)) = tls else { return Self::of(error.source()?) };
        Some(match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
            // A signature that does not fit is of an authority with the name of a trusted one, and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            // rustls hands the verifier's word on as it is, without a type that others could name.
            CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => Self::Authority,
            _ => Self::Other,
        })
    }

    /// What to do about it, in the words of coffer's own programs.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Expired => {
                "the server's certificate has expired by this machine's clock: have it renewed, unless the clock is wrong"
            }
            Self::NotYetValid => {
                "the server's certificate is not valid yet by this machine's clock: compare the clocks of both machines"
            }
            Self::WrongName => {
                "the server's certificate is not for the name in the address: use a name that it is for, or have this name \
                 added to it (subjectAltName)"
            }
            Self::UnknownIssuer => {
                "the server's certificate is not trusted: --ca-file or COFFER_CA_FILE names the authority to trust"
            }
            // rustls says so of every certificate that `openssl req -x509` makes without more options.
            Self::Authority => {
                "the server shows an authority's certificate: make one of its own, in openssl req -x509 with -addext \
                 basicConstraints=critical,CA:FALSE"
            }
            Self::Other => "the server's certificate cannot be used here: whoever runs the server must replace it",
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;
    use tonic::Status;

    use super::*;
    use crate::Error;

    #[test]
    fn every_problem_is_told_from_the_others() {
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        for (problem, known) in [
            (CertificateError::ExpiredContext { time, not_after: time }, CertificateProblem::Expired),
            (CertificateError::NotValidYetContext { time, not_before: time }, CertificateProblem::NotYetValid),
            (CertificateError::NotValidForName, CertificateProblem::WrongName),
            (CertificateError::UnknownIssuer, CertificateProblem::UnknownIssuer),
            (CertificateError::BadSignature, CertificateProblem::UnknownIssuer),
            (CertificateError::Revoked, CertificateProblem::Other),
        ] {
            let tls = TlsError::InvalidCertificate(problem);
            let io = io::Error::new(io::ErrorKind::InvalidData, tls);
            let error = Error::from(Status::from_error(Box::new(io)));
            assert_eq!(error.certificate_problem(), Some(known), "{error}");
        }
        let lost = Error::from(Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset))));
        assert_eq!(lost.certificate_problem(), None);
        let told = Error::from(Status::unavailable("invalid peer certificate: UnknownIssuer"));
        assert_eq!(told.certificate_problem(), None, "a server's words are none of ours");
    }
}
