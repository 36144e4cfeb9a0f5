//! From the setting to the key source.

use std::sync::Arc;

use crate::{
    config::KeySetting,
    seal::source::{Error, KeyFile, KeySource, Kms},
};

/// Opens what the configuration names. A file is read; a plugin is not asked yet.
pub(crate) fn open(setting: &KeySetting) -> Result<Arc<dyn KeySource>, Error> {
    Ok(match setting {
        KeySetting::File(path) => Arc::new(KeyFile::open(path)?),
        KeySetting::Credential { directory, name } => Arc::new(KeyFile::credential(directory, name)?),
        KeySetting::Kms(socket) => Arc::new(Kms::new(socket)?),
    })
}
