//! Issues, lists and revokes tokens.

use std::{sync::Arc, time::Duration};

use coffer_proto::{
    limits,
    name::Principal,
    token::{Token, TokenId, TokenKind},
};

use super::{
    Call, Error, Page, PageRequest, Vault,
    call::named,
    fields::Fields,
    read::Answer,
    write::{Plan, line_of},
};
use crate::{
    access::{self, Span},
    record::{TokenRecord, TokenSecretHash, key},
    store::{Expect, Revision},
    view::{At, StartToken, State, TokenEntry},
};

/// Shortest validity of a token.
const SHORTEST: Duration = Duration::from_secs(1);
/// About how large a token is in an answer.
const SHOWN_BYTES: usize = 500;

/// A token to issue, its fields checked.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// How long it is valid; none means the default.
    pub ttl: Option<Duration>,
    /// What it is for.
    pub description: String,
    /// A start token, and how long its session will be valid.
    pub start: Option<Duration>,
}

/// A new token. The only time it is shown.
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// What is known of it.
    pub entry: Arc<TokenEntry>,
}

impl Vault {
    /// Issues a token.
    pub async fn issue_token(
        &self,
        call: &Call,
        principal: Principal,
        fields: Result<NewToken, Error>,
    ) -> Result<IssuedToken, Error> {
        // A workload's first token may make its scope.
        let line = principal.as_workload().map_or_else(|| principal.to_string(), |w| line_of(w.scope()));
        self.write(call, &line, vec![principal.to_string()], move |context| {
            let permit = access::permit_token(context.state, context.caller, &principal).ok_or(Error::Denied)?;
            let new = fields.clone()?;
            let ttl = ttl(&principal, &new)?;
            let prefix = key::tokens_of(&principal);
            let live = context.state.tokens_from(prefix.as_str(), "");
            let live = live.filter(|(_, token)| !has_ended(context.state, token, context.now));
            if live.count() >= limits::PRINCIPAL_TOKENS {
                return Err(Error::TooMany("at most 1,000 unexpired tokens of one principal"));
            }
            let mut plan = Plan::new(&permit, ());
            let scope_uid = match &principal {
                Principal::Workload(workload) => Some(plan.write_scope(context, workload.scope())?.uid),
                Principal::User(_) | Principal::Service(_) => None,
            };
            let kind = if new.start.is_some() { TokenKind::Start } else { token_kind(&principal) };
            let token = Token::generate(kind);
            let by_operator = access::permit_operator(context.state, context.caller).is_some();
            let stored = TokenRecord {
                id: token.id().to_string(),
                hash: TokenSecretHash::of(&token).to_stored(),
                principal: principal.to_string(),
                scope_uid: scope_uid.map(|uid| uid.0.to_vec()).unwrap_or_default(),
                create_time: Some(context.timestamp()),
                expire_time: Some((context.now + ttl).into()),
                issuer: context.caller.principal().to_string(),
                description: new.description,
                by_operator,
                session_ttl_seconds: new.start.map_or(0, |ttl| ttl.as_secs()),
                nonce_hash: Vec::new(),
                session_id: String::new(),
                start_id: String::new(),
                epoch: context.state.position().epoch.0,
            };
            let record_key = key::token(&principal, token.id());
            plan.expect(record_key.clone(), Expect::Absent);
            plan.put_system(context.state, record_key.clone(), &stored)?;
            // Workloads are without number; the last of the memory is for people and services to sign in.
            match principal {
                Principal::Workload(_) => plan.check_memory(context)?,
                Principal::User(_) | Principal::Service(_) => plan.check_last_memory(context)?,
            }
            plan.subjects = vec![named(format!("tokens/{}", token.id()))];
            plan.details = vec![("bearer", principal.to_string()), ("ttl_seconds", ttl.as_secs().to_string())];
            let mut grants = context.state.grants_of(&principal);
            plan.leads_to_values =
                principal.as_workload().is_some() || grants.any(|grant| grant.permission.leads_to_values());
            let entry = TokenEntry {
                id: token.id().clone(),
                hash: stored.hash,
                principal: principal.clone(),
                scope_uid,
                create_time: context.timestamp(),
                expire_time: (context.now + ttl).into(),
                issuer: stored.issuer,
                by_operator,
                description: stored.description,
                epoch: context.state.position().epoch,
                start: new.start.map(|ttl| StartToken {
                    session_ttl_seconds: ttl.as_secs(),
                    nonce_hash: Vec::new(),
                    session_id: None,
                }),
                start_id: None,
                at: At { key: record_key, revision: Revision::default() },
            };
            Ok(plan.with_answer(IssuedToken { token, entry: Arc::new(entry) }))
        })
        .await
    }

    /// A page of the tokens that the caller may revoke.
    pub async fn list_tokens(
        &self,
        call: &Call,
        principal: Option<Principal>,
        page: Result<PageRequest, Error>,
    ) -> Result<Page<Arc<TokenEntry>>, Error> {
        let now = self.now();
        let names = principal.iter().map(ToString::to_string).collect();
        self.read(call, names, |state, caller| {
            let page = page?.open(state, caller)?;
            let named = principal.as_ref().map_or_else(|| "token/".to_owned(), |p| key::tokens_of(p).as_str().into());
            let spans = access::within(access::revocable_tokens(state, caller), &Span::prefix(named));
            let tokens = spans.iter().flat_map(|span| state.tokens_from(span.text(), page.after()));
            let wanted = |token: &TokenEntry| {
                !has_ended(state, token, now) && access::permit_revoke(state, caller, &token.principal).is_some()
            };
            let page = page
                .scan(tokens.map(|(key, token)| {
                    (key.as_str().to_owned(), wanted(token).then(|| (SHOWN_BYTES, token.clone())))
                }))?;
            Ok(Answer::new(&access::permit_self(caller), page))
        })
        .await
    }

    /// Revokes a token, and with a start token the session that it was exchanged for. A pure delete: it passes when the
    /// disk is full.
    pub async fn revoke_token(&self, call: &Call, id: TokenId) -> Result<(), Error> {
        self.write(call, &format!("tokens/{id}"), vec![format!("tokens/{id}")], move |context| {
            let Some(token) = context.state.token(&id) else {
                let operator = access::permit_operator(context.state, context.caller);
                return Err(if operator.is_some() { Error::TokenNotFound } else { Error::Denied });
            };
            let permit = access::permit_revoke(context.state, context.caller, &token.principal).ok_or(Error::Denied)?;
            let mut plan = Plan::new(&permit, ());
            plan.subjects = vec![named(format!("tokens/{id}"))];
            plan.details = vec![("bearer", token.principal.to_string())];
            plan.expect(token.at.key.clone(), Expect::At(token.at.revision));
            plan.delete(token.at.key.clone());
            let session = token.start.as_ref().and_then(|start| start.session_id.as_ref());
            if let Some(session) = session.and_then(|session| context.state.token(session)) {
                plan.subjects.push(named(format!("tokens/{}", session.id)));
                plan.expect(session.at.key.clone(), Expect::At(session.at.revision));
                plan.delete(session.at.key.clone());
            }
            Ok(plan)
        })
        .await
    }
}

pub(super) fn token_kind(principal: &Principal) -> TokenKind {
    match principal {
        Principal::User(_) => TokenKind::User,
        Principal::Service(_) => TokenKind::Service,
        Principal::Workload(_) => TokenKind::Workload,
    }
}

/// Whether a token lets nobody in any more: it has expired, or the store was restored since.
pub(super) fn has_ended(state: &State, token: &TokenEntry, now: std::time::SystemTime) -> bool {
    !state.is_of_now(token) || std::time::SystemTime::try_from(token.expire_time).map_or(true, |end| end <= now)
}

/// The validity asked for, within what this kind of principal may have.
fn ttl(principal: &Principal, new: &NewToken) -> Result<Duration, Error> {
    if let Some(session) = new.start {
        let mut fields = Fields::new();
        if principal.as_workload().is_none() {
            fields.wrong("single_use", "only workloads have start tokens");
        }
        if !(SHORTEST..=limits::WORKLOAD_TOKEN_TTL_MAX).contains(&session) {
            fields.wrong("session_ttl", "must be 1 second to 30 days");
        }
        if new.ttl.is_some_and(|ttl| !(SHORTEST..=limits::START_TOKEN_TTL_MAX).contains(&ttl)) {
            fields.wrong("ttl", "must be 1 second to 24 hours for a start token");
        }
        return fields.finish().map(|()| new.ttl.unwrap_or(limits::START_TOKEN_TTL_DEFAULT));
    }
    let (default, most, text) = match principal {
        Principal::User(_) => (limits::TOKEN_TTL_DEFAULT, limits::TOKEN_TTL_MAX, "must be 1 second to 366 days"),
        Principal::Service(_) => {
            (limits::SERVICE_TOKEN_TTL_DEFAULT, limits::TOKEN_TTL_MAX, "must be 1 second to 366 days")
        }
        Principal::Workload(_) => {
            (limits::TOKEN_TTL_DEFAULT, limits::WORKLOAD_TOKEN_TTL_MAX, "must be 1 second to 30 days for a workload")
        }
    };
    let ttl = new.ttl.unwrap_or(default);
    if (SHORTEST..=most).contains(&ttl) { Ok(ttl) } else { Err(Error::field("ttl", text)) }
}
