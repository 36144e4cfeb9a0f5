//! Where the key is that opens the store: one of three sources, the same for every command. Never the key itself.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{ListenAddress, Mistakes};

/// The credential that is taken when nothing is named.
pub const CREDENTIAL_DEFAULT: &str = "coffer.key";
/// Where systemd puts a unit's credentials: systemd.exec(5).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// Longest name of a credential, in bytes: that of a file.
const CREDENTIAL_BYTES_MAX: usize = 255;

/// What is said when nothing is given.
pub(super) const NONE: &str = "--key-file, --key-credential or --key-kms is needed (or key_file, key_credential or \
                               key_kms in the configuration file), or the credential coffer.key of a systemd unit";

/// What wraps the root key of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetting {
    /// A key in a file.
    File(PathBuf),
    /// A key in a credential of systemd.
    Credential {
        /// Where systemd put the unit's credentials.
        directory: PathBuf,
        /// Which of them.
        name: String,
    },
    /// A KMS v2 plugin, by the absolute path of its socket.
    Kms(PathBuf),
}

/// The flags of commands that open the store themselves, each with the variable of `run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeyFlags {
    /// File with the key that opens the store: 64 hex digits, for its owner only. Without it nothing in the store can be
    /// read. This, --key-credential or --key-kms is needed, but in a systemd unit with the credential coffer.key
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// The same as a credential of systemd (LoadCredential=, LoadCredentialEncrypted=), by its name
    #[arg(long, value_name = "NAME", env = "COFFER_SERVER_KEY_CREDENTIAL")]
    pub key_credential: Option<String>,
    /// Socket of a KMS v2 plugin of Kubernetes, which wraps the key of the store: unix:///path. Who serves it holds the key
    #[arg(long, value_name = "ADDR", env = "COFFER_SERVER_KEY_KMS")]
    pub key_kms: Option<String>,
}

impl KeyFlags {
    /// The one source they name, or the default.
    pub fn setting(&self) -> Result<KeySetting, Mistakes> {
        let directory = credentials(&std::env::vars_os().collect::<Vec<_>>());
        let named = |flag: &'static str| move |error: String| Mistakes(vec![format!("{flag}: {error}")]);
        let given: Vec<_> = [
            ("--key-file", self.key_file.is_some()),
            ("--key-credential", self.key_credential.is_some()),
            ("--key-kms", self.key_kms.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect();
        check_one(&given).map_err(|mistake| Mistakes(vec![mistake]))?;
        match (&self.key_file, &self.key_credential, &self.key_kms) {
            (Some(file), _, _) => Ok(KeySetting::File(file.clone())),
            (_, Some(name), _) => credential(name, directory.as_deref()).map_err(named("--key-credential")),
            (_, _, Some(address)) => kms(address).map_err(named("--key-kms")),
            _ => default(directory.as_deref()).ok_or_else(|| Mistakes(vec![NONE.to_owned()])),
        }
    }
}

impl KeySetting {
    /// The flag that names it.
    pub fn flag(&self) -> String {
        match self {
            KeySetting::File(file) => format!("--key-file {}", file.display()),
            KeySetting::Credential { name, .. } => format!("--key-credential {name}"),
            KeySetting::Kms(socket) => format!("--key-kms unix://{}", socket.display()),
        }
    }
}

/// Where systemd put the unit's credentials.
pub(super) fn credentials(variables: &[(OsString, OsString)]) -> Option<PathBuf> {
    let found = variables.iter().find(|(name, value)| name == CREDENTIALS_DIRECTORY && !value.is_empty());
    found.map(|(_, value)| PathBuf::from(value))
}

/// Refuses more than one.
pub(super) fn check_one(given: &[&str]) -> Result<(), String> {
    if given.len() < 2 {
        return Ok(());
    }
    Err(format!("{}: the store's key has one source; give only one of them", given.join(" and ")))
}

pub(super) fn default(directory: Option<&Path>) -> Option<KeySetting> {
    let directory = directory?;
    let is_there = directory.join(CREDENTIAL_DEFAULT).exists();
    let credential = || KeySetting::Credential { directory: directory.to_owned(), name: CREDENTIAL_DEFAULT.to_owned() };
    is_there.then(credential)
}

pub(super) fn credential(name: &str, directory: Option<&Path>) -> Result<KeySetting, String> {
    let is_name = !["", ".", ".."].contains(&name)
        && name.len() <= CREDENTIAL_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if !is_name {
        return Err("is no name of a credential".to_owned());
    }
    let directory =
        directory.ok_or("there are no credentials: systemd sets CREDENTIALS_DIRECTORY for units that have any")?;
    Ok(KeySetting::Credential { directory: directory.to_owned(), name: name.to_owned() })
}

pub(super) fn kms(address: &str) -> Result<KeySetting, String> {
    match address.parse() {
        Ok(ListenAddress::Unix(socket)) => Ok(KeySetting::Kms(socket)),
        _ => Err(format!("{address:?} is no unix socket: give unix:///absolute/path")),
    }
}
