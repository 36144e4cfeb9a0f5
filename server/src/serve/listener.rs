//! Bound sockets.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};

use crate::config::ListenAddress;

/// A bound socket. A unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Socket,
    address: ListenAddress,
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix { socket: UnixListener, file: SocketFile },
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The operating system refuses.
    #[error("cannot listen on {0}: {1}")]
    Io(ListenAddress, #[source] io::Error),
    /// A server answers on the unix socket.
    #[error("cannot listen on unix:{}: a server answers on it", .0.display())]
    InUse(PathBuf),
    /// Something else than a socket has the path.
    #[error("cannot listen on unix:{}: the path exists and is no socket", .0.display())]
    NoSocket(PathBuf),
}

impl Listener {
    /// Binds `address`. A unix socket is made with mode 0600: only the server's own user may connect. One that is left
    /// from a server that has died is replaced; one that answers is not.
    pub async fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(wanted) => {
                let fail = |error| BindError::Io(address.clone(), error);
                let socket = TcpListener::bind(wanted).await.map_err(fail)?;
                let address = ListenAddress::Tcp(socket.local_addr().map_err(fail)?);
                Ok(Self { socket: Socket::Tcp(socket), address })
            }
            ListenAddress::Unix(path) => {
                remove_stale(path)?;
                let bind = || {
                    let socket = UnixListener::bind(path)?;
                    let file = SocketFile::of(path)?;
                    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                    Ok(Socket::Unix { socket, file })
                };
                let socket = bind().map_err(|error| BindError::Io(address.clone(), error))?;
                Ok(Self { socket, address: address.clone() })
            }
        }
    }

    /// Where clients of this machine find it: `http://127.0.0.1:41234`, `https://…` or `unix:///…`. For one that listens
    /// on every address that is the loopback one, since nobody can connect to `0.0.0.0`.
    pub fn client_address(&self, has_tls: bool) -> String {
        match &self.address {
            ListenAddress::Tcp(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                let scheme = if has_tls { "https" } else { "http" };
                format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
            }
            ListenAddress::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// The address, with the port that was free if any was asked for.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let fail = |error| BindError::Io(ListenAddress::Unix(path.to_owned()), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fail(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(BindError::NoSocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(fail),
            Err(error) => Err(fail(error)),
            Ok(_) => Err(BindError::InUse(path.to_owned())),
        },
    }
}

/// The file of a unix socket; removed with it, unless another server's has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the unix socket is not removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_private_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let address = ListenAddress::Unix(path.clone());
        let listener = Listener::bind(&address).await.expect("binds");
        assert_eq!(fs::metadata(&path).expect("the socket").mode() & 0o777, 0o600);
        assert_eq!(listener.client_address(true), format!("unix://{}", path.display()));
        assert!(matches!(Listener::bind(&address).await, Err(BindError::InUse(_))));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_other_files_are_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        // std leaves the file behind, as a killed server does.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        let address = ListenAddress::Unix(path);
        Listener::bind(&address).await.expect("replaces it");

        let file = directory.path().join("file");
        fs::write(&file, "precious").expect("a file");
        assert!(matches!(Listener::bind(&ListenAddress::Unix(file.clone())).await, Err(BindError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
    }

    #[tokio::test]
    async fn the_free_port_is_told() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().expect("an address")).await.expect("binds");
        let address = listener.client_address(false);
        assert!(address.starts_with("http://127.0.0.1:") && !address.ends_with(":0"), "{address}");
        let everywhere = Listener::bind(&"0.0.0.0:0".parse().expect("an address")).await.expect("binds");
        assert!(everywhere.client_address(true).starts_with("https://127.0.0.1:"));
        let taken = Listener::bind(listener.address()).await.expect_err("taken");
        assert!(taken.to_string().starts_with("cannot listen on 127.0.0.1:"), "{taken}");
    }
}
