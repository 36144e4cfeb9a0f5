//! What can be set, and by which names.

use std::{fmt, path::PathBuf};

/// One thing that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Store,
    Data,
    KeyFile,
    KeyCredential,
    KeyKms,
    Listen,
    TlsCert,
    TlsKey,
    AddressFile,
    AuditFile,
    AuditSync,
    AuditMaxBytes,
    AuditKeepFiles,
    AuditServiceCalls,
    AuditCalls,
    Reflection,
    LogFilter,
    LogFormat,
    EtcdEndpoints,
    EtcdPrefix,
    EtcdCa,
    EtcdCert,
    EtcdKey,
    EtcdServerName,
    EtcdUser,
    EtcdPasswordFile,
    EtcdMaxStale,
    EtcdHistory,
    HistoryRetention,
    HistoryBytesMax,
    Connections,
    ConnectionsPerPeer,
    MemoryBytes,
}

/// What its value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A path; relative ones in the file are relative to the file's directory.
    Path,
    Text,
    /// A list of texts; in the environment, separated by commas.
    List,
    Switch,
    Count,
}

/// Its names; limits and etcd are set in the file only.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: Item,
    pub(super) shape: Shape,
    pub(super) flag: Option<&'static str>,
    pub(super) variable: Option<&'static str>,
    /// Table (empty for the top) and key.
    pub(super) file: (&'static str, &'static str),
}

const fn everywhere(
    key: Item,
    shape: Shape,
    flag: &'static str,
    variable: &'static str,
    file: (&'static str, &'static str),
) -> Setting {
    Setting { key, shape, flag: Some(flag), variable: Some(variable), file }
}

const fn in_file(key: Item, shape: Shape, file: (&'static str, &'static str)) -> Setting {
    Setting { key, shape, flag: None, variable: None, file }
}

pub(super) const SETTINGS: &[Setting] = &[
    everywhere(Item::Data, Shape::Path, "--data", "COFFER_SERVER_DATA", ("", "data")),
    everywhere(Item::KeyFile, Shape::Path, "--key-file", "COFFER_SERVER_KEY_FILE", ("", "key_file")),
    everywhere(
        Item::KeyCredential,
        Shape::Text,
        "--key-credential",
        "COFFER_SERVER_KEY_CREDENTIAL",
        ("", "key_credential"),
    ),
    everywhere(Item::KeyKms, Shape::Text, "--key-kms", "COFFER_SERVER_KEY_KMS", ("", "key_kms")),
    everywhere(Item::Listen, Shape::List, "--listen", "COFFER_SERVER_LISTEN", ("", "listen")),
    everywhere(Item::TlsCert, Shape::Path, "--tls-cert", "COFFER_SERVER_TLS_CERT", ("tls", "cert")),
    everywhere(Item::TlsKey, Shape::Path, "--tls-key", "COFFER_SERVER_TLS_KEY", ("tls", "key")),
    everywhere(Item::AddressFile, Shape::Path, "--address-file", "COFFER_SERVER_ADDRESS_FILE", ("", "address_file")),
    everywhere(Item::AuditFile, Shape::Path, "--audit-file", "COFFER_SERVER_AUDIT_FILE", ("audit", "file")),
    everywhere(Item::AuditSync, Shape::Switch, "--audit-sync", "COFFER_SERVER_AUDIT_SYNC", ("audit", "sync")),
    everywhere(Item::Reflection, Shape::Switch, "--reflection", "COFFER_SERVER_REFLECTION", ("", "reflection")),
    everywhere(Item::LogFilter, Shape::Text, "--log", "COFFER_SERVER_LOG", ("log", "filter")),
    everywhere(Item::LogFormat, Shape::Text, "--log-format", "COFFER_SERVER_LOG_FORMAT", ("log", "format")),
    in_file(Item::AuditMaxBytes, Shape::Count, ("audit", "max_bytes")),
    in_file(Item::AuditKeepFiles, Shape::Count, ("audit", "keep_files")),
    in_file(Item::AuditServiceCalls, Shape::Count, ("audit", "service_calls_per_second")),
    in_file(Item::AuditCalls, Shape::Count, ("audit", "calls_per_second")),
    in_file(Item::Store, Shape::Text, ("", "store")),
    in_file(Item::EtcdEndpoints, Shape::List, ("etcd", "endpoints")),
    in_file(Item::EtcdPrefix, Shape::Text, ("etcd", "prefix")),
    in_file(Item::EtcdCa, Shape::Path, ("etcd", "ca")),
    in_file(Item::EtcdCert, Shape::Path, ("etcd", "cert")),
    in_file(Item::EtcdKey, Shape::Path, ("etcd", "key")),
    in_file(Item::EtcdServerName, Shape::Text, ("etcd", "server_name")),
    in_file(Item::EtcdUser, Shape::Text, ("etcd", "user")),
    in_file(Item::EtcdPasswordFile, Shape::Path, ("etcd", "password_file")),
    in_file(Item::EtcdMaxStale, Shape::Text, ("etcd", "max_stale")),
    in_file(Item::EtcdHistory, Shape::Path, ("etcd", "history")),
    in_file(Item::HistoryRetention, Shape::Text, ("history", "retention")),
    in_file(Item::HistoryBytesMax, Shape::Count, ("history", "max_bytes")),
    in_file(Item::Connections, Shape::Count, ("limits", "connections")),
    in_file(Item::ConnectionsPerPeer, Shape::Count, ("limits", "connections_per_peer")),
    in_file(Item::MemoryBytes, Shape::Count, ("limits", "memory_bytes")),
];

/// Names the configuration file itself, in the environment.
pub(super) const CONFIG_VARIABLE: &str = "COFFER_SERVER_CONFIG";

impl Setting {
    pub(super) fn of(key: Item) -> &'static Setting {
        SETTINGS.iter().find(|setting| setting.key == key).unwrap_or(&SETTINGS[0])
    }

    /// The name in the file, with its table: `tls.cert`.
    pub(super) fn file_key(&self) -> String {
        match self.file {
            ("", key) => key.to_owned(),
            (table, key) => format!("{table}.{key}"),
        }
    }
}

/// One value given for a setting, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) key: Item,
    pub(super) source: Source,
    /// One text, but for lists.
    pub(super) texts: Vec<String>,
}

/// Who says so; the first wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Flag(&'static str),
    Variable(&'static str),
    File { key: String, file: PathBuf },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) | Source::Variable(name) => f.write_str(name),
            Source::File { key, file } => write!(f, "`{key}` in {}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_found_by_its_key() {
        for setting in SETTINGS {
            assert_eq!(Setting::of(setting.key).file, setting.file);
        }
    }
}
