use super::{InvalidName, Scope, textual};
use crate::limits;

/// The name of a secret within its scope, which is the name of the environment variable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableName(String);

/// `{scope}/secrets/{NAME}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    scope: Scope,
    variable: VariableName,
}

const EMPTY: InvalidName = InvalidName("Secret key is required");
const NAME_RULE: InvalidName = InvalidName(
    "must match ^[A-Z_][A-Z0-9_]*$ (upper-case letters, digits and underscores, not beginning with a digit) and have \
     at most 128 characters",
);
const SECRET_RULE: InvalidName = InvalidName("must be a secret: {scope}/secrets/{NAME}");

/// Variables that run code or redirect the loader or shell, and coffer's own: sh(1) PATH, IFS, CDPATH, PS4;
/// bash(1) BASH_ENV, SHELLOPTS, BASHOPTS, PROMPT_COMMAND, `_`; ld.so(8) LD_*, GLIBC_TUNABLES; iconv(3) GCONV_PATH;
/// dyld(1) DYLD_*.
const RESERVED: [&str; 11] = [
    "PATH",
    "IFS",
    "BASH_ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "CDPATH",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "_",
];
const RESERVED_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "COFFER_"];

/// Whether a variable of this name is refused, at write and again by the injector.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl VariableName {
    /// Reads a name by its grammar. Whether it is reserved is a question of its own: [`is_reserved`].
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let Some(first) = text.bytes().next() else {
            return Err(EMPTY);
        };
        let rest = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if text.len() > limits::SECRET_NAME_BYTES || first.is_ascii_digit() || !text.bytes().all(rest) {
            return Err(NAME_RULE);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// See [`is_reserved`].
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }
}

impl SecretName {
    /// Puts a name together.
    pub fn new(scope: Scope, variable: VariableName) -> Self {
        Self { scope, variable }
    }

    /// Reads a resource name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(SECRET_RULE);
        }
        let (rest, variable) = text.rsplit_once('/').ok_or(SECRET_RULE)?;
        let scope = rest.strip_suffix("/secrets").ok_or(SECRET_RULE)?;
        Ok(Self { scope: Scope::parse(scope)?, variable: VariableName::parse(variable)? })
    }

    /// The scope that owns it.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The name within the scope.
    pub fn variable(&self) -> &VariableName {
        &self.variable
    }
}

textual!(VariableName);

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/secrets/{}", self.scope, self.variable)
    }
}

impl std::fmt::Debug for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_grammar() {
        let longest = "A".repeat(128);
        for good in ["A", "_A", "OPENAI_API_KEY", "X1", longest.as_str()] {
            assert!(VariableName::parse(good).is_ok(), "{good}");
        }
        let too_long = "A".repeat(129);
        for bad in ["a", "1A", "A-B", "A B", "A=B", "Ä", "A\0", "A\n", "API_KEY/", too_long.as_str()] {
            assert_eq!(VariableName::parse(bad), Err(NAME_RULE), "{bad:?}");
        }
        assert_eq!(VariableName::parse("").map_err(|e| e.to_string()), Err("Secret key is required".to_owned()));
    }

    #[test]
    fn reserved_names() {
        for name in ["PATH", "_", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "COFFER_TOKEN", "BASH_ENV", "GCONV_PATH"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["PATHS", "LD", "NODE_OPTIONS", "HTTPS_PROXY", "MY_LD_PRELOAD", "__"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_to_itself_or_an_error(text in "\\PC{0,80}|[a-z]{1,9}/[a-z-]{1,4}/secrets/[A-Z_0-9]{0,5}") {
            if let Ok(name) = SecretName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
