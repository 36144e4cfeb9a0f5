//! The rules of fields that are not names. Checked after the caller is known to be allowed, all at once.

use coffer_proto::{
    limits,
    name::{Scope, ScopeKind, VariableName},
    reason::Reason,
    value::SecretValue,
};

use super::{Error, Violation};
use crate::record::SharedWith;

/// Collects what is wrong with a request's fields, so that the caller hears all of it at once.
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<Violation>,
    /// Beyond those kept.
    more: usize,
}

impl Fields {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what is wrong.
    pub fn wrong(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.wrong_because(field, message, Reason::FieldInvalid);
    }

    fn wrong_because(&mut self, field: impl Into<String>, message: impl Into<String>, reason: Reason) {
        if self.violations.len() == limits::VIOLATIONS {
            self.more += 1;
        } else {
            self.violations.push(Violation { field: field.into(), message: message.into(), reason });
        }
    }

    /// Takes the good of a result, or adds what is wrong.
    pub fn take<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.wrong(field, error.to_string())).ok()
    }

    /// The name of a new secret.
    pub fn variable(&mut self, field: &str, text: &str) -> Option<VariableName> {
        let name = self.take(field, VariableName::parse(text))?;
        if name.is_reserved() {
            self.wrong_because(
                field,
                "is reserved: a variable of this name would run code, redirect the loader, or be coffer's own",
                Reason::SecretNameReserved,
            );
            return None;
        }
        Some(name)
    }

    /// A value.
    pub fn value(&mut self, field: &str, bytes: Vec<u8>) -> Option<SecretValue> {
        self.take(field, SecretValue::new(bytes))
    }

    /// A description.
    pub fn description(&mut self, field: &str, text: &str) {
        if text.len() > limits::DESCRIPTION_BYTES {
            self.wrong(field, "must be at most 1 KiB");
        }
        // Line breaks are welcome; NUL and escape sequences are nothing a note needs.
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
            self.wrong(field, "must not contain control characters other than line breaks and tabs");
        }
    }

    /// Whether a secret of this scope may be locked.
    pub fn locked(&mut self, field: &str, scope: &Scope, locked: bool) {
        if locked && !scope.kind().has_locks() {
            self.wrong(field, "only secrets of an organization or a project can be locked");
        }
    }

    /// A sharing list: workspaces of the very organization. Answers ids, sorted.
    pub fn sharing(&mut self, field: &str, scope: &Scope, sharing: SharedWith) -> Option<SharedWith> {
        if scope.kind() != ScopeKind::Organization {
            self.wrong(field, "only secrets of an organization are shared");
            return None;
        }
        let SharedWith::Only(names) = sharing else { return Some(SharedWith::All) };
        if names.len() > limits::SHARING_WORKSPACES {
            self.wrong(field, "must list at most 250 workspaces");
            return None;
        }
        let mut ids = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let id = Scope::parse(name)
                .ok()
                .filter(|workspace| workspace.parent().as_ref() == Some(scope))
                .and_then(|workspace| workspace.as_str().rsplit_once('/').map(|(_, id)| id.to_owned()));
            match id {
                Some(id) => ids.push(id),
                None => self.wrong(
                    format!("{field}.workspaces[{at}]"),
                    format!("must be a workspace of this organization: {scope}/workspaces/{{w}}"),
                ),
            }
        }
        ids.sort();
        ids.dedup();
        Some(SharedWith::Only(ids))
    }

    /// A list of hosts. Answers it sorted, in lower case.
    pub fn hosts(&mut self, field: &str, hosts: &[String]) -> Vec<String> {
        if hosts.len() > limits::ALLOWED_HOSTS
            || hosts.iter().map(String::len).sum::<usize>() > limits::ALLOWED_HOSTS_BYTES
        {
            self.wrong(field, "must list at most 100 hosts, of 8 KiB in all");
            return Vec::new();
        }
        for (at, host) in hosts.iter().enumerate() {
            if !is_host(host) {
                self.wrong(
                    format!("{field}[{at}]"),
                    "must be a host name such as api.example.com, or *.example.com, without scheme or port",
                );
            }
        }
        let mut hosts: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// One host, not a pattern.
    pub fn host(&mut self, field: &str, host: &str) {
        if host.starts_with('*') || !is_host(host) {
            self.wrong(field, "must be a host name such as api.example.com, without scheme or port");
        }
    }

    /// Nothing was wrong, or everything that was.
    pub fn finish(self) -> Result<(), Error> {
        if self.violations.is_empty() {
            return Ok(());
        }
        Err(Error::Invalid { violations: self.violations, more: self.more })
    }
}

/// A host name by RFC 1123, 2.1, of at most 253 characters, or one behind `*.`.
fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    (1..=253).contains(&name.len()) && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in ["example.com", "*.example.com", "localhost", "10.0.0.1", "API.example.com", "a-b.c"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "*", "*.", "https://a.com", "a.com:443", "a..b", "-a.com", "a.com.", "a b", "ä.com", "*.*.com"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn sharing_lists_name_workspaces_of_the_same_organization() {
        let organization = Scope::parse("organizations/o").expect("good");
        let only = |names: &[&str]| SharedWith::Only(names.iter().map(|name| (*name).to_owned()).collect());
        let mut fields = Fields::new();
        let ids = fields.sharing(
            "sharing",
            &organization,
            only(&["organizations/o/workspaces/b", "organizations/o/workspaces/a", "organizations/o/workspaces/b"]),
        );
        assert_eq!(ids, Some(SharedWith::Only(vec!["a".into(), "b".into()])));
        assert_eq!(fields.sharing("sharing", &organization, only(&[])), Some(SharedWith::Only(vec![])));
        assert_eq!(fields.finish(), Ok(()));
        for bad in ["organizations/p/workspaces/a", "a", "organizations/o", "organizations/o/workspaces/-"] {
            let mut fields = Fields::new();
            fields.sharing("sharing", &organization, only(&[bad]));
            assert!(fields.finish().is_err(), "{bad}");
        }
        let mut fields = Fields::new();
        fields.sharing("sharing", &Scope::parse("projects/p").expect("good"), SharedWith::All);
        assert!(fields.finish().is_err());
    }
}
