//! Imports.

use coffer_proto::v1::{self, import_result::Action};
use serde::Serialize;

use super::{View, counted};
use crate::print::table::{Table, whole};

/// What was imported, or would be.
#[derive(Serialize)]
pub(crate) struct Imported {
    preview: bool,
    results: Vec<ResultView>,
}

/// What an import would do with a name that exists, if it may do nothing with it.
const CONFLICT: &str = "conflict";

#[derive(Serialize)]
struct ResultView {
    name: String,
    action: &'static str,
}

impl Imported {
    /// What was imported.
    pub(crate) fn done(response: v1::ImportSecretsResponse) -> Self {
        Self::new(response, false, "skipped")
    }

    /// What would be.
    pub(crate) fn preview(response: v1::ImportSecretsResponse) -> Self {
        Self::new(response, true, "skipped")
    }

    /// What would be if names that exist were no conflict: the server was asked to skip them.
    pub(crate) fn preview_of_conflicts(response: v1::ImportSecretsResponse) -> Self {
        Self::new(response, true, CONFLICT)
    }

    fn new(response: v1::ImportSecretsResponse, preview: bool, skipped: &'static str) -> Self {
        let view = |result: v1::ImportResult| {
            let action = match result.action() {
                Action::Created => "created",
                Action::Replaced => "replaced",
                Action::Skipped => skipped,
                Action::Unspecified => "unknown",
            };
            ResultView { name: result.name, action }
        };
        Self { preview, results: response.results.into_iter().map(view).collect() }
    }
}

impl Imported {
    /// How many names are in conflict.
    pub(crate) fn conflicts(&self) -> usize {
        self.count(CONFLICT)
    }

    fn count(&self, action: &str) -> usize {
        self.results.iter().filter(|result| result.action == action).count()
    }
}

impl View for Imported {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["ACTION", "SECRET"].map(whole));
        for result in &self.results {
            table.row([result.action, &result.name]);
        }
        let total = counted(self.results.len() as i64, "secret");
        let [created, replaced, skipped] = ["created", "replaced", "skipped"].map(|action| self.count(action));
        let conflicts = match self.conflicts() {
            0 => String::new(),
            conflicts => format!(", {conflicts} in conflict"),
        };
        let nothing = if self.preview { "; preview: nothing was written" } else { "" };
        let table = table.render(width);
        format!("{table}\n{total}: {created} created, {replaced} replaced, {skipped} skipped{conflicts}{nothing}\n")
    }
}
