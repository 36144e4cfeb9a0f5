//! The flags of `run` and `check-config`.

use std::path::PathBuf;

use super::setting::{Given, Item, Setting, Source};

/// Flags; each wins over its `COFFER_SERVER_…` variable, which wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// TOML file with the configuration; relative paths in it are relative to its directory
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store, made by `coffer-server init`
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// File with the key that opens the store: 64 hex digits, for its owner only. This, --key-credential or --key-kms is
    /// needed, but in a systemd unit with the credential coffer.key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<String>,
    /// The same as a credential of systemd (LoadCredential=, LoadCredentialEncrypted=), by its name
    #[arg(long, value_name = "NAME")]
    pub key_credential: Option<String>,
    /// Socket of a KMS v2 plugin of Kubernetes, which wraps the key of the store: unix:///path. Who serves it holds the key
    #[arg(long, value_name = "ADDR")]
    pub key_kms: Option<String>,
    /// Where to listen: IP:PORT (0 is any free port) or unix:/path; may be repeated [default: 127.0.0.1:7470]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Certificate chain in PEM; needed for every address that is not loopback or a unix socket
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// File to write the addresses to, one a line, once all listeners accept
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<String>,
    /// Audit log; renamed or deleted, it goes on in a new file within a second [default: audit.jsonl in the data directory]
    #[arg(long, value_name = "FILE")]
    pub audit_file: Option<String>,
    /// Have each audit line on the disk before its call goes on, rather than within a second
    #[arg(long)]
    pub audit_sync: bool,
    /// Serve gRPC reflection
    #[arg(long)]
    pub reflection: bool,
    /// What to log of coffer itself: info, or info,coffer_server::serve=debug [default: info]
    #[arg(long = "log", value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Flags {
    pub(super) fn given(&self) -> Vec<Given> {
        let mut given = Vec::new();
        let mut give = |key, texts: Vec<String>| {
            if let (Some(flag), false) = (Setting::of(key).flag, texts.is_empty()) {
                given.push(Given { key, source: Source::Flag(flag), texts });
            }
        };
        let one = |text: &Option<String>| text.iter().cloned().collect::<Vec<_>>();
        let switch = |on: bool| if on { vec!["true".to_owned()] } else { Vec::new() };
        give(Item::Data, one(&self.data));
        give(Item::KeyFile, one(&self.key_file));
        give(Item::KeyCredential, one(&self.key_credential));
        give(Item::KeyKms, one(&self.key_kms));
        give(Item::Listen, self.listen.clone());
        give(Item::TlsCert, one(&self.tls_cert));
        give(Item::TlsKey, one(&self.tls_key));
        give(Item::AddressFile, one(&self.address_file));
        give(Item::AuditFile, one(&self.audit_file));
        give(Item::AuditSync, switch(self.audit_sync));
        give(Item::Reflection, switch(self.reflection));
        give(Item::LogFilter, one(&self.log_filter));
        give(Item::LogFormat, one(&self.log_format));
        given
    }
}
