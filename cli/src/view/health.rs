//! What a scope's owner should look at.

use coffer_proto::v1;
use serde::Serialize;

use super::{View, counted};
use crate::print::{
    table::{Table, cut, dropped, whole},
    time::{date, rfc3339},
};

/// Missing, unused and stale, in one view.
#[derive(Serialize)]
pub(crate) struct HealthView {
    scope: String,
    secret_count: i64,
    missing_count: i64,
    missing: Vec<Missing>,
    unused: Vec<Aged>,
    stale: Vec<Aged>,
    #[serde(skip)]
    stale_days: i32,
    #[serde(skip)]
    unused_days: i32,
}

#[derive(Serialize)]
struct Missing {
    variable: String,
    declared_by: String,
    description: String,
}

#[derive(Serialize)]
struct Aged {
    name: String,
    time: Option<String>,
}

impl HealthView {
    pub(crate) fn new(scope: String, health: v1::ScopeHealth, stale_days: i32, unused_days: i32) -> Self {
        let missing = |missing: v1::MissingVariable| Missing {
            variable: missing.variable,
            declared_by: missing.declared_by,
            description: missing.description,
        };
        let aged = |aged: v1::AgedSecret| Aged { time: rfc3339(aged.time.as_ref()), name: aged.name };
        Self {
            scope,
            secret_count: health.secret_count,
            missing_count: health.missing_count,
            missing: health.missing.into_iter().map(missing).collect(),
            unused: health.unused.into_iter().map(aged).collect(),
            stale: health.stale.into_iter().map(aged).collect(),
            stale_days,
            unused_days,
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.missing_count == 0 && self.missing.is_empty() && self.unused.is_empty() && self.stale.is_empty()
    }
}

impl View for HealthView {
    fn table(&self, width: Option<usize>) -> String {
        let mut table =
            Table::new(&[whole("NAME"), whole("PROBLEM"), dropped("SINCE"), whole("SAID BY"), cut("DESCRIPTION")]);
        for missing in &self.missing {
            table.row([&missing.variable, "missing", "", &missing.declared_by, &missing.description]);
        }
        let variable = |aged: &Aged| aged.name.rsplit('/').next().unwrap_or_default().to_owned();
        for aged in &self.unused {
            let since = aged.time.as_deref().map_or("never used".to_owned(), |time| date(Some(time)).to_owned());
            table.row([&variable(aged), &format!("unused for {} days", self.unused_days), &since, "", ""]);
        }
        for aged in &self.stale {
            let since = date(aged.time.as_deref()).to_owned();
            table.row([&variable(aged), &format!("older than {} days", self.stale_days), &since, "", ""]);
        }
        let text = table.render(width);
        let gap = if text.is_empty() { "" } else { "\n" };
        format!(
            "{text}{gap}{}: {}, {} missing, {} unused, {} stale\n",
            crate::print::escape::text(&self.scope),
            counted(self.secret_count, "secret"),
            self.missing_count,
            self.unused.len(),
            self.stale.len()
        )
    }
}
