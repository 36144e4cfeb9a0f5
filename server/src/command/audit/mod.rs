//! `coffer-server audit`: reads the audit log, for people and for those who must be sure of it.

mod filter;
mod joined;
mod show;
mod table;
mod verify;

use std::path::{Path, PathBuf};

use super::{Failure, print};
use crate::{
    audit::files::{self, LogFile},
    config::{AUDIT_FILE_DEFAULT, FileFlag, FromFile},
};

#[derive(Debug, clap::Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say whether lines were edited, deleted, moved or put in, and where; the server may run meanwhile
    #[command(after_help = verify::AFTER_HELP)]
    Verify(verify::Verify),
    /// Show who did what
    Show(show::Show),
}

impl Audit {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Verify(verify) => verify.run().await,
            Command::Show(show) => show.run(),
        }
    }
}

/// Returns the log of a store by flag and configuration file, or else the one in the directory `source`, if it is there.
pub(super) fn audit_log(
    config: &FileFlag,
    flag: Option<&Path>,
    data: Option<&Path>,
    source: &Path,
) -> Result<Option<PathBuf>, Failure> {
    let Some(named) = config.read()?.audit_file(flag, data) else {
        return Ok(Some(source.join(AUDIT_FILE_DEFAULT)).filter(|beside| beside.is_file()));
    };
    // A new machine may have none yet, and a pipe or device keeps nothing.
    if !named.is_file() {
        print::note(&format!(
            "note: audit log {}: is no file to read: the store is not compared with it",
            named.display()
        ));
        return Ok(None);
    }
    Ok(Some(named))
}

/// Which log.
#[derive(Debug, clap::Args)]
struct Log {
    /// Files to read, in any order [default: the audit log with all files that it was rotated to]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Directory of the store
    #[arg(long, value_name = "DIR", env = "COFFER_SERVER_DATA")]
    data: Option<PathBuf>,
    /// Audit log [default: audit.jsonl in the data directory]
    #[arg(long, value_name = "FILE", env = "COFFER_SERVER_AUDIT_FILE")]
    audit_file: Option<PathBuf>,
    #[command(flatten)]
    config: FileFlag,
}

/// What the flags and the configuration file name together.
struct Which {
    /// The directory of the store, if one is named.
    data: Option<PathBuf>,
    /// The log that a server would write; `None` if files were given instead.
    configured: Option<PathBuf>,
    from_file: FromFile,
}

impl Log {
    fn which(&self) -> Result<Which, Failure> {
        let from_file = self.config.read()?;
        let data = from_file.data(self.data.as_deref());
        let audit_file = from_file.audit_file(self.audit_file.as_deref(), data.as_deref());
        let configured = match (audit_file, &data) {
            _ if !self.files.is_empty() => None,
            (Some(file), _) => Some(file),
            (None, Some(data)) => Some(data.join(AUDIT_FILE_DEFAULT)),
            (None, None) => {
                let mistake = "which audit log: --data, --audit-file, --config or FILES".to_owned();
                return Err(Failure::usage(vec![mistake]));
            }
        };
        Ok(Which { data, configured, from_file })
    }

    /// Its files, oldest first.
    fn open(&self, configured: Option<&Path>) -> Result<Vec<LogFile>, Failure> {
        configured.map_or_else(|| files::given(&self.files), files::of_log).map_err(Failure::new)
    }
}
