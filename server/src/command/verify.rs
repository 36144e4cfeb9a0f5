//! `coffer-server verify`: is a backup, or a store, whole, and does everything in it open? Prints no value.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{Failure, audit::audit_log, failure::PUT_BACK, print, progress::Progress};
use crate::{
    audit::{
        files,
        reached::{PutBack, reached},
    },
    config::{EtcdSetting, FileFlag, KeyFlags},
    record,
    seal::{header, source::KeySource},
    server::{self, key, place},
    store::{
        self, Epoch, Key, Moment, Position, Record,
        embedded::{OpenError, Verified, formerly, runs_in, verify},
        etcd::{self, Etcd},
    },
    view::Examiner,
};

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// A backup's file, the directory of a store that no server has open, or of a history that none keeps just now; without
    /// it, the store in etcd that --config names, as it is now, whether servers run or not
    source: Option<PathBuf>,
    /// Check the bytes only, without the key: not whether the records open
    #[arg(long, conflicts_with_all = ["key_file", "key_credential", "key_kms"])]
    without_key: bool,
    #[command(flatten)]
    key: KeyFlags,
    /// Audit log that a store in a directory is compared with [default: audit.jsonl in the directory, if it is there]
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
    #[command(flatten)]
    config: FileFlag,
}

impl Verify {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let Self { source, without_key, key, audit_file, config } = self;
        let open = || -> Result<Option<Arc<dyn KeySource>>, Failure> {
            if without_key {
                return Ok(None);
            }
            let setting = config.read()?.key(&key)?;
            Ok(Some(key::open(&setting).map_err(server::Error::from)?))
        };
        if let Some(source) = source {
            let key = open()?;
            let log = match source.is_dir() {
                true => audit_log(&config, audit_file.as_deref(), Some(&source), &source)?,
                false => None,
            };
            return every(&source, key.as_deref(), log.as_deref()).await;
        }
        let Some(etcd) = config.read()?.etcd else {
            let error =
                "SOURCE is needed: a backup's file or a store's directory; or --config, which names a store in etcd";
            return Err(Failure::usage(vec![error.to_owned()]));
        };
        in_etcd(&etcd, open()?.as_deref()).await
    }
}

/// Of a history, each of its runs, whatever is wrong with the others.
async fn every(source: &Path, key: Option<&dyn KeySource>, log: Option<&Path>) -> Result<(), Failure> {
    let runs = if source.is_dir() { runs_in(source).map_err(|error| failure(error, true))? } else { Vec::new() };
    if runs.is_empty() {
        return in_files(source, key, log, "").await;
    }
    let mut bad = 0;
    for run in &runs {
        if let Err(failure) = in_files(run, key, None, "a run of the history: ").await {
            print::failure(&failure);
            bad += 1;
        }
    }
    match bad {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{}: {bad} of {} runs are not good", source.display(), runs.len()))),
    }
}

async fn in_files(source: &Path, key: Option<&dyn KeySource>, log: Option<&Path>, what: &str) -> Result<(), Failure> {
    let examiner = match key {
        None => None,
        Some(key) => {
            let source = source.to_owned();
            Some(examiner(&source.display().to_string(), key, async || keys_in_files(source).await).await?)
        }
    };
    let progress = Progress::new("verify");
    let (path, without_key) = (source.to_owned(), key.is_none());
    let looked = tokio::task::spawn_blocking(move || {
        let (mut wrong, mut store) = (None, None);
        let mut check = |record: &Record| {
            if record.key.as_str() == record::key::HEADER {
                store = header::store(&record.value).ok();
            }
            if let (None, Some(examiner)) = (&wrong, &examiner) {
                wrong = examiner.check(record).err();
            }
        };
        let verified = verify(&path, &mut |done, total| progress.of(done, total), &mut check);
        (verified, wrong, store)
    });
    let (verified, wrong, store) = looked.await.map_err(|_| Failure::new("the verification ended by itself"))?;
    let verified = verified.map_err(|error| failure(error, source.is_dir()))?;
    if let Some(wrong) = wrong {
        return Err(Failure::new(format!("{}: {wrong}", source.display())));
    }
    tell(&verified, without_key, what)?;
    if let (Some(log), Some(store)) = (log, store) {
        let known = files::of_log(log).map_err(Failure::new)?;
        let known = reached(&known, store).map_err(|error| Failure::new(format!("{}: {error}", log.display())))?;
        PutBack::check(verified.position, known).map_err(|put_back| {
            Failure::new(format!("{}: `coffer-server run` refuses it: {put_back}", source.display())).hint(PUT_BACK)
        })?;
    }
    match key {
        Some(key) if source.is_dir() => former_keys(source, key, verified.position.epoch).await,
        _ => Ok(()),
    }
}

/// What can be restored of before the source's key changed must open, too: each header that it had meanwhile.
async fn former_keys(source: &Path, key: &dyn KeySource, epoch: Epoch) -> Result<(), Failure> {
    let path = source.to_owned();
    let found = tokio::task::spawn_blocking(move || formerly(&path, &Key::new(record::key::HEADER))).await;
    let found = found.map_err(|_| Failure::new("the verification ended by itself"))?;
    let headers: Vec<_> = found.map_err(|error| failure(error, true))?.into_iter().collect();
    let mut failed: Option<Failure> = None;
    for pair in headers.windows(2) {
        let [(_, before), (revision, after)] = pair else { continue };
        // One of each stretch: what its key opens, it opens to the end of that.
        if header::wrapped_by(before).ok() == header::wrapped_by(after).ok() {
            continue;
        }
        if let Err(error) = header::open(key, before).await {
            let until = Position { epoch, revision: *revision };
            let what = format!("{}: what is before {until} does not open", source.display());
            let mut failure = unopened_header(&what, error);
            failure.errors.splice(..0, failed.into_iter().flat_map(|failed| failed.errors));
            failed = Some(failure);
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn keys_in_files(source: PathBuf) -> Result<Vec<Record>, Failure> {
    let is_directory = source.is_dir();
    let keys = tokio::task::spawn_blocking(move || {
        let mut keys = Vec::new();
        let progress = Progress::new("keys");
        let mut collect = |record: &Record| {
            if Examiner::is_key(record) {
                keys.push(record.clone());
            }
        };
        verify(&source, &mut |done, total| progress.of(done, total), &mut collect).map(|_| keys)
    });
    let keys = keys.await.map_err(|_| Failure::new("the verification ended by itself"))?;
    keys.map_err(|error| failure(error, is_directory))
}

/// All of one revision: servers may go on writing meanwhile.
async fn in_etcd(etcd: &EtcdSetting, key: Option<&dyn KeySource>) -> Result<(), Failure> {
    let name = etcd.place();
    let moment = Etcd::moment(place::options(etcd)?).await.map_err(server::Error::from)?;
    let examiner = match key {
        None => None,
        Some(key) => Some(examiner(&name, key, async || keys_in_etcd(&moment, &name).await).await?),
    };
    let mut wrong = None;
    let records = each(&moment, "verify", &name, |record| {
        if let (None, Some(examiner)) = (&wrong, &examiner) {
            wrong = examiner.check(&record).err();
        }
    });
    let records = records.await?;
    if let Some(wrong) = wrong {
        return Err(Failure::new(format!("{name}: {wrong}")));
    }
    let Said { of, opened } = said(moment.time().time(), key.is_none());
    print::data(&format!("whole: {}{of}, {records} records, {opened}; in {name}\n", moment.position()))
        .map_err(Failure::new)
}

async fn keys_in_etcd(moment: &impl Moment, name: &str) -> Result<Vec<Record>, Failure> {
    let mut keys = Vec::new();
    let collect = |record: Record| {
        if Examiner::is_key(&record) {
            keys.push(record);
        }
    };
    each(moment, "keys", name, collect).await?;
    Ok(keys)
}

/// Gives all records; how many there are.
async fn each(
    moment: &impl Moment,
    what: &'static str,
    name: &str,
    mut each: impl FnMut(Record),
) -> Result<u64, Failure> {
    let progress = Progress::new(what);
    let mut load = moment.load();
    let mut count = 0;
    while let Some(page) = load.page().await.map_err(|error| failure_in_etcd(error, name))? {
        count += page.len() as u64;
        page.into_iter().for_each(&mut each);
        progress.of(count, moment.about());
    }
    Ok(count)
}

/// What opens the records: their keys are read first, because some records stand before them.
async fn examiner(
    source: &str,
    key: &dyn KeySource,
    keys: impl AsyncFnOnce() -> Result<Vec<Record>, Failure>,
) -> Result<Examiner, Failure> {
    let keys = keys().await?;
    let header = keys.iter().find(|record| record.key.as_str() == record::key::HEADER);
    let header =
        header.ok_or_else(|| Failure::new(format!("{source}: there is no header: nothing in it can be opened")))?;
    let keyring = header::open(key, &header.value).await.map_err(|error| unopened_header(source, error))?;
    let mut examiner = Examiner::new(keyring);
    for record in &keys {
        examiner.learn(record).map_err(|error| Failure::new(format!("{source}: {error}")))?;
    }
    examiner.check_keys().map_err(|error| Failure::new(format!("{source}: {error}")))?;
    Ok(examiner)
}

/// The key is another matter than the bytes.
fn unopened_header(source: &str, error: header::Error) -> Failure {
    let failure = Failure::new(format!("{source}: {error}"));
    match error {
        header::Error::Source(error) if error.cause().is_some() => {
            failure.hint("its bytes are whole; whether it opens is known once the key source is well")
        }
        header::Error::Source(_) => failure
            .hint("its bytes are whole; it opens with the key that the store had then, which is not available here"),
        _ => failure,
    }
}

fn tell(verified: &Verified, without_key: bool, what: &str) -> Result<(), Failure> {
    let Verified { position, time, records, snapshots, segments, unfinished_bytes, is_end_known } = *verified;
    let Said { of, opened } = said(time, without_key);
    let parts = match segments {
        0 => "a backup".to_owned(),
        _ => format!("{what}{snapshots} snapshots and {segments} segments of the log"),
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

/// What is said of every source.
struct Said {
    of: String,
    opened: &'static str,
}

fn said(time: Option<SystemTime>, without_key: bool) -> Said {
    let of = time.map_or(String::new(), |time| format!(" of {}", humantime::format_rfc3339_millis(time)));
    Said { of, opened: if without_key { "not opened" } else { "all open" } }
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

fn failure_in_etcd(error: store::Error, name: &str) -> Failure {
    match error {
        store::Error::Failed(what) => Failure::new(format!("{name}: damaged: {what}"))
            .hint("`coffer-server restore` makes a store of the last good backup, below another `etcd.prefix`"),
        error => Failure::from(server::Error::Etcd(etcd::OpenError::Store(error)))
            .hint("verify it again: etcd must answer, and keep what it has, for as long as that takes"),
    }
}
