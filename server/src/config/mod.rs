//! Configuration: flags over environment over a TOML file over defaults.
//!
//! [`Config`] exists only when every part of it is valid. Nothing stops at the first mistake: [`load`] returns all of
//! them, each naming the flag, variable or key it is about.

mod address;
mod environment;
mod file;
mod flags;
mod help;
mod key;
mod links;
mod memory;
mod offline;
mod resolve;
mod setting;
mod show;
mod store;

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use tracing_subscriber::filter::Targets;

pub use address::{InvalidListenAddress, ListenAddress};
pub use flags::Flags;
pub use help::settings_help;
pub use key::{CREDENTIAL_DEFAULT, KeyFlags, KeySetting};
pub use offline::{FileFlag, FromFile};
pub use resolve::load;
pub use store::{EtcdSetting, StoreSetting};

/// Where the server listens when nothing says otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7470";
/// The log filter when nothing says otherwise.
pub const LOG_FILTER_DEFAULT: &str = "info";
/// The audit log's name in the data directory when nothing says otherwise.
pub const AUDIT_FILE_DEFAULT: &str = "audit.jsonl";
/// Most listeners of one server.
pub const LISTENERS_MAX: usize = 16;

/// A server's whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the store is.
    pub store: StoreSetting,
    /// What wraps the root key.
    pub key: KeySetting,
    /// Where to listen: at least one address. Plaintext ones are loopback or unix sockets.
    pub listen: Vec<ListenAddress>,
    /// Certificate and key; with them every TCP listener speaks TLS. Unix sockets never do.
    pub tls: Option<Tls>,
    /// Where to write the addresses once all listeners accept.
    pub address_file: Option<PathBuf>,
    /// The audit log.
    pub audit: AuditLog,
    /// Whether gRPC server reflection is served.
    pub reflection: bool,
    /// What is logged, and how.
    pub log: Log,
    /// How much of the past is kept.
    pub history: History,
    /// How much of everything.
    pub limits: Limits,
    /// Names of variables that look like the server's, but were made by Kubernetes or docker for a service beside it.
    pub links: Vec<String>,
}

impl Config {
    /// Says which variables are passed over, if any are.
    pub fn links_text(&self) -> Option<String> {
        if self.links.is_empty() {
            return None;
        }
        Some(format!(
            "passed over, as Kubernetes or docker sets it for a service of that name (enableServiceLinks: false in a pod \
             stops it): {}",
            self.links.join(", ")
        ))
    }
}

/// How much of the past can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Every position of this long ago and since.
    pub retention: Duration,
    /// Most bytes of log and snapshots; beyond it less of the past is kept.
    pub bytes_max: u64,
}

impl History {
    /// [`History::retention`] when nothing says otherwise: 7 days.
    pub const RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    /// [`History::bytes_max`] when nothing says otherwise: 8 GiB.
    pub const BYTES_MAX_DEFAULT: u64 = 8 << 30;
}

/// TLS by certificate files, in PEM. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where audit lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLog {
    /// A file, a pipe or a device such as `/dev/stdout`.
    pub file: PathBuf,
    /// Whether each line is on the disk before its call goes on, rather than within a second.
    pub sync: bool,
    /// A file of this size, in bytes, is put aside under a name of its own, and the log goes on in a new one; 0 never.
    pub max_bytes: u64,
    /// How many of the files put aside are kept; 0 keeps all.
    pub keep_files: u32,
    /// How many audited calls a service may make a second in the long run.
    pub service_calls_per_second: NonZeroU32,
    /// How many audited calls a user or workload may make a second in the long run.
    pub calls_per_second: NonZeroU32,
}

impl AuditLog {
    /// [`AuditLog::max_bytes`] when nothing says otherwise.
    pub const MAX_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;
    /// [`AuditLog::keep_files`] when nothing says otherwise: with the file in use 4 GiB in all, which is four million calls
    /// and more.
    pub const KEEP_FILES_DEFAULT: u32 = 15;
}

/// What is logged on stderr.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// As given: `info`, or `info,coffer_server::serve=debug`. Steers coffer's own targets only.
    pub filter: String,
    /// The same, understood.
    pub targets: Targets,
    /// For people or for programs.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Ceilings of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, over all listeners.
    pub connections: u32,
    /// Connections at once from one IPv4 address or one IPv6 /64 network. Unix sockets have no such limit.
    pub connections_per_peer: u32,
    /// Memory for secrets, in bytes; creates beyond it are refused. Half of the machine's (or its cgroup's) by default.
    pub memory_bytes: u64,
}

impl Limits {
    /// [`Limits::connections`] when nothing says otherwise.
    pub const CONNECTIONS_DEFAULT: u32 = 10_000;
    /// [`Limits::connections_per_peer`] when nothing says otherwise.
    pub const CONNECTIONS_PER_PEER_DEFAULT: u32 = 1_000;
}

impl LogFormat {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Everything that is wrong with a configuration; never empty. `Display` is one mistake a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Mistakes {}
