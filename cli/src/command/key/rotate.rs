//! `coffer key rotate`

use clap::ValueEnum;
use coffer_proto::{
    reason::Reason,
    v1::{RotateKeysRequest, RotatedKeys},
};

use crate::{
    failure::Failure,
    print::{Report, progress::Progress},
    session::Session,
    view::RotationView,
};

/// Make new keys and seal with them what the old ones sealed, while the server serves
///
/// Needs an operator's token. Waits until it is done and shows how far it is; it goes on in the server if this is
/// interrupted, also over its restart, and the same command shows it again. Backups, snapshots and the log of before stay
/// sealed with the old keys until their retention ends.
#[derive(clap::Args)]
pub(crate) struct Rotate {
    /// Which keys
    keys: Keys,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keys {
    /// The root key: every data key is wrapped anew, records stay as they are
    Root,
    /// The data keys, of every scope and of the system: every record is sealed anew
    Data,
}

impl Rotate {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let keys = match self.keys {
            Keys::Root => RotatedKeys::Root,
            Keys::Data => RotatedKeys::Data,
        };
        let client = session.connect().await?;
        let mut operations = client.operations();
        let busy = "wait for it: `coffer store status` shows how far it is";
        let failed = |error: coffer_client::Error| Failure::from(error).hint_if(Reason::RotationRunning, busy);
        let mut news =
            client.call(operations.rotate_keys(RotateKeysRequest { keys: keys.into() })).await.map_err(failed)?;
        let progress = Progress::count("rotate");
        let mut last = None;
        while let Some(message) = news.message().await.map_err(|status| failed(status.into()))? {
            if let Some(rotation) = message.rotation {
                progress.of(rotation.done, rotation.total);
                last = Some(rotation);
            }
        }
        progress.clear();
        let rotation = last.filter(|rotation| rotation.end_time.is_some());
        let rotation = rotation.ok_or_else(|| Failure::failed("the server's answer ends before the rotation does"))?;
        session.show(&RotationView::from(rotation))
    }
}
