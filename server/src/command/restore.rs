//! `coffer-server restore`: a new store of what another one was, or of a backup.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Failure, audit::audit_log, print, progress::Progress, verify::unfinished};
use crate::{
    audit::{files, reached::reached},
    config::{EtcdSetting, FileFlag, StoreSetting},
    record,
    seal::header,
    server::{self, place},
    store::{
        self, Epoch, Moment, Position,
        embedded::{self, OpenError, Past, Restored, Target},
        etcd::{self, Etcd},
    },
};

/// An audit log that names a larger epoch was not written by a server: each restore begins one.
const EPOCH_MAX: u64 = 1_000_000_000;

/// What helps where a restore was interrupted by what may be over.
const AGAIN: &str = "run the same again: it begins anew";

/// Flags of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// A backup's file, or the directory of a store that no server has open, or of a history that none keeps just now: its
    /// log and snapshots count, its records may be lost
    source: PathBuf,
    /// Directory of the new store; it must not hold one
    #[arg(long, value_name = "DIR", env = "COFFER_SERVER_DATA")]
    data: Option<PathBuf>,
    /// Restore this position, as `coffer store status` and the audit log write it; otherwise the newest one
    #[arg(long, value_name = "EPOCH.REVISION")]
    to_position: Option<Position>,
    /// Restore what stood at this time, RFC 3339: 2026-01-31T23:59:59Z, or with an offset: 2026-01-31T23:59:59+01:00
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "to_position")]
    to_time: Option<SystemTime>,
    /// Audit log of the store: the new store begins after all that stands there [default: the one of the configuration
    /// file, or audit.jsonl in the directory of the source, if it is there]
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
    #[command(flatten)]
    config: FileFlag,
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let place = self.place()?;
        let target = match (self.to_position, self.to_time) {
            (Some(position), _) => Target::Position(position),
            (None, Some(time)) => Target::Time(time),
            (None, None) => Target::Newest,
        };
        let (restored, opens_with) = match &place {
            StoreSetting::Embedded(data) => {
                let log = audit_log(&self.config, self.audit_file.as_deref(), None, &self.source)?;
                into_directory(self.source, data.clone(), target, log).await?
            }
            StoreSetting::Etcd(etcd) => into_etcd(self.source, etcd, target).await?,
        };
        let Restored { from, position, time, records, unfinished_bytes, is_before_time } = restored;
        let of = time.map_or(String::new(), |time| format!(" of {}", humantime::format_rfc3339_millis(time)));
        let flag = match (&place, &self.config.config) {
            (StoreSetting::Etcd(_), Some(config)) => format!("--config {}", config.display()),
            (place, _) => format!("--data {}", place.place()),
        };
        print::note(&format!("restored {from}{of}, {records} records, into {} as {position}", place.place()));
        print::note(&format!("verified: {records} records were read again, and each is as in the source"));
        if is_before_time {
            print::note("note: the source ends there: what was done between that and the time asked for is not in it");
        }
        if unfinished_bytes > 0 {
            print::note(&format!("note: {}; they are not in it", unfinished(unfinished_bytes)));
        }
        // Maybe not the one that the store has now.
        if let Some((kind, key_id)) = &opens_with {
            print::note(&format!("it opens with the key that the store had then: {kind} key {key_id}"));
        }
        let key_flag = match (&place, &opens_with) {
            (StoreSetting::Embedded(_), Some((kind, _))) => key_flag(kind),
            // The configuration file names the key.
            _ => "",
        };
        print::note("every token of before has ended, so that none that was revoked since comes back");
        print::next("for a new token", &format!("coffer-server operator {flag}{key_flag}"));
        print::next("to serve it", &format!("coffer-server run {flag}{key_flag}"));
        if matches!(place, StoreSetting::Etcd(_)) {
            print::note(
                "servers that still run take it for another store than theirs, and serve it only when started anew",
            );
        }
        Ok(())
    }

    fn place(&self) -> Result<StoreSetting, Failure> {
        let from_file = self.config.read()?;
        match (from_file.data(self.data.as_deref()), from_file.etcd) {
            (None, Some(etcd)) => Ok(StoreSetting::Etcd(Box::new(etcd))),
            (Some(data), None) => Ok(StoreSetting::Embedded(data)),
            (Some(_), Some(_)) => {
                let error = "--data: the configuration file says that the store is in etcd".to_owned();
                Err(Failure::usage(vec![error]).hint("without --config it is restored into the directory"))
            }
            (None, None) => Err(Failure::usage(vec![
                "--data, COFFER_SERVER_DATA or, for a store in etcd, --config is needed: where it is restored to"
                    .to_owned(),
            ])),
        }
    }
}

/// The flag that names a key source of this kind, with a word in place of what only the operator knows.
fn key_flag(kind: &str) -> &'static str {
    match kind {
        "credential" => " --key-credential NAME",
        "kms" => " --key-kms unix:///SOCKET",
        _ => " --key-file FILE",
    }
}

/// The kind of source and the id of the key that wraps the root key.
type OpensWith = Option<(String, String)>;

async fn into_directory(
    source: PathBuf,
    data: PathBuf,
    target: Target,
    log: Option<PathBuf>,
) -> Result<(Restored, OpensWith), Failure> {
    let done = tokio::task::spawn_blocking(move || {
        let after = log.map_or(Ok(Epoch(0)), |log| known_epoch(&log, &source))?;
        let progress = Progress::new("restore");
        let mut told = |done, total| progress.of(done, total);
        let restored = embedded::restore_after(&source, &data, target, Some(record::key::TOKENS), after, &mut told);
        restored.map_err(failure).map(|restored| {
            let header = embedded::peek(&data, &store::Key::new(record::key::HEADER)).ok().flatten();
            (restored, header.and_then(|header| header::wrapped_by(&header).ok()))
        })
    });
    done.await.map_err(|_| Failure::new("the restore ended by itself"))?
}

/// The last epoch that an audit log has of the source's store.
fn known_epoch(log: &Path, source: &Path) -> Result<Epoch, Failure> {
    let files = files::of_log(log).map_err(Failure::new)?;
    // What is wrong with the source is told by its restore.
    let header = embedded::peek(source, &store::Key::new(record::key::HEADER)).ok().flatten();
    let Some(store) = header.and_then(|header| header::store(&header).ok()) else { return Ok(Epoch(0)) };
    let fail = |error: &dyn Display| Failure::new(format!("audit log {}: {error}", log.display()));
    let known = reached(&files, store).map_err(|error| fail(&error))?.map_or(Epoch(0), |known| known.epoch);
    if known.0 > EPOCH_MAX {
        return Err(fail(&format!("it names epoch {}, which no store reaches", known.0))
            .hint("verify it: `coffer-server audit verify`"));
    }
    Ok(known)
}

async fn into_etcd(source: PathBuf, etcd: &EtcdSetting, target: Target) -> Result<(Restored, OpensWith), Failure> {
    let options = place::options(etcd)?;
    let found = tokio::task::spawn_blocking(move || Past::find(&source, target, Some(record::key::TOKENS)));
    let past = found.await.map_err(|_| Failure::new("the restore ended by itself"))?.map_err(failure)?;
    let past = Arc::new(past);
    let progress = Progress::new("restore");
    let restored = Etcd::restore(options, &past, &mut |done, total| progress.of(done, total)).await;
    drop(progress);
    let (position, records) = restored.map_err(failure_in_etcd)?;
    let header = header_of(&past).await;
    Ok((past.restored(position, records), header.and_then(|header| header::wrapped_by(&header).ok())))
}

/// The record that says which key opens the store, as far as it can be read.
async fn header_of(moment: &dyn Moment) -> Option<Arc<[u8]>> {
    let mut load = moment.load();
    loop {
        let page = load.page().await.ok()??;
        if let Some(header) = page.into_iter().find(|record| record.key.as_str() == record::key::HEADER) {
            return Some(header.value);
        }
    }
}

fn failure_in_etcd(error: etcd::RestoreError) -> Failure {
    use etcd::{OpenError, RestoreError};
    let hint = match &error {
        RestoreError::Open(OpenError::Exists(_)) => "a restore never touches what is there: give another `etcd.prefix`",
        RestoreError::Open(OpenError::Store(store::Error::Full(_))) => {
            "make room in etcd, compact and defragment it, and clear its alarm; then run the same again: it begins anew"
        }
        RestoreError::Open(OpenError::Store(store::Error::Unavailable(_))) | RestoreError::Differs(_) => AGAIN,
        RestoreError::Replaced(_) => "one restore at a time: this one has left nothing behind",
        RestoreError::Open(_) | RestoreError::Source(_) => "",
    };
    let failure = match error {
        RestoreError::Open(error) => Failure::from(server::Error::Etcd(error)),
        error => Failure::new(error),
    };
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

fn failure(error: embedded::RestoreError) -> Failure {
    use embedded::RestoreError;
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
        RestoreError::RunLost { last, .. } => {
            let hint =
                format!("`--to-position {last}` restores what is before it; a backup or another history may have more");
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
