//! Who calls: from a presented credential to a [`Caller`], by what the view holds.

use std::time::SystemTime;

use coffer_proto::{
    name::Principal,
    token::{Token, TokenId},
};

use crate::{
    record::TokenSecretHash,
    view::{At, State},
};

/// A presented bearer token, reduced to what comparing it needs.
#[derive(Clone)]
pub struct Credential {
    id: TokenId,
    hash: TokenSecretHash,
}

/// Somebody who proved who they are.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    token: TokenId,
    by_operator: bool,
    issued: prost_types::Timestamp,
    expires: prost_types::Timestamp,
    is_start: bool,
    at: At,
}

/// Why nobody is known to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing was presented.
    Missing,
    /// What was presented is malformed, unknown, revoked, of a deleted scope, or of before a restore.
    Invalid,
    /// It was right but has ended.
    Expired,
}

impl Credential {
    /// Reads the value of an `authorization` header: `Bearer cof_…`.
    pub fn from_header(header: Option<&[u8]>) -> Result<Self, Error> {
        let text = std::str::from_utf8(header.ok_or(Error::Missing)?).map_err(|_| Error::Invalid)?;
        // The scheme's case does not matter (RFC 9110, 11.1).
        let (scheme, token) = text.split_once(' ').ok_or(Error::Invalid)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Error::Invalid);
        }
        let token = Token::parse(token.trim()).map_err(|_| Error::Invalid)?;
        Ok(Self { id: token.id().clone(), hash: TokenSecretHash::of(&token) })
    }

    /// The public part, for the audit log. Nothing is proved by it.
    pub fn token(&self) -> &TokenId {
        &self.id
    }
}

impl Caller {
    /// Who.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Which token proved it.
    pub fn token(&self) -> &TokenId {
        &self.token
    }

    /// Whether an operator issued the token.
    pub fn by_operator(&self) -> bool {
        self.by_operator
    }

    /// When the token was issued.
    pub fn issued(&self) -> prost_types::Timestamp {
        self.issued
    }

    /// When the token ends.
    pub fn expires(&self) -> prost_types::Timestamp {
        self.expires
    }

    /// Whether the token is a start token, which permits nothing but its exchange.
    pub fn is_start(&self) -> bool {
        self.is_start
    }

    /// The token's record, which every write of this caller compares, so that a revoked token writes nothing more.
    pub fn at(&self) -> &At {
        &self.at
    }
}

/// Who presents this credential now.
pub fn authenticate(state: &State, credential: &Credential, now: SystemTime) -> Result<Caller, Error> {
    let entry = state.token(&credential.id).ok_or(Error::Invalid)?;
    if !credential.hash.matches(&entry.hash) {
        return Err(Error::Invalid);
    }
    // It was issued before a restore: whether it was consumed or revoked since, nobody knows any more.
    if !state.is_of_now(entry) {
        return Err(Error::Invalid);
    }
    if SystemTime::try_from(entry.expire_time).map_or(true, |end| end <= now) {
        return Err(Error::Expired);
    }
    // A workload's token dies with the incarnation of its scope.
    if let Principal::Workload(workload) = &entry.principal {
        let scope = state.scope(workload.scope()).ok_or(Error::Invalid)?;
        if entry.scope_uid != Some(scope.uid) {
            return Err(Error::Invalid);
        }
    }
    Ok(Caller {
        principal: entry.principal.clone(),
        token: entry.id.clone(),
        by_operator: entry.by_operator,
        issued: entry.create_time,
        expires: entry.expire_time,
        is_start: entry.start.is_some(),
        at: entry.at.clone(),
    })
}

#[cfg(test)]
mod tests {
    use coffer_proto::token::TokenKind;

    use super::*;

    #[test]
    fn reads_bearer_headers_only() {
        let token = Token::generate(TokenKind::User);
        let header = |text: String| Credential::from_header(Some(text.as_bytes())).map(|credential| credential.id);
        assert_eq!(header(format!("Bearer {}", token.expose())), Ok(token.id().clone()));
        assert_eq!(header(format!("bearer  {} ", token.expose())), Ok(token.id().clone()));
        assert_eq!(header(token.expose().to_owned()), Err(Error::Invalid));
        assert_eq!(header(format!("Basic {}", token.expose())), Err(Error::Invalid));
        assert_eq!(header(format!("Bearer {}x", token.expose())), Err(Error::Invalid));
        assert_eq!(Credential::from_header(Some(b"Bearer \xff")).err(), Some(Error::Invalid));
        assert_eq!(Credential::from_header(None).err(), Some(Error::Missing));
    }
}
