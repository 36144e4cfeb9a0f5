use super::{InvalidName, ScopePattern, check_id, textual};

/// What is declared on a scope or pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeclarationKind {
    /// `{pattern}/references/{id}`: something uses secrets.
    Reference,
    /// `{pattern}/manifests/{id}`: workloads expect variables.
    Manifest,
}

/// The name of a reference or manifest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeclarationName {
    text: String,
    pattern: ScopePattern,
    kind: DeclarationKind,
}

const REFERENCE_RULE: InvalidName = InvalidName("must be a reference: {scope or pattern}/references/{id}");
const MANIFEST_RULE: InvalidName = InvalidName("must be a manifest: {scope or pattern}/manifests/{id}");

impl DeclarationKind {
    /// The collection's name.
    pub fn collection(self) -> &'static str {
        match self {
            DeclarationKind::Reference => "references",
            DeclarationKind::Manifest => "manifests",
        }
    }

    fn rule(self) -> InvalidName {
        match self {
            DeclarationKind::Reference => REFERENCE_RULE,
            DeclarationKind::Manifest => MANIFEST_RULE,
        }
    }
}

impl DeclarationName {
    /// Reads a reference's name.
    pub fn parse_reference(text: &str) -> Result<Self, InvalidName> {
        Self::parse_as(text, DeclarationKind::Reference)
    }

    /// Reads a manifest's name.
    pub fn parse_manifest(text: &str) -> Result<Self, InvalidName> {
        Self::parse_as(text, DeclarationKind::Manifest)
    }

    /// Reads either's name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Self::parse_reference(text).or_else(|_| Self::parse_manifest(text))
    }

    fn parse_as(text: &str, kind: DeclarationKind) -> Result<Self, InvalidName> {
        let (rest, id) = text.rsplit_once('/').ok_or(kind.rule())?;
        let (pattern, collection) = rest.rsplit_once('/').ok_or(kind.rule())?;
        if collection != kind.collection() {
            return Err(kind.rule());
        }
        check_id(id)?;
        Ok(Self { pattern: ScopePattern::parse(pattern)?, text: text.to_owned(), kind })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it stands.
    pub fn pattern(&self) -> &ScopePattern {
        &self.pattern
    }

    /// Which of the two it is.
    pub fn kind(&self) -> DeclarationKind {
        self.kind
    }
}

textual!(DeclarationName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_they_stand() {
        let name = DeclarationName::parse_manifest("accounts/-/plugins/github/manifests/github").expect("good");
        assert_eq!(name.pattern().as_str(), "accounts/-/plugins/github");
        assert_eq!(name.kind(), DeclarationKind::Manifest);
        assert_eq!(name.to_string(), "accounts/-/plugins/github/manifests/github");
        assert_eq!(DeclarationName::parse(name.as_str()), Ok(name));
        let name = DeclarationName::parse("projects/p/references/tool.1").expect("good");
        assert_eq!(name.kind(), DeclarationKind::Reference);
    }

    #[test]
    fn refuses_everything_else() {
        for bad in [
            "",
            "references/r",
            "projects/p",
            "projects/p/references/",
            "projects/p/references/-",
            "projects/p/references/R",
            "projects/p/servers/s/references/r",
            "-/references/r",
        ] {
            assert!(DeclarationName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(DeclarationName::parse_reference("projects/p/manifests/m"), Err(REFERENCE_RULE));
        assert_eq!(DeclarationName::parse_manifest("projects/p/references/m"), Err(MANIFEST_RULE));
    }
}
