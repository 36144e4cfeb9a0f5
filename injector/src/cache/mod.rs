//! `--cache FILE`: the last environment, sealed, for a start while coffer cannot be reached.
//!
//! It is one workload's at one address, no older than `--cache-max-age`, and used only where nobody answered. An
//! answer that denies deletes it: a workload whose rights are gone must not live on.
//!
//! - [`key`]: the key file. [`sealed`]: the format.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use coffer_client::{Code, Error};
use coffer_proto::v1::FetchEnvironmentResponse;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{Args, Exit, Failure, deliver::place, report, settings::Settings};

mod key;
mod sealed;

/// Largest file, in bytes: above it an environment is not kept.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How far in the future an environment may have been stored: clocks are set.
const FUTURE_MAX: Duration = Duration::from_secs(60);
/// Of the file: the owner's.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Where the last environment is kept, and whose it is.
pub(crate) struct Cache {
    path: PathBuf,
    key: key::Key,
    max_age: Duration,
    /// The one workload that it is for.
    workload: String,
    /// The server that it comes from.
    address: String,
}

/// An environment that was kept.
pub(crate) struct Kept {
    /// What the server answered then.
    pub(crate) answer: FetchEnvironmentResponse,
    /// How long ago that was.
    pub(crate) age: Duration,
}

impl Cache {
    /// What the command line says, if it says so. None for a dry run, which has no values.
    ///
    /// The workload must be named: it could not be known whose environment it is while nobody can be asked.
    pub(crate) fn open(args: &Args, settings: &Settings) -> Result<Option<Self>, Failure> {
        // The command line has one only with the other.
        let (Some(path), Some(key_file)) = (&args.delivery.cache, &args.delivery.cache_key_file) else {
            return Ok(None);
        };
        let usage = |problem: String| Failure::new(Exit::Usage, problem);
        let Some(workload) = &settings.workload else {
            return Err(usage(
                "--cache: whose environment it is must be said: --workload or COFFER_WORKLOAD".to_owned(),
            ));
        };
        if path.file_name().is_none() {
            return Err(usage("--cache: must name a file".to_owned()));
        }
        let key = key::read(key_file)
            .map_err(|problem| usage(format!("--cache-key-file {}: {problem}", key_file.display())))?;
        Ok((!args.dry_run).then(|| Self {
            path: path.clone(),
            key,
            max_age: args.delivery.cache_max_age,
            workload: workload.to_string(),
            address: settings.config.addresses.to_string(),
        }))
    }

    /// What to go on with after the server was asked: its answer, which is kept, or what was kept if nobody answered.
    pub(crate) fn settle(
        &self,
        outcome: Result<FetchEnvironmentResponse, Error>,
        now: SystemTime,
    ) -> Result<FetchEnvironmentResponse, Error> {
        let error = match outcome {
            Ok(answer) => {
                self.store(&answer, now);
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error.code() {
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => match self.load(now) {
                Ok(Kept { answer, age }) => {
                    let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                    self.warn(&format!("coffer cannot be reached ({error}); starting with what was kept {age} ago"));
                    return Ok(answer);
                }
                Err(problem) => self.warn(&format!("not used: {problem}")),
            },
            _ => self.heed(&error),
        }
        Err(error)
    }

    /// Keeps an answer. It says so if that does not work; the start goes on.
    pub(crate) fn store(&self, answer: &FetchEnvironmentResponse, now: SystemTime) {
        // One has no variables, one is older than it would be taken for, and an answer to another question is not for this file.
        if answer.unchanged || answer.stale_since.is_some() || answer.workload != self.workload {
            return;
        }
        if let Err(problem) = self.try_store(answer, now) {
            self.warn(&format!("not kept: {problem}"));
        }
    }

    /// What was kept, if it may be used now.
    pub(crate) fn load(&self, now: SystemTime) -> Result<Kept, String> {
        let bytes = self.read().map_err(|error| format!("cannot be read: {error}"))?;
        let (stored, answer) = sealed::open(&self.key, &self.context(), bytes)
            .ok_or("it is damaged, or of another key, workload or address")?;
        // It is bound to the workload; the message inside must agree.
        if answer.workload != self.workload {
            return Err("it is another workload's".to_owned());
        }
        let age = match now.duration_since(stored) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= FUTURE_MAX => Duration::ZERO,
            Err(_) => return Err("it is from the future: a clock was set back".to_owned()),
        };
        if age > self.max_age {
            let [age, max] =
                [age, self.max_age].map(|time| humantime::format_duration(Duration::from_secs(time.as_secs())));
            return Err(format!("it is {age} old, and --cache-max-age is {max}"));
        }
        Ok(Kept { answer, age })
    }

    /// To be told of every error, at the start and later: one by which coffer denies the environment deletes what was
    /// kept.
    pub(crate) fn heed(&self, error: &Error) {
        // A token that cannot be read here says nothing about what it permits.
        let denies = matches!(error.code(), Code::Unauthenticated | Code::PermissionDenied | Code::NotFound);
        if denies && !error.is_local() {
            self.forget();
        }
    }

    /// Deletes what was kept, and says so.
    fn forget(&self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => self.warn("deleted, because coffer denies this workload its environment"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.warn(&format!("coffer denies this workload its environment: delete it; {error}")),
        }
    }

    fn try_store(&self, answer: &FetchEnvironmentResponse, now: SystemTime) -> Result<(), String> {
        let sealed = sealed::seal(&self.key, &self.context(), answer, now)?;
        if sealed.len() > FILE_BYTES_MAX {
            return Err("it would be larger than 4 MiB".to_owned());
        }
        let name: OsString = self.path.file_name().unwrap_or_default().to_owned();
        let directory = place::open_directory(place::parent(&self.path), OFlags::empty());
        let directory = directory.map_err(|error| format!("its directory cannot be opened: {error}"))?;
        if let Some(found) = place::find(&directory, &name).map_err(|error| error.to_string())? {
            place::not_ours(&found).map_or(Ok(()), Err)?;
        }
        place::replace(&directory, &name, &sealed, MODE).map_err(|error| error.to_string())?;
        place::clear(&directory);
        Ok(())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(CWD, &self.path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("is larger than 4 MiB"));
        }
        Ok(bytes)
    }

    fn context(&self) -> [&str; 2] {
        [&self.workload, &self.address]
    }

    fn warn(&self, text: &str) {
        report::line(&format!("warning: --cache {}: {text}", Path::display(&self.path)));
    }
}

/// The time, as everything here takes it.
#[expect(clippy::disallowed_methods, reason = "the one place of the injector that asks for it")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
