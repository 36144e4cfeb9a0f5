//! What is shown: as JSON for programs, with field names that stay, and as tables for people.
//!
//! JSON: one object; snake_case fields, always present, `null` for nothing; times in RFC 3339, UTC.

mod access;
mod declared;
mod environment;
mod health;
mod import;
mod instance;
mod operation;
mod scope;
mod secret;
mod token;

pub(crate) use access::{EffectiveList, GrantList, GrantView, Tested};
pub(crate) use declared::{ManifestList, ReferenceList};
pub(crate) use environment::{Described, Fetched, FetchedVariable};
pub(crate) use health::HealthView;
pub(crate) use import::Imported;
pub(crate) use instance::{EnvironmentChange, InstanceList, InstanceNews};
pub(crate) use operation::{RotationView, SnapshotList, SnapshotView, StatusView};
pub(crate) use scope::{ScopeDeleted, ScopeList};
pub(crate) use secret::{Cloned, SecretDetail, SecretList, Stats};
pub(crate) use token::{Caller, Exchanged, Issued, TokenList};

use coffer_proto::v1::SecretKind;
use serde::Serialize;

/// Shown for an encrypted value.
const MASK: &str = "••••••••";

/// Something to show.
pub(crate) trait View: Serialize {
    /// For people; with the width of the terminal, if it is one.
    fn table(&self, width: Option<usize>) -> String;
}

/// Something that is gone, or other news of one name.
#[derive(Serialize)]
pub(crate) struct Done {
    /// Which.
    pub(crate) name: String,
    /// What happened, in one word.
    pub(crate) result: &'static str,
}

impl View for Done {
    fn table(&self, _: Option<usize>) -> String {
        format!("{} {}\n", self.result, crate::print::escape::text(&self.name))
    }
}

/// A kind this program does not know is told apart from those it does.
fn kind(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Encrypted => "encrypted",
        SecretKind::Plain => "plain",
        SecretKind::Unspecified => "unknown",
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// `1 secret`, `2 secrets`.
fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A table and what it adds up to.
fn listing(table: &str, totals: &str, more: bool) -> String {
    let gap = if table.is_empty() { "" } else { "\n" };
    let more = if more { " shown; there are more" } else { "" };
    format!("{table}{gap}{totals}{more}\n")
}

/// One field a line.
fn fields(lines: &[(&str, String)]) -> String {
    let shown = || lines.iter().filter(|(_, value)| !value.is_empty());
    let widest = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    shown().map(|(name, value)| format!("{name:widest$}  {}\n", crate::print::escape::text(value))).collect()
}

/// `2026-01-31 23:59 UTC by users/ann`
fn when_and_who(time: Option<&str>, who: &str) -> String {
    format!("{} UTC by {who}", crate::print::time::short(time))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Columns that may be cut: nothing that is given to another command.
    const TEXTS: [&str; 2] = ["VALUE", "DESCRIPTION"];

    #[test]
    fn only_texts_are_ever_cut_in_a_table() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/view");
        let mut cut = 0;
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let text = fs::read_to_string(&path).expect("readable");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for column in code.split("cut(\"").skip(1) {
                let column = column.split('"').next().unwrap_or_default();
                assert!(TEXTS.contains(&column), "{}: {column} is cut", path.display());
                cut += 1;
            }
        }
        assert!(cut >= 4, "{cut}");
    }
}
