//! Where a server is.

use std::{fmt, net::IpAddr, str::FromStr};

use http::Uri;

/// Longest path of a unix socket, in bytes: `sun_path` is 108 with its closing NUL (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// The address of a server: `https://host:port`, `http://host:port` on this machine, or `unix:///path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tls(String),
    Loopback(String),
    Unix(String),
}

/// Where the servers of one store are: addresses with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

/// Most servers of one store.
pub const ADDRESSES_MAX: usize = 16;

/// Why a text is no address. Never contains the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// Nothing was given.
    #[error("an address is required, for example https://coffer.example:7470 or unix:///run/coffer.sock")]
    Empty,
    /// Neither https, http nor unix.
    #[error("must begin with https://, http:// or unix:///")]
    Scheme,
    /// Not a URI with a host.
    #[error("must be https://host:port, http://host:port or unix:///absolute/path")]
    Malformed,
    /// Credentials do not belong into an address.
    #[error("must not contain a user or password: give the token in a file")]
    UserInfo,
    /// More than a host and a port.
    #[error("must end after the port: no path, query or fragment")]
    Path,
    /// Port 0 asks a server for any port; a client needs the one it got.
    #[error("port 0 cannot be connected to")]
    Port,
    /// The token would cross a network unencrypted.
    #[error("plain http:// is for this machine only (127.0.0.0/8, [::1], localhost): use https://")]
    Plaintext,
    /// More than anybody has.
    #[error("more than 16 addresses")]
    Many,
    /// A socket needs an absolute path.
    #[error("a unix socket needs an absolute path of at most 107 bytes: unix:///run/coffer.sock")]
    SocketPath,
}

impl Address {
    /// What tonic connects to.
    pub(crate) fn endpoint(&self) -> String {
        self.to_string()
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.0, Kind::Tls(_))
    }
}

impl Addresses {
    /// Each of them; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.0.iter()
    }
}

impl From<Address> for Addresses {
    fn from(address: Address) -> Self {
        Self(vec![address])
    }
}

impl FromStr for Addresses {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.split(',').count() > ADDRESSES_MAX {
            return Err(InvalidAddress::Many);
        }
        text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.is_empty() {
            return Err(InvalidAddress::Empty);
        }
        let (scheme, rest) = text.split_once(':').ok_or(InvalidAddress::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "unix" => parse_socket(rest).map(Kind::Unix).map(Address),
            "https" => parse_authority(rest).map(|(authority, _)| Address(Kind::Tls(authority))),
            "http" => match parse_authority(rest)? {
                (authority, true) => Ok(Address(Kind::Loopback(authority))),
                (_, false) => Err(InvalidAddress::Plaintext),
            },
            _ => Err(InvalidAddress::Scheme),
        }
    }
}

/// The path of `unix:///path` or `unix:/path`, after the scheme's colon.
fn parse_socket(rest: &str) -> Result<String, InvalidAddress> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let fits = path.len() > 1 && path.len() <= SOCKET_PATH_BYTES;
    if path.starts_with('/') && fits && !path.contains('\0') {
        Ok(path.to_owned())
    } else {
        Err(InvalidAddress::SocketPath)
    }
}

/// The authority, and whether its host is this machine.
fn parse_authority(rest: &str) -> Result<(String, bool), InvalidAddress> {
    // http::Uri drops fragments without a word.
    if rest.contains('#') {
        return Err(InvalidAddress::Path);
    }
    let uri: Uri = format!("http:{rest}").parse().map_err(|_| InvalidAddress::Malformed)?;
    let authority = uri.authority().ok_or(InvalidAddress::Malformed)?;
    if authority.as_str().contains('@') {
        return Err(InvalidAddress::UserInfo);
    }
    if uri.path_and_query().is_some_and(|path| path != "/") {
        return Err(InvalidAddress::Path);
    }
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).unwrap_or_default();
    match port.strip_prefix(':').map(str::parse::<u16>) {
        None if port.is_empty() => {}
        Some(Ok(0)) => return Err(InvalidAddress::Port),
        Some(Ok(_)) => {}
        _ => return Err(InvalidAddress::Malformed),
    }
    if host.is_empty() {
        return Err(InvalidAddress::Malformed);
    }
    Ok((authority.as_str().to_ascii_lowercase(), is_loopback(host)))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tls(authority) => write!(f, "https://{authority}"),
            Kind::Loopback(authority) => write!(f, "http://{authority}"),
            Kind::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_read_and_write() {
        let cases = [
            ("https://coffer.example:7470", "https://coffer.example:7470"),
            ("https://coffer.example", "https://coffer.example"),
            ("HTTPS://Coffer.Example:7470/", "https://coffer.example:7470"),
            ("https://[2001:db8::1]:7470", "https://[2001:db8::1]:7470"),
            ("http://127.0.0.1:7470", "http://127.0.0.1:7470"),
            ("http://127.8.9.10:1", "http://127.8.9.10:1"),
            ("http://[::1]:7470", "http://[::1]:7470"),
            ("http://localhost:7470", "http://localhost:7470"),
            ("unix:///run/coffer.sock", "unix:///run/coffer.sock"),
            ("unix:/run/coffer.sock", "unix:///run/coffer.sock"),
        ];
        for (text, shown) in cases {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<Address>().expect("its own text"), address);
        }
    }

    #[test]
    fn everything_else_says_why_not() {
        use InvalidAddress::*;
        let long = format!("unix:///{}", "x".repeat(107));
        let cases = [
            ("", Empty),
            ("coffer.example", Scheme),
            ("127.0.0.1:7470", Scheme),
            ("ftp://coffer.example", Scheme),
            ("tcp://127.0.0.1:7470", Scheme),
            ("https:", Malformed),
            ("https://", Malformed),
            ("https:///x", Malformed),
            ("https://:7470", Malformed),
            ("https://host:99999", Malformed),
            ("https://host:", Malformed),
            ("https://ho st:1", Malformed),
            ("https://host:0", Port),
            ("http://127.0.0.1:0", Port),
            ("https://user:pass@host:1", UserInfo),
            ("http://127.0.0.1:80@evil.example", UserInfo),
            ("https://host:1/path", Path),
            ("https://host:1?query", Path),
            ("https://host:1#fragment", Path),
            ("http://coffer.example:7470", Plaintext),
            ("http://10.0.0.1:7470", Plaintext),
            ("http://0.0.0.0:7470", Plaintext),
            ("http://[::]:7470", Plaintext),
            ("http://localhost.example:7470", Plaintext),
            ("http://127.0.0.1.example:7470", Plaintext),
            ("unix:", SocketPath),
            ("unix://", SocketPath),
            ("unix:///", SocketPath),
            ("unix://relative/path", SocketPath),
            ("unix:relative", SocketPath),
            (long.as_str(), SocketPath),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<Address>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_list_is_read_and_written_and_is_good_as_a_whole() {
        let addresses: Addresses = "https://a:1, unix:/b,http://[::1]:2".parse().expect("a list");
        assert_eq!(addresses.to_string(), "https://a:1,unix:///b,http://[::1]:2");
        assert_eq!(addresses.to_string().parse(), Ok(addresses));
        for (text, why) in [
            ("", InvalidAddress::Empty),
            ("https://a:1,", InvalidAddress::Empty),
            ("https://a:1,http://b:1", InvalidAddress::Plaintext),
            ("https://a:1 https://b:1", InvalidAddress::Malformed),
        ] {
            assert_eq!(text.parse::<Addresses>(), Err(why), "{text}");
        }
        let many = vec!["https://a:1"; ADDRESSES_MAX + 1].join(",");
        assert_eq!(many.parse::<Addresses>(), Err(InvalidAddress::Many));
    }

    #[test]
    fn an_error_never_repeats_the_address() {
        let error = "https://user:hunter2@host".parse::<Address>().expect_err("userinfo");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
