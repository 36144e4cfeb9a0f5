//! `coffer-server restore`: a new store of what another one was, or of a backup.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Failure, print, progress::Progress, verify::unfinished};
use crate::{
    record,
    seal::header,
    store::{
        Epoch, Key, Position, Revision,
        embedded::{OpenError, RestoreError, Restored, Target, peek, restore},
    },
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
    /// Restore what stood at this time, RFC 3339: 2026-01-31T23:59:59Z, or with an offset: 2026-01-31T23:59:59+01:00
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "to_position")]
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
            restore(&source, &to, target, Some(record::key::TOKENS), &mut |done, total| progress.of(done, total))
        });
        let restored = restored.await.map_err(|_| Failure::new("the restore ended by itself"))?;
        let Restored { from, position, time, records, unfinished_bytes, is_before_time } = restored.map_err(failure)?;
        let of = time.map_or(String::new(), |time| format!(" of {}", humantime::format_rfc3339_millis(time)));
        let opens_with = wrapped_by(&data);
        let data = data.display();
        print::note(&format!("restored {from}{of}, {records} records, into {data} as {position}"));
        if is_before_time {
            print::note("note: the source ends there: what was done between that and the time asked for is not in it");
        }
        if unfinished_bytes > 0 {
            print::note(&format!("note: {}; they are not in it", unfinished(unfinished_bytes)));
        }
        if let Some((kind, key_id)) = opens_with {
            // Maybe not the one that the store has now.
            print::note(&format!("it opens with the key that the store had then: {kind} key {key_id}"));
        }
        print::note("every token of before has ended, so that none that was revoked since comes back");
        print::note(&format!("next: coffer-server operator --data {data} with the key of the old store: a new token"));
        print::note(&format!("then: coffer-server run --data {data}"));
        Ok(())
    }
}

/// The kind of source and the id of the key that wraps the root key there, as far as that can be read.
fn wrapped_by(data: &Path) -> Option<(String, String)> {
    let header = peek(data, &Key::new(record::key::HEADER)).ok()??;
    header::wrapped_by(&header).ok()
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
        RestoreError::EndMissing { last, .. } => {
            let hint = format!("`--to-position {last}` restores what is there; a backup may have more");
            return Failure::new(error).hint(hint);
        }
        _ => None,
    };
    let failure = Failure::new(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A time that says of which zone it is: without one it would be hours off for most.
fn time(text: &str) -> Result<SystemTime, &'static str> {
    const WRONG: &str = "must be RFC 3339 with its zone: 2026-01-31T23:59:59Z or 2026-01-31T23:59:59+01:00";
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Ok(time);
    }
    let at = text.len().checked_sub("+00:00".len()).ok_or(WRONG)?;
    let (local, offset) = text.split_at_checked(at).ok_or(WRONG)?;
    let local = if local.ends_with('Z') { Err(WRONG) } else { Ok(local) }?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).map_err(|_| WRONG)?;
    let number = |part: Option<&str>, max: u64| {
        let part = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        part.and_then(|part| part.parse::<u64>().ok()).filter(|number| *number <= max).ok_or(WRONG)
    };
    let [hours, minutes] = [number(offset.get(1..3), 23)?, number(offset.get(4..6), 59)?];
    let offset_by = Duration::from_secs(hours * 3_600 + minutes * 60);
    let utc = match (offset.get(..1), offset.get(3..4)) {
        (Some("+"), Some(":")) => local.checked_sub(offset_by),
        (Some("-"), Some(":")) => local.checked_add(offset_by),
        _ => None,
    };
    utc.ok_or(WRONG)
}

fn position(text: &str) -> Result<Position, &'static str> {
    let parsed = text.split_once('.').and_then(|(epoch, revision)| {
        Some(Position { epoch: Epoch(epoch.parse().ok()?), revision: Revision(revision.parse().ok()?) })
    });
    parsed.ok_or("must be EPOCH.REVISION, for example 1.4711")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_says_of_which_zone_it_is() {
        let utc = |text| time(text).map(|time| humantime::format_rfc3339_seconds(time).to_string());
        for (given, meant) in [
            ("2026-11-21T10:53:46Z", "2026-11-21T10:53:46Z"),
            ("2026-11-21T10:53:46+01:00", "2026-11-21T09:53:46Z"),
            ("2026-11-21T22:53:46.5-05:30", "2026-11-22T04:23:46Z"),
        ] {
            assert_eq!(utc(given).as_deref(), Ok(meant));
        }
        for wrong in [
            "2026-11-21T10:53:46",
            "2026-11-21 10:53:46",
            "2026-11-21",
            "2026-11-21T10:53:46+1:00",
            "2026-11-21T10:53:46+24:00",
            "2026-11-21T10:53:46+0100",
            "2026-11-21T10:53:46Z+01:00",
            "2026-11-21T10:53:46++1:00",
            "äöü",
            "",
        ] {
            assert!(utc(wrong).is_err_and(|error| error.contains("zone")), "{wrong}");
        }
    }
}
