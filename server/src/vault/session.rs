//! Exchanges a start token for a session token: once, with a safe retry.
//!
//! The session token is made from the store's digest key, the start token's id and the caller's nonce, so that it can be
//! made again for a caller whose answer was lost, and yet only its hash is stored. That a start token works once rests on
//! its record: the exchange compares and rewrites it.

use std::{sync::Arc, time::Duration};

use coffer_proto::{
    limits,
    token::{Token, TokenId, TokenKind},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    Call, Error, IssuedToken, Vault,
    call::named,
    tokens::has_ended,
    write::{Context, Plan},
};
use crate::{
    access,
    record::{TokenRecord, TokenSecretHash, key},
    seal::digest::DigestKey,
    store::{Expect, Revision},
    view::{At, TokenEntry},
};

/// Names what the digest key is used for here.
const PURPOSE: &str = "session token 1";

impl Vault {
    /// The session of the start token that the call presents.
    pub async fn exchange_start_token(&self, call: &Call, nonce: Vec<u8>) -> Result<IssuedToken, Error> {
        let nonce = Arc::new(Zeroizing::new(nonce));
        let line = call.credential.as_ref().map_or_else(|_| String::new(), |c| format!("tokens/{}", c.token()));
        let result = self.write(call, &line, Vec::new(), move |context| plan(context, &nonce)).await;
        if result.as_ref().is_err_and(|error| *error == Error::StartTokenUsed) {
            self.flag_replay(call);
        }
        result
    }

    /// A copy of a start token is in other hands: whoever looks after the workload must hear of it.
    fn flag_replay(&self, call: &Call) {
        let Ok(credential) = &call.credential else { return };
        let workload = {
            let state = self.0.view.read();
            state.token(credential.token()).and_then(|token| token.principal.as_workload().cloned())
        };
        tracing::warn!(token = %credential.token(), "a used start token was presented again");
        if let Some(workload) = workload {
            self.replayed(&workload);
        }
    }
}

fn plan(context: &Context<'_>, nonce: &[u8]) -> Result<Plan<IssuedToken>, Error> {
    let (state, caller) = (context.state, context.caller);
    let entry = state.token(caller.token()).ok_or(Error::Denied)?;
    let start = entry
        .start
        .as_ref()
        .ok_or_else(|| Error::field("authorization", "must be a start token; the one presented is good as it is"))?;
    if !(limits::NONCE_BYTES_MIN..=limits::NONCE_BYTES_MAX).contains(&nonce.len()) {
        return Err(Error::field("nonce", "must be 16 to 64 random bytes"));
    }
    let digest = state.digest_key().ok_or_else(|| Error::Internal("no digest key is loaded".into()))?;
    let token = session(digest, &entry.id, nonce);
    let nonce_hash = Sha256::digest(nonce).to_vec();
    let mut plan = Plan::new(&access::permit_self(caller), ());
    plan.subjects = vec![named(format!("tokens/{}", token.id()))];
    plan.details = vec![("bearer", entry.principal.to_string())];
    if !start.nonce_hash.is_empty() {
        let again = bool::from(start.nonce_hash.ct_eq(&nonce_hash)).then(|| state.token(token.id())).flatten();
        let session = again.filter(|session| !has_ended(state, session, context.now)).ok_or(Error::StartTokenUsed)?;
        return Ok(plan.with_answer(IssuedToken { token, entry: session.clone() }));
    }
    plan.leads_to_values = true;
    let ttl = Duration::from_secs(start.session_ttl_seconds);
    let scope_uid = entry.scope_uid.map(|uid| uid.0.to_vec()).unwrap_or_default();
    let stored = TokenRecord {
        id: token.id().to_string(),
        hash: TokenSecretHash::of(&token).to_stored(),
        principal: entry.principal.to_string(),
        scope_uid: scope_uid.clone(),
        create_time: Some(context.timestamp()),
        expire_time: Some((context.now + ttl).into()),
        issuer: entry.issuer.clone(),
        description: entry.description.clone(),
        by_operator: false,
        session_ttl_seconds: 0,
        nonce_hash: Vec::new(),
        session_id: String::new(),
        start_id: entry.id.to_string(),
        epoch: state.position().epoch.0,
    };
    let used = TokenRecord {
        id: entry.id.to_string(),
        hash: entry.hash.clone(),
        principal: entry.principal.to_string(),
        scope_uid,
        create_time: Some(entry.create_time),
        expire_time: Some(entry.expire_time),
        issuer: entry.issuer.clone(),
        description: entry.description.clone(),
        by_operator: entry.by_operator,
        session_ttl_seconds: start.session_ttl_seconds,
        nonce_hash,
        session_id: token.id().to_string(),
        start_id: String::new(),
        epoch: entry.epoch.0,
    };
    // The permit rests on the start token's record as it is: of several exchanges at once, one commits.
    plan.put_system(state, entry.at.key.clone(), &used)?;
    let record_key = key::token(&entry.principal, token.id());
    plan.expect(record_key.clone(), Expect::Absent);
    plan.put_system(state, record_key.clone(), &stored)?;
    plan.check_memory(context)?;
    let session = TokenEntry {
        id: token.id().clone(),
        hash: stored.hash,
        principal: entry.principal.clone(),
        scope_uid: entry.scope_uid,
        create_time: context.timestamp(),
        expire_time: (context.now + ttl).into(),
        issuer: stored.issuer,
        by_operator: false,
        description: stored.description,
        epoch: state.position().epoch,
        start: None,
        start_id: Some(entry.id.clone()),
        at: At { key: record_key, revision: Revision::default() },
    };
    Ok(plan.with_answer(IssuedToken { token, entry: Arc::new(session) }))
}

/// The token that this start and nonce make.
fn session(key: &DigestKey, start: &TokenId, nonce: &[u8]) -> Token {
    let mut block = 0_u32;
    Token::of_bytes(TokenKind::Workload, |bytes| {
        for chunk in bytes.chunks_mut(32) {
            let mut digest = key.begin(PURPOSE);
            digest.part(start.as_str().as_bytes());
            digest.part(nonce);
            digest.part(&block.to_be_bytes());
            let made = Zeroizing::new(digest.finish_bytes());
            chunk.copy_from_slice(&made[..chunk.len()]);
            block += 1;
        }
    })
}
