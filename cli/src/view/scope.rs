//! Scopes.

use coffer_proto::v1;
use serde::Serialize;

use super::{View, counted, listing};
use crate::print::{
    escape,
    table::{Table, dropped, whole, wraps},
    time::{rfc3339, short},
};

/// Scopes the caller may read.
#[derive(Serialize)]
pub(crate) struct ScopeList {
    scopes: Vec<ScopeView>,
    more: bool,
}

#[derive(Serialize)]
struct ScopeView {
    name: String,
    uid: String,
    secret_count: i64,
    value_bytes: i64,
    create_time: Option<String>,
    permissions: Vec<String>,
}

/// A scope that is gone.
#[derive(Serialize)]
pub(crate) struct ScopeDeleted {
    /// Which.
    pub(crate) name: String,
    /// With how many secrets.
    pub(crate) secrets_deleted: i64,
}

impl ScopeList {
    pub(crate) fn new(scopes: Vec<v1::Scope>, more: bool) -> Self {
        let view = |scope: v1::Scope| ScopeView {
            name: scope.name,
            uid: scope.uid,
            secret_count: scope.secret_count,
            value_bytes: scope.value_bytes,
            create_time: rfc3339(scope.create_time.as_ref()),
            permissions: scope.permissions,
        };
        Self { scopes: scopes.into_iter().map(view).collect(), more }
    }
}

impl View for ScopeList {
    fn table(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            whole("SCOPE"),
            whole("SECRETS"),
            dropped("BYTES"),
            dropped("CREATED (UTC)"),
            wraps("YOU MAY"),
        ]);
        for scope in &self.scopes {
            table.row([
                &scope.name,
                &scope.secret_count.to_string(),
                &scope.value_bytes.to_string(),
                &short(scope.create_time.as_deref()),
                &scope.permissions.join(","),
            ]);
        }
        listing(&table.render(width), &counted(self.scopes.len() as i64, "scope"), self.more)
    }
}

impl View for ScopeDeleted {
    fn table(&self, _: Option<usize>) -> String {
        format!("deleted {} with {}\n", escape::text(&self.name), counted(self.secrets_deleted, "secret"))
    }
}
