//! `coffer secret import`

use std::path::PathBuf;

use clap::ValueEnum;
use coffer_proto::{
    name::Scope,
    reason::Reason,
    v1::{ImportEntry, ImportSecretsRequest, SecretKind, import_secrets_request::Conflict},
};

use super::sharing::SharingOptions;
use crate::{
    failure::Failure,
    input::{
        file,
        import::{self, Reading, Variable},
        value::to_wire,
        variable_name::Rename,
    },
    print::Report,
    session::Session,
    view::Imported,
};

/// Import many secrets at once: all or none
///
/// Reads a .env file: NAME=value lines, comments, an optional `export`, 'literal' and "escaped" values that may span
/// lines. Nothing is expanded: `$HOME` stays `$HOME`. Or with --format json one object of names and values; whole numbers,
/// true and false are taken as they are written.
#[derive(clap::Args)]
pub(crate) struct Import {
    /// The scope to import into
    #[arg(value_parser = Scope::parse)]
    scope: Scope,
    /// The file; otherwise, and for `-`, stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What the file is
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only show what would happen; sends names, not values. Fails if the import would
    #[arg(long)]
    preview: bool,
    /// Read objects within the JSON object, too: {"db": {"host": …}} is the name db.host, to be renamed
    #[arg(long)]
    nested: bool,
    /// Make names of variables of all names
    #[arg(long, value_enum, value_name = "HOW")]
    rename: Option<Rename>,
    /// What to do with names that exist
    #[arg(long, value_enum, default_value_t)]
    on_conflict: OnConflict,
    /// Readers of the scope may see the values
    #[arg(long)]
    plain: bool,
    /// Leave out names without a value, which are mistakes otherwise
    #[arg(long)]
    skip_empty: bool,
    #[command(flatten)]
    sharing: SharingOptions,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// NAME=value lines
    #[default]
    Dotenv,
    /// One object
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    /// Import nothing
    #[default]
    Fail,
    /// Keep what is there
    Skip,
    /// Give it the new value
    Replace,
}

const CONFLICT_HINT: &str = "--on-conflict skip keeps what exists, --on-conflict replace gives it the new values";

/// Why the import that was previewed would fail, if it would.
fn refusal(conflicts: usize) -> Option<Failure> {
    let what = match conflicts {
        0 => return None,
        1 => "1 name exists".to_owned(),
        _ => format!("{conflicts} names exist"),
    };
    Some(Failure::exists(format!("{what}: nothing would be imported")).hint(CONFLICT_HINT))
}

impl Import {
    pub(super) async fn run(self, session: &Session) -> Result<Report, Failure> {
        let (source, bytes) = match &self.file {
            Some(path) if !file::is_stdin(path) => (path.display().to_string(), file::path(path, import::FILE_BYTES)?),
            _ => ("stdin".to_owned(), file::stdin(import::FILE_BYTES)?),
        };
        let reading = Reading { skip_empty: self.skip_empty, rename: self.rename, nested: self.nested };
        let (variables, notes) = match self.format {
            Format::Dotenv if self.nested => {
                return Err(Failure::usage("--nested is for objects: give --format json"));
            }
            Format::Dotenv => import::dotenv(&source, &bytes, reading)?,
            Format::Json => import::json(&source, &bytes, reading)?,
        };
        let kind = if self.plain { SecretKind::Plain } else { SecretKind::Unspecified };
        let entry = |variable: &Variable| ImportEntry {
            secret_id: variable.name.to_string(),
            value: if self.preview { Vec::new() } else { to_wire(&variable.value) },
            kind: kind.into(),
            description: None,
        };
        let conflict = match self.on_conflict {
            // A refusal would name the first few only; a preview is asked for to see them all.
            OnConflict::Fail if self.preview => Conflict::Skip,
            OnConflict::Fail => Conflict::Fail,
            OnConflict::Skip => Conflict::Skip,
            OnConflict::Replace => Conflict::Replace,
        };
        let request = ImportSecretsRequest {
            parent: self.scope.to_string(),
            entries: variables.iter().map(entry).collect(),
            conflict: conflict.into(),
            validate_only: self.preview,
            sharing: self.sharing.chosen(&self.scope),
        };
        drop(variables);
        let client = session.connect().await?;
        let imported = client
            .call(client.imports().import_secrets(request))
            .await
            .map_err(|error| Failure::from(error).hint_if(Reason::SecretExists, CONFLICT_HINT))?;
        let imported = match (self.preview, self.on_conflict) {
            (false, _) => Imported::done(imported),
            (true, OnConflict::Fail) => Imported::preview_of_conflicts(imported),
            (true, OnConflict::Skip | OnConflict::Replace) => Imported::preview(imported),
        };
        let mut report = session.show(&imported)?;
        report.notes = notes;
        report.failure = refusal(imported.conflicts());
        Ok(report)
    }
}
