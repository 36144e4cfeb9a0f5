//! References and manifests.

use coffer_proto::v1;
use serde::Serialize;

use super::{View, counted, listing};
use crate::print::{
    table::{Table, cut, dropped, whole, wraps},
    time::{date, rfc3339},
};

/// What tools use.
#[derive(Serialize)]
pub(crate) struct ReferenceList {
    references: Vec<ReferenceView>,
    more: bool,
}

#[derive(Serialize)]
struct ReferenceView {
    name: String,
    description: String,
    variables: Vec<String>,
    create_time: Option<String>,
    update_time: Option<String>,
    updater: String,
}

/// What workloads expect.
#[derive(Serialize)]
pub(crate) struct ManifestList {
    manifests: Vec<ManifestView>,
    more: bool,
}

#[derive(Serialize)]
struct ManifestView {
    name: String,
    description: String,
    variables: Vec<ExpectedView>,
    create_time: Option<String>,
    update_time: Option<String>,
    updater: String,
}

#[derive(Serialize)]
struct ExpectedView {
    variable: String,
    required: bool,
    description: String,
}

impl ReferenceList {
    pub(crate) fn new(references: Vec<v1::Reference>, more: bool) -> Self {
        let view = |reference: v1::Reference| ReferenceView {
            create_time: rfc3339(reference.create_time.as_ref()),
            update_time: rfc3339(reference.update_time.as_ref()),
            name: reference.name,
            description: reference.description,
            variables: reference.variables,
            updater: reference.updater,
        };
        Self { references: references.into_iter().map(view).collect(), more }
    }
}

impl View for ReferenceList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[whole("REFERENCE"), wraps("USES"), dropped("SET"), cut("DESCRIPTION")]);
        for reference in &self.references {
            table.row([
                &reference.name,
                &reference.variables.join(","),
                date(reference.update_time.as_deref()),
                &reference.description,
            ]);
        }
        listing(&table.render(width), &counted(self.references.len() as i64, "reference"), self.more)
    }
}

impl ManifestList {
    pub(crate) fn new(manifests: Vec<v1::Manifest>, more: bool) -> Self {
        let expected = |variable: v1::ManifestVariable| ExpectedView {
            variable: variable.variable,
            required: variable.required,
            description: variable.description,
        };
        let view = |manifest: v1::Manifest| ManifestView {
            create_time: rfc3339(manifest.create_time.as_ref()),
            update_time: rfc3339(manifest.update_time.as_ref()),
            name: manifest.name,
            description: manifest.description,
            variables: manifest.variables.into_iter().map(expected).collect(),
            updater: manifest.updater,
        };
        Self { manifests: manifests.into_iter().map(view).collect(), more }
    }
}

impl View for ManifestList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[whole("VARIABLE"), whole("REQUIRED"), wraps("DESCRIPTION")]);
        for manifest in &self.manifests {
            let heading = match manifest.description.as_str() {
                "" => manifest.name.clone(),
                description => format!("{}: {description}", manifest.name),
            };
            table.group(&heading);
            for expected in &manifest.variables {
                let required = if expected.required { "yes" } else { "no" };
                table.row([&expected.variable, required, &expected.description]);
            }
        }
        listing(&table.render(width), &counted(self.manifests.len() as i64, "manifest"), self.more)
    }
}
