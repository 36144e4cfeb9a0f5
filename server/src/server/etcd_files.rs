//! The files by which etcd is reached, read again when they change: certificates are renewed, passwords replaced.

use std::path::PathBuf;

use super::place::{Place, options, warnings};
use crate::{
    clock::{Clock as _, SystemClock},
    config::{EtcdSetting, StoreSetting},
    serve::{Daily, Marks},
};

/// The files of a server whose store is in etcd.
pub(super) struct EtcdFiles {
    setting: EtcdSetting,
    marks: Marks,
    warned: Daily,
}

impl EtcdFiles {
    /// To be made before the store is opened, so that no change falls between.
    pub(super) fn of(setting: &StoreSetting) -> Option<Self> {
        let StoreSetting::Etcd(setting) = setting else { return None };
        let EtcdSetting { ca, identity, user, .. } = &**setting;
        let own = identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let files: Vec<PathBuf> = ca.iter().chain(own).chain(user.iter().map(|(_, file)| file)).cloned().collect();
        Some(Self { setting: EtcdSetting::clone(setting), marks: Marks::of(files), warned: Daily::default() })
    }

    /// Reads the files again. Bad ones are logged, and what was in use stays.
    pub(super) async fn reload(&self, store: &Place) {
        self.marks.renew();
        self.read_again(store).await;
    }

    /// Reads the files again if one looks different from when it was last read, or if they were no good then. Warns once a
    /// day while the certificate ends soon.
    pub(super) async fn look_after(&self, store: &Place) {
        if self.marks.look() {
            self.read_again(store).await;
        }
        if self.warned.is_due(SystemClock.uptime()) {
            let warnings = options(&self.setting).map(|options| warnings(&options)).unwrap_or_default();
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
    }

    async fn read_again(&self, store: &Place) {
        let Place::Etcd(store, _) = store else { return };
        let renewed = match options(&self.setting) {
            Ok(options) => store.renew(options).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match renewed {
            Ok(()) => {
                self.marks.were_read(None);
                tracing::info!("the files by which etcd is reached are read again");
            }
            Err(error) => {
                if self.marks.were_read(Some(error.clone())) {
                    tracing::error!(
                        error,
                        "the files by which etcd is reached are not read again; it is reached as before"
                    );
                }
            }
        }
    }
}
