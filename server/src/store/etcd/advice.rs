//! What an operator can do about an etcd that is not reached, or refuses. The texts are etcd's (see `error`) and those of
//! rustls: tests with a real etcd hold them.

use super::OpenError;
use crate::store::Error;

/// What a text is known by, and the settings that mend it. The first that fits counts.
const KNOWN: &[(&str, &str)] = &[
    (
        "etcd wants a user",
        "`etcd.user` and `etcd.password_file` say who coffer is to etcd, or `etcd.cert` and `etcd.key` if etcd knows it by a \
         certificate",
    ),
    (
        "authentication failed, invalid user",
        "etcd has no such user as `etcd.user` names, or the file of `etcd.password_file` holds another password than etcd: \
         `etcdctl user passwd` gives it a new one",
    ),
    (
        "authentication is not enabled",
        "this etcd asks nobody for a password: leave out `etcd.user` and `etcd.password_file`, or `etcdctl auth enable`",
    ),
    (
        "permission denied",
        "who coffer is to etcd, by `etcd.user` or `etcd.cert`, must read and write everything below `etcd.prefix`: \
         `etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX`",
    ),
    (
        "certificate not valid for name",
        "`etcd.server_name` gives a name that is in etcd's certificate, if the endpoint's is not",
    ),
    ("certificate expired", "etcd needs a new certificate, or a clock is wrong"),
    ("invalid peer certificate", "the file of `etcd.ca` must hold the certificate of the authority that signed etcd's"),
    (
        "received fatal alert",
        "etcd wants a certificate, or another: `etcd.cert` and `etcd.key` give it, signed by an authority that etcd trusts \
         (--trusted-ca-file)",
    ),
    ("Connection refused", NOT_THERE),
    ("failed to lookup", NOT_THERE),
    ("no answer within", NOT_THERE),
    (OF_FILES, "what `etcd.ca`, `etcd.cert` and `etcd.key` name must be PEM, and the key that of the certificate"),
];

/// Before what is wrong with certificates and keys that were read.
pub(super) const OF_FILES: &str = "certificates and key";

const NOT_THERE: &str = "does etcd run, and where `etcd.endpoints` says?";

/// Of an etcd that hangs up.
const UNREACHED: &str = "does `etcd.endpoints` say where etcd listens for clients, and https or http as it does? An etcd that \
                         wants a certificate, or another, may hang up as well: `etcd.cert` and `etcd.key` give it";

impl OpenError {
    /// What an operator can do about it, if there is something to say. Names settings, never what they are.
    pub fn advice(&self) -> Option<&'static str> {
        let Self::Store(Error::Unavailable(text) | Error::Invalid(text)) = self else { return None };
        let known = KNOWN.iter().find(|(mark, _)| text.contains(mark)).map(|(_, advice)| *advice);
        known.or(matches!(self, Self::Store(Error::Unavailable(_))).then_some(UNREACHED))
    }
}
