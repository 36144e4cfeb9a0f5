//! Reading errors as a program would: code, reason, fields.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A refused call, in the parts that programs compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Refusal {
    pub(crate) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
        assert_eq!(info.domain, "coffer");
        let fields = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            message: status.message().to_owned(),
            fields: fields.iter().map(|f| (f.field.clone(), f.description.clone())).collect(),
        }
    }

    /// Code and reason, for the many comparisons that need no more.
    pub(crate) fn why(&self) -> (Code, &str) {
        (self.code, &self.reason)
    }

    pub(crate) fn field(&self) -> &str {
        self.fields.first().map_or("", |(field, _)| field)
    }
}

/// The refusal of a call that must not succeed.
pub(crate) fn refused<T>(result: Result<T, Status>) -> Refusal {
    match result {
        Ok(_) => panic!("the call succeeded and should have been refused"),
        Err(status) => Refusal::of(&status),
    }
}
