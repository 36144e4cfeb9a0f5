//! The environment that the workload will see.

use std::{
    collections::BTreeMap,
    ffi::{CString, NulError, OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use coffer_proto::value::SecretValue;
use zeroize::Zeroizing;

use crate::deliver::Assigned;

/// Variables of this prefix are the injector's own and never the workload's.
const OWN_PREFIX: &[u8] = b"COFFER_";

/// The variables this process was started with, byte for byte. No `Debug`: one of them may be the token.
#[derive(Clone)]
pub(crate) struct Inherited(BTreeMap<OsString, OsString>);

/// Variables by name, each once.
pub(crate) struct Environment(BTreeMap<OsString, Value>);

enum Value {
    Inherited(OsString),
    Secret(SecretValue),
}

impl Inherited {
    /// Of two variables of one name the first counts, as for getenv(3).
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut map = BTreeMap::new();
        for (name, value) in variables {
            map.entry(name).or_insert(value);
        }
        Self(map)
    }

    /// This process's own.
    pub(crate) fn of_this_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// A variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }
}

impl Environment {
    /// A secret replaces an inherited variable; with `keep_existing` it is the other way round.
    pub(crate) fn new(inherited: Inherited, secrets: Vec<Assigned>, keep_existing: bool) -> Self {
        let passed_on = inherited.0.into_iter().filter(|(name, _)| !name.as_bytes().starts_with(OWN_PREFIX));
        let mut map: BTreeMap<_, _> = passed_on.map(|(name, value)| (name, Value::Inherited(value))).collect();
        for secret in secrets {
            let name = OsString::from(secret.variable);
            if !keep_existing || !map.contains_key(&name) {
                map.insert(name, Value::Secret(secret.value));
            }
        }
        Self(map)
    }

    /// Every name with the bytes that its `NAME=value` and the NUL after it take.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (&OsStr, usize)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), name.len() + 1 + value.as_bytes().len() + 1))
    }

    /// `NAME=value` as execve(2) takes them. Each is wiped when dropped, which happens only if the exec failed.
    pub(crate) fn into_strings(self) -> Result<Vec<Zeroizing<CString>>, NulError> {
        let mut strings = Vec::with_capacity(self.0.len());
        for (name, value) in self.0 {
            // The exact capacity, so that nothing is copied while it grows and no copy is left behind.
            let mut bytes = Vec::with_capacity(name.len() + 1 + value.as_bytes().len() + 1);
            for part in [name.as_bytes(), b"=", value.as_bytes()] {
                bytes.extend_from_slice(part);
            }
            strings.push(Zeroizing::new(CString::new(bytes)?));
        }
        Ok(strings)
    }
}

impl Value {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Value::Inherited(value) => value.as_bytes(),
            Value::Secret(value) => value.expose().as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
