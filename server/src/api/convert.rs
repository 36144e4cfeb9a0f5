//! Between wire messages and the vault's types.

use coffer_proto::{
    name::{InvalidName, Scope, ScopeKind},
    token::TokenId,
    v1,
};
use tonic::Status;

use super::status;
use crate::{
    record::{Kind, SharedWith},
    vault::{Error, ShownSecret, fields::Fields},
    view::{Grant, TokenEntry},
};

/// A name that must be right before anything can be decided.
pub(super) fn name<T>(field: &str, result: Result<T, InvalidName>) -> Result<T, Status> {
    result.map_err(|error| status::of(Error::name(field, error)))
}

/// A kind, or none given. Unknown numbers are refused, never guessed.
pub(super) fn kind(fields: &mut Fields, field: &str, kind: i32) -> Option<Kind> {
    match v1::SecretKind::try_from(kind) {
        Ok(v1::SecretKind::Unspecified) => None,
        Ok(v1::SecretKind::Encrypted) => Some(Kind::Encrypted),
        Ok(v1::SecretKind::Plain) => Some(Kind::Plain),
        Err(_) => {
            fields.wrong(field, "must be SECRET_KIND_ENCRYPTED or SECRET_KIND_PLAIN");
            None
        }
    }
}

pub(super) fn to_kind(kind: Kind) -> i32 {
    match kind {
        Kind::Encrypted => v1::SecretKind::Encrypted as i32,
        Kind::Plain => v1::SecretKind::Plain as i32,
    }
}

/// Sharing as given. `None` where none was.
pub(super) fn sharing(fields: &mut Fields, scope: &Scope, given: Option<v1::Sharing>) -> Option<SharedWith> {
    let given = given?;
    let sharing = match v1::sharing::Mode::try_from(given.mode) {
        Ok(v1::sharing::Mode::All | v1::sharing::Mode::Unspecified) if given.workspaces.is_empty() => SharedWith::All,
        Ok(v1::sharing::Mode::Only) => SharedWith::Only(given.workspaces),
        Ok(v1::sharing::Mode::All | v1::sharing::Mode::Unspecified) => {
            fields.wrong("sharing.mode", "must be MODE_ONLY where workspaces are listed");
            return None;
        }
        Err(_) => {
            fields.wrong("sharing.mode", "must be MODE_ALL or MODE_ONLY");
            return None;
        }
    };
    fields.sharing("sharing", scope, sharing)
}

fn to_sharing(scope: &Scope, sharing: SharedWith) -> v1::Sharing {
    match sharing {
        SharedWith::All => v1::Sharing { mode: v1::sharing::Mode::All as i32, workspaces: Vec::new() },
        SharedWith::Only(ids) => v1::Sharing {
            mode: v1::sharing::Mode::Only as i32,
            workspaces: ids.iter().map(|id| format!("{scope}/workspaces/{id}")).collect(),
        },
    }
}

/// The sharing of a new secret: all workspaces unless said otherwise, and none outside organizations.
pub(super) fn new_sharing(fields: &mut Fields, scope: &Scope, given: Option<v1::Sharing>) -> Option<SharedWith> {
    let default = (scope.kind() == ScopeKind::Organization).then_some(SharedWith::All);
    sharing(fields, scope, given).or(default)
}

pub(super) fn to_secret(secret: ShownSecret) -> v1::Secret {
    let etag = secret.meta.etag();
    let meta = secret.meta;
    v1::Secret {
        uid: meta.uid.to_string(),
        kind: to_kind(meta.kind),
        description: meta.description,
        hint: meta.hint.0,
        value: secret.value.map(|value| value.expose().as_bytes().to_vec()),
        sharing: meta.sharing.map(|sharing| to_sharing(secret.name.scope(), sharing)),
        locked: meta.locked,
        clonable: meta.clonable,
        allowed_hosts: meta.allowed_hosts,
        allow_in_instructions: meta.allow_in_instructions,
        value_version: signed(meta.version),
        create_time: Some(meta.created.time),
        creator: meta.created.principal,
        update_time: Some(meta.updated.time),
        updater: meta.updated.principal,
        cloned_from: meta.cloned_from,
        etag,
        value_update_time: Some(meta.value_time),
        last_injected_time: at(secret.last_used.injected),
        last_rendered_time: at(secret.last_used.rendered),
        name: secret.name.to_string(),
    }
}

/// A second of soft state; none if never.
pub(super) fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    (seconds > 0).then_some(prost_types::Timestamp { seconds, nanos: 0 })
}

pub(super) fn to_grant(grant: &Grant) -> v1::Grant {
    v1::Grant {
        name: format!("grants/{}", grant.id),
        principal: grant.principal.to_string(),
        permission: grant.permission.to_string(),
        pattern: grant.pattern.clone(),
        create_time: Some(grant.create_time),
        creator: grant.creator.clone(),
    }
}

pub(super) fn to_token(token: &TokenEntry) -> v1::Token {
    let name = |id: &TokenId| format!("tokens/{id}");
    let session = token.start.as_ref().and_then(|start| start.session_id.as_ref());
    v1::Token {
        name: name(&token.id),
        principal: token.principal.to_string(),
        create_time: Some(token.create_time),
        expire_time: Some(token.expire_time),
        issuer: token.issuer.clone(),
        description: token.description.clone(),
        single_use: token.start.is_some(),
        used: token.start.as_ref().is_some_and(|start| !start.nonce_hash.is_empty()),
        session: session.map(name).unwrap_or_default(),
        start: token.start_id.as_ref().map(name).unwrap_or_default(),
    }
}

/// Counts on the wire are signed, as protobuf advises; ours never reach the sign.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
