//! `coffer-server restore`: a new store of what another one was, or of a backup.

use std::{path::PathBuf, time::SystemTime};

use super::{Failure, print, progress::Progress};
use crate::store::{
    Epoch, Position, Revision,
    embedded::{OpenError, RestoreError, Restored, Target, restore},
};

/// Flags of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// A backup's file, or the directory of a store that no server has open: its log and snapshots count, its records may be
    /// lost
    source: PathBuf,
    /// Directory of the new store; it must not hold one
    #[arg(long, value_name = "DIR", env = "COFFER_SERVER_DATA")]
    data: PathBuf,
    /// Restore this position, as `coffer store status` and the audit log write it; otherwise the newest one
    #[arg(long, value_name = "EPOCH.REVISION", value_parser = position)]
    to_position: Option<Position>,
    /// Restore what stood at this time, RFC 3339: 2026-01-31T23:59:59Z
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak, conflicts_with = "to_position")]
    to_time: Option<SystemTime>,
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { source, data, to_position, to_time } = self;
        let target = match (to_position, to_time) {
            (Some(position), _) => Target::Position(position),
            (None, Some(time)) => Target::Time(time),
            (None, None) => Target::Newest,
        };
        let progress = Progress::new("restore");
        let to = data.clone();
        let restored = tokio::task::spawn_blocking(move || {
            restore(&source, &to, target, &mut |done, total| progress.of(done, total))
        });
        let restored = restored.await.map_err(|_| Failure::new("the restore ended by itself"))?;
        let Restored { from, position, time, records } = restored.map_err(failure)?;
        let of = time.map_or(String::new(), |time| format!(" of {}", humantime::format_rfc3339_millis(time)));
        let data = data.display();
        print::note(&format!("restored {from}{of}, {records} records, into {data} as {position}"));
        print::note("every token of before has ended, so that none that was revoked since comes back");
        print::note(&format!("next: coffer-server operator --data {data} with the key of the old store: a new token"));
        print::note(&format!("then: coffer-server run --data {data}"));
        Ok(())
    }
}

fn failure(error: RestoreError) -> Failure {
    let hint = match &error {
        RestoreError::Open(OpenError::Exists(_)) => Some("a restore never touches what is there: give another --data"),
        RestoreError::Open(OpenError::InUse(_)) => {
            Some("stop its server first, or restore a backup: `coffer store backup`")
        }
        RestoreError::Open(OpenError::Damaged { what, .. }) if what.contains("ends at revision") => {
            Some("--to-position restores what stands before the damage")
        }
        _ => None,
    };
    let failure = Failure::new(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn position(text: &str) -> Result<Position, &'static str> {
    let parsed = text.split_once('.').and_then(|(epoch, revision)| {
        Some(Position { epoch: Epoch(epoch.parse().ok()?), revision: Revision(revision.parse().ok()?) })
    });
    parsed.ok_or("must be EPOCH.REVISION, for example 1.4711")
}
