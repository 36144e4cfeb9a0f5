//! A configuration as the TOML file that would give it.

use std::{fmt, path::Path};

use super::{Config, EtcdSetting, KeySetting, StoreSetting};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listen: Vec<_> = self.listen.iter().map(|address| quoted(&address.to_string())).collect();
        match &self.store {
            StoreSetting::Embedded(data) => writeln!(f, "data = {}", path(data))?,
            StoreSetting::Etcd(_) => writeln!(f, "store = \"etcd\"")?,
        }
        match &self.key {
            KeySetting::File(file) => writeln!(f, "key_file = {}", path(file))?,
            KeySetting::Credential { name, .. } => writeln!(f, "key_credential = {}", quoted(name))?,
            KeySetting::Kms(socket) => writeln!(f, "key_kms = {}", quoted(&format!("unix://{}", socket.display())))?,
        }
        writeln!(f, "listen = [{}]", listen.join(", "))?;
        if let Some(file) = &self.address_file {
            writeln!(f, "address_file = {}", path(file))?;
        }
        writeln!(f, "reflection = {}", self.reflection)?;
        if let Some(tls) = &self.tls {
            writeln!(f, "\n[tls]\ncert = {}\nkey = {}", path(&tls.cert), path(&tls.key))?;
        }
        writeln!(f, "\n[audit]\nfile = {}\nsync = {}", path(&self.audit.file), self.audit.sync)?;
        writeln!(f, "max_bytes = {}\nkeep_files = {}", self.audit.max_bytes, self.audit.keep_files)?;
        writeln!(f, "service_calls_per_second = {}", self.audit.service_calls_per_second)?;
        writeln!(f, "calls_per_second = {}", self.audit.calls_per_second)?;
        writeln!(f, "\n[log]\nfilter = {}\nformat = {}", quoted(&self.log.filter), quoted(self.log.format.as_str()))?;
        if let StoreSetting::Etcd(etcd) = &self.store {
            writeln!(f, "\n[etcd]\n{etcd}")?;
        }
        let retention = quoted(&humantime::format_duration(self.history.retention).to_string());
        writeln!(f, "\n[history]\nretention = {retention}\nmax_bytes = {}", self.history.bytes_max)?;
        writeln!(
            f,
            "\n[limits]\nconnections = {}\nconnections_per_peer = {}\nmemory_bytes = {}",
            self.limits.connections, self.limits.connections_per_peer, self.limits.memory_bytes
        )
    }
}

impl fmt::Display for EtcdSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.endpoints.iter().map(|endpoint| quoted(endpoint)).collect();
        writeln!(f, "endpoints = [{}]\nprefix = {}", endpoints.join(", "), quoted(&self.prefix))?;
        if let Some(ca) = &self.ca {
            writeln!(f, "ca = {}", path(ca))?;
        }
        if let Some((cert, key)) = &self.identity {
            writeln!(f, "cert = {}\nkey = {}", path(cert), path(key))?;
        }
        if let Some(name) = &self.server_name {
            writeln!(f, "server_name = {}", quoted(name))?;
        }
        if let Some((user, file)) = &self.user {
            writeln!(f, "user = {}\npassword_file = {}", quoted(user), path(file))?;
        }
        if let Some(history) = &self.history {
            writeln!(f, "history = {}", path(history))?;
        }
        write!(f, "max_stale = {}", quoted(&humantime::format_duration(self.max_stale).to_string()))
    }
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A JSON string is a TOML basic string too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
