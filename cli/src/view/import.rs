//! Imports.

use coffer_proto::v1::{self, import_result::Action};
use serde::Serialize;

use super::{View, counted};
use crate::print::table::Table;

/// What was imported, or would be.
#[derive(Serialize)]
pub(crate) struct Imported {
    preview: bool,
    results: Vec<ResultView>,
}

#[derive(Serialize)]
struct ResultView {
    name: String,
    action: &'static str,
}

impl Imported {
    pub(crate) fn new(response: v1::ImportSecretsResponse, preview: bool) -> Self {
        let view = |result: v1::ImportResult| {
            let action = match result.action() {
                Action::Created => "created",
                Action::Replaced => "replaced",
                Action::Skipped => "skipped",
                Action::Unspecified => "unknown",
            };
            ResultView { name: result.name, action }
        };
        Self { preview, results: response.results.into_iter().map(view).collect() }
    }
}

impl View for Imported {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&["ACTION", "SECRET"]);
        for result in &self.results {
            table.row([result.action, &result.name]);
        }
        let count = |action: &str| self.results.iter().filter(|result| result.action == action).count();
        let total = counted(self.results.len() as i64, "secret");
        let [created, replaced, skipped] = ["created", "replaced", "skipped"].map(count);
        let nothing = if self.preview { "; preview: nothing was written" } else { "" };
        let table = table.render(width);
        format!("{table}\n{total}: {created} created, {replaced} replaced, {skipped} skipped{nothing}\n")
    }
}
