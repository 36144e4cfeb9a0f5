//! Resource names (AIP-122), as types that exist only when valid: parse, then trust.
//!
//! The text of a name is its identity: parsing is strict, so two names are one exactly when their texts are.

mod declaration;
mod permission;
mod principal;
mod scope;
mod secret;
mod workload;

use std::fmt;

use crate::limits;

pub use declaration::{DeclarationKind, DeclarationName};
pub use permission::Permission;
pub use principal::{Principal, PrincipalPattern};
pub use scope::{Scope, ScopeKind, ScopePattern};
pub use secret::{SecretName, VariableName, is_reserved};
pub use workload::{ResourcePattern, Workload, WorkloadKind};

/// "All" in an id's place (AIP-159).
pub const WILDCARD: &str = "-";

/// What is wrong with a name, in words for its writer. Never repeats the name: it could hold a pasted value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName(&'static str);

impl InvalidName {
    /// The words.
    pub fn message(&self) -> &'static str {
        self.0
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidName {}

const ID_RULE: InvalidName =
    InvalidName("ids must be 1 to 63 characters of a-z, 0-9, `.`, `_`, `-`, and begin and end with a letter or digit");

/// Checks an id: `[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?`.
fn check_id(id: &str) -> Result<(), InvalidName> {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = id.as_bytes();
    let inner = |b: &u8| alnum(*b) || matches!(b, b'.' | b'_' | b'-');
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last))
            if bytes.len() <= limits::ID_BYTES && alnum(*first) && alnum(*last) && bytes.iter().all(inner) =>
        {
            Ok(())
        }
        _ => Err(ID_RULE),
    }
}

/// Gives a name type its text: Display, Debug, AsRef and FromStr.
macro_rules! textual {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::name::InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }
    };
}
use textual;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_their_rule() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "a-b", "a.b_c-d", "550e8400-e29b-41d4-a716-446655440000", longest.as_str()] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in ["", "-", "A", "a-", "-a", ".", "..", "a/b", "ä", "a b", "a\n", too_long.as_str()] {
            assert_eq!(check_id(bad), Err(ID_RULE), "{bad:?}");
        }
    }
}
