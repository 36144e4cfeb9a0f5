//! What commands that open a store themselves take from the server's configuration, so that they use the same key and audit
//! log as the server does.

use std::path::{Path, PathBuf};

use super::{
    EtcdSetting, KeyFlags, KeySetting, Mistakes, environment, file,
    setting::{Given, Item},
    store,
};

/// The flag for it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FileFlag {
    /// Configuration file of the server: its data, key and audit log, where flags do not name others
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What the file says; nothing if none was named.
#[derive(Debug, Default)]
pub struct FromFile {
    /// The directory of the store.
    pub data: Option<PathBuf>,
    /// The etcd that holds the store instead.
    pub etcd: Option<EtcdSetting>,
    key: KeyFlags,
    audit_file: Option<PathBuf>,
}

impl FileFlag {
    /// Reads the file, and complains of everything in it, and of variables that no server has, as `run` does.
    pub fn read(&self) -> Result<FromFile, Mistakes> {
        let mut mistakes = Vec::new();
        environment::read(std::env::vars_os(), &mut mistakes);
        let given =
            self.config.as_deref().map_or_else(Vec::new, |path| file::read(path, &mut mistakes).unwrap_or_default());
        let etcd = store::etcd_of(given.clone()).unwrap_or_else(|more| {
            mistakes.extend(more);
            None
        });
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let text = |item: Item| {
            let found = given.iter().find(|given| given.key == item);
            found.and_then(|Given { texts, .. }| texts.first().cloned()).filter(|text| !text.is_empty())
        };
        let path = |item| text(item).map(PathBuf::from);
        let key = KeyFlags {
            key_file: path(Item::KeyFile),
            key_credential: text(Item::KeyCredential),
            key_kms: text(Item::KeyKms),
        };
        Ok(FromFile { data: path(Item::Data), etcd, key, audit_file: path(Item::AuditFile) })
    }
}

impl FromFile {
    /// The one key source that flags and file name together, as for `run`.
    pub fn key(&self, flags: &KeyFlags) -> Result<KeySetting, Mistakes> {
        let KeyFlags { key_file, key_credential, key_kms } = flags.clone();
        let key = KeyFlags {
            key_file: key_file.or_else(|| self.key.key_file.clone()),
            key_credential: key_credential.or_else(|| self.key.key_credential.clone()),
            key_kms: key_kms.or_else(|| self.key.key_kms.clone()),
        };
        key.setting()
    }

    /// The directory of the store.
    pub fn data(&self, flag: Option<&Path>) -> Option<PathBuf> {
        flag.map(Path::to_owned).or_else(|| self.data.clone())
    }

    /// The audit log, if one is named. The file's is that of the file's store only: another store has its own.
    pub fn audit_file(&self, flag: Option<&Path>, data: Option<&Path>) -> Option<PathBuf> {
        let same = |one: &Path, other: &Path| match (one.canonicalize(), other.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            _ => one == other,
        };
        let is_its_own = match (data, &self.data) {
            (Some(data), Some(own)) => same(data, own),
            (None, _) => true,
            (Some(_), None) => true,
        };
        flag.map(Path::to_owned).or_else(|| self.audit_file.clone().filter(|_| is_its_own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FromFile, Mistakes> {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("coffer.toml");
        std::fs::write(&path, text).expect("a file");
        FileFlag { config: Some(path) }.read()
    }

    #[test]
    fn flags_win_and_the_file_fills_in() {
        let file = read("data = \"/d\"\nkey_file = \"/k\"\n[audit]\nfile = \"/log/a\"\n").expect("good");
        assert_eq!(file.data(None), Some("/d".into()));
        assert_eq!(file.data(Some(Path::new("/e"))), Some("/e".into()));
        assert_eq!(file.key(&KeyFlags::default()), Ok(KeySetting::File("/k".into())));
        let other = KeyFlags { key_file: Some("/l".into()), ..KeyFlags::default() };
        assert_eq!(file.key(&other), Ok(KeySetting::File("/l".into())));
        let two = KeyFlags { key_kms: Some("unix:///run/kms".to_owned()), ..KeyFlags::default() };
        assert!(file.key(&two).is_err(), "a store has one key source");
        assert_eq!(file.audit_file(None, Some(Path::new("/d"))), Some("/log/a".into()));
        assert_eq!(file.audit_file(Some(Path::new("/b")), Some(Path::new("/d"))), Some("/b".into()));
        assert_eq!(file.audit_file(None, Some(Path::new("/e"))), None, "another store's lines do not belong there");
        assert_eq!(FileFlag::default().read().expect("nothing").data(None), None);
    }

    #[test]
    fn a_file_that_run_would_refuse_is_refused() {
        assert!(read("dta = \"/d\"\n").expect_err("a mistake").0[0].contains("dta"));
        assert!(FileFlag { config: Some("/none/coffer.toml".into()) }.read().is_err());
    }
}
