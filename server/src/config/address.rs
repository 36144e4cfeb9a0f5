//! Addresses to listen on.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Longest path of a unix socket, in bytes: `sun_path` of unix(7) with its final NUL.
const UNIX_PATH_BYTES: usize = 107;

/// Where to listen: `127.0.0.1:7470`, `[::1]:0` (0 is any free port) or `unix:/absolute/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address and port.
    Tcp(SocketAddr),
    /// A unix socket, by its absolute path.
    Unix(PathBuf),
}

/// The text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListenAddress {
    /// Neither of the two forms.
    #[error("is no address to listen on: give an IP address with a port, such as 127.0.0.1:7470, or unix:/path")]
    Shape,
    /// A unix socket by a relative path.
    #[error("names a unix socket by a relative path: give unix:/absolute/path")]
    Relative,
    /// A unix socket whose path the operating system cannot hold.
    #[error("names a unix socket with a path of more than {UNIX_PATH_BYTES} bytes")]
    TooLong,
}

impl ListenAddress {
    /// Whether only this machine can reach it, so that plaintext is no danger.
    pub fn is_local(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(ListenAddress::Tcp).map_err(|_| InvalidListenAddress::Shape);
        };
        // unix:///path, the form of client addresses, is the same path with an empty authority before it.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.contains('\0') || path.ends_with('/') || path.is_empty() {
            Err(InvalidListenAddress::Shape)
        } else if !path.starts_with('/') {
            Err(InvalidListenAddress::Relative)
        } else if path.len() > UNIX_PATH_BYTES {
            Err(InvalidListenAddress::TooLong)
        } else {
            Ok(ListenAddress::Unix(PathBuf::from(path)))
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_read_back() {
        for text in ["127.0.0.1:7470", "[::1]:0", "0.0.0.0:7470", "unix:/run/coffer.sock"] {
            assert_eq!(text.parse::<ListenAddress>().expect(text).to_string(), text);
        }
        let long_form = "unix:///run/coffer.sock".parse::<ListenAddress>().expect("the client's form");
        assert_eq!(long_form.to_string(), "unix:/run/coffer.sock");
    }

    #[test]
    fn only_loopback_and_unix_are_local() {
        for (text, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/s", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("192.168.0.1:1", false),
        ] {
            assert_eq!(text.parse::<ListenAddress>().expect(text).is_local(), local, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "localhost:7470", "127.0.0.1", ":7470", "http://127.0.0.1:1", "unix:", "unix:/", "unix:/a\0b"]
        {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidListenAddress::Shape), "{text:?}");
        }
        assert_eq!("unix:run/s".parse::<ListenAddress>(), Err(InvalidListenAddress::Relative));
        let long = format!("unix:/{}", "a".repeat(UNIX_PATH_BYTES));
        assert_eq!(long.parse::<ListenAddress>(), Err(InvalidListenAddress::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in ".*") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
