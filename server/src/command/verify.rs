//! `coffer-server verify`: is a backup, or a store, whole, and does everything in it open? Prints no value.

use std::path::{Path, PathBuf};

use super::{Failure, print, progress::Progress};
use crate::{
    config::{FileFlag, KeyFlags},
    record,
    seal::header,
    server::{self, key},
    store::{
        Record,
        embedded::{OpenError, Verified, verify},
    },
    view::Examiner,
};

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// A backup's file, or the directory of a store that no server has open
    source: PathBuf,
    /// Check the bytes only, without the key: not whether the records open
    #[arg(long, conflicts_with_all = ["key_file", "key_credential", "key_kms"])]
    without_key: bool,
    #[command(flatten)]
    key: KeyFlags,
    #[command(flatten)]
    config: FileFlag,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { source, without_key, key, config } = self;
        let examiner = match without_key {
            true => None,
            false => Some(examiner(&source, &key, &config).await?),
        };
        let progress = Progress::new("verify");
        let path = source.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let mut wrong = None;
            let mut check = |record: &Record| {
                if let (None, Some(examiner)) = (&wrong, &examiner) {
                    wrong = examiner.check(record).err();
                }
            };
            let verified = verify(&path, &mut |done, total| progress.of(done, total), &mut check);
            (verified, wrong)
        });
        let (verified, wrong) = looked.await.map_err(|_| Failure::new("the verification ended by itself"))?;
        let verified = verified.map_err(|error| failure(error, source.is_dir()))?;
        if let Some(wrong) = wrong {
            return Err(Failure::new(format!("{}: {wrong}", source.display())));
        }
        tell(&verified, without_key)
    }
}

/// What opens the records: their keys are read first, because some records stand before them.
async fn examiner(source: &Path, flags: &KeyFlags, config: &FileFlag) -> Result<Examiner, Failure> {
    let key = key::open(&config.read()?.key(flags)?).map_err(server::Error::from)?;
    let path = source.to_owned();
    let keys = tokio::task::spawn_blocking(move || {
        let mut keys = Vec::new();
        let progress = Progress::new("keys");
        let mut collect = |record: &Record| {
            if Examiner::is_key(record) {
                keys.push(record.clone());
            }
        };
        verify(&path, &mut |done, total| progress.of(done, total), &mut collect).map(|_| keys)
    });
    let keys = keys
        .await
        .map_err(|_| Failure::new("the verification ended by itself"))?
        .map_err(|error| failure(error, source.is_dir()))?;
    let source = source.display();
    let header = keys.iter().find(|record| record.key.as_str() == record::key::HEADER);
    let header =
        header.ok_or_else(|| Failure::new(format!("{source}: there is no header: nothing in it can be opened")))?;
    let opened = header::open(key.as_ref(), &header.value).await;
    let keyring = opened.map_err(|error| {
        let failure = Failure::new(format!("{source}: {error}"));
        match error {
            // The key is another matter than the bytes.
            header::Error::Source(_) => failure.hint(
                "its bytes are whole; it opens with the key that the store had then, which is not available here",
            ),
            _ => failure,
        }
    })?;
    let mut examiner = Examiner::new(keyring);
    for record in &keys {
        examiner.learn(record).map_err(|error| Failure::new(format!("{source}: {error}")))?;
    }
    examiner.check_keys().map_err(|error| Failure::new(format!("{source}: {error}")))?;
    Ok(examiner)
}

fn tell(verified: &Verified, without_key: bool) -> Result<(), Failure> {
    let Verified { position, time, records, snapshots, segments, unfinished_bytes, is_end_known } = *verified;
    let of = time.map_or(String::new(), |time| format!(" of {}", humantime::format_rfc3339_millis(time)));
    let opened = if without_key { "not opened" } else { "all open" };
    let parts = match segments {
        0 => "a backup".to_owned(),
        _ => format!("{snapshots} snapshots and {segments} segments of the log"),
    };
    print::data(&format!("whole: {position}{of}, {records} records, {opened}; {parts}\n")).map_err(Failure::new)?;
    if unfinished_bytes > 0 {
        print::note(&format!("note: {}; the next start cuts them off or refuses", unfinished(unfinished_bytes)));
    }
    if !is_end_known {
        print::note(
            "warning: nothing beside the log says how far it went: transactions that are missing at its end would not be missed",
        );
    }
    Ok(())
}

/// The end of a log that is not whole.
pub(super) fn unfinished(bytes: u64) -> String {
    format!("the last {bytes} bytes of the log are not whole, as a crash leaves what it never acknowledged")
}

fn failure(error: OpenError, is_directory: bool) -> Failure {
    let hint = match &error {
        OpenError::InUse(_) => Some("stop its server first, or verify a backup: `coffer store backup`"),
        // A restore passes over what it does not need, and says up to where there is something.
        OpenError::Damaged { .. } if is_directory => {
            Some("`coffer-server restore` makes a new store of what is whole, or says how far that reaches")
        }
        OpenError::Damaged { .. } => Some("use another backup, or another copy of this one"),
        _ => None,
    };
    let failure = Failure::new(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
