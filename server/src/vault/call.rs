//! One call, as the vault and the audit log know it.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use coffer_proto::name::Principal;

use super::{Error, Vault, refusals::Refused};
use crate::{
    audit::{Event, Phase, Subject},
    identity::{self, Caller, Credential},
    seal,
    view::State,
};

/// What the audit log says when a start token comes back.
const REPLAYED: &str = "a used start token was presented again";
/// The one method that a start token permits.
const EXCHANGE: &str = "coffer.v1.Tokens/ExchangeStartToken";

/// A call being served.
#[derive(Clone)]
pub struct Call {
    pub(super) id: [u8; 16],
    pub(super) method: &'static str,
    pub(super) peer: Option<String>,
    pub(super) credential: Result<Credential, identity::Error>,
    /// Nothing stale is of use to the caller.
    pub(super) refuses_stale: bool,
    stale: Arc<OnceLock<SystemTime>>,
}

/// What one line of the audit log says beyond the call itself.
#[derive(Clone, Default)]
pub(super) struct Line {
    pub principal: Option<Principal>,
    pub subjects: Vec<Subject>,
    pub reason: Option<&'static str>,
    pub details: Vec<(&'static str, String)>,
    pub leads_to_values: bool,
    pub values_leave: bool,
    pub position: Option<String>,
}

impl Call {
    /// A call of a method, from a peer, with the value of its `authorization` header.
    pub fn new(method: &'static str, peer: Option<String>, authorization: Option<&[u8]>) -> Result<Self, Error> {
        Ok(Self {
            id: seal::random()?,
            method,
            peer,
            credential: Credential::from_header(authorization),
            refuses_stale: false,
            stale: Arc::default(),
        })
    }

    /// What the server does by itself, for the audit log. Nobody calls.
    pub(super) fn of_server(method: &'static str) -> Result<Self, seal::NoRandomness> {
        Ok(Self {
            id: seal::random()?,
            method,
            peer: None,
            credential: Err(identity::Error::Missing),
            refuses_stale: false,
            stale: Arc::default(),
        })
    }

    /// The same call of somebody who asks another server rather than take something stale.
    pub fn refusing_stale(self) -> Self {
        Self { refuses_stale: true, ..self }
    }

    /// Since when nobody knows whether what this call is answered with is still so; none if it is of now.
    pub fn stale_since(&self) -> Option<SystemTime> {
        self.stale.get().copied()
    }

    /// The same for when the call is over.
    pub fn staleness(&self) -> Arc<OnceLock<SystemTime>> {
        self.stale.clone()
    }

    /// Of several such moments the first one stays, which is not after the others.
    pub(super) fn mark_stale(&self, since: SystemTime) {
        let _ = self.stale.set(since);
    }

    /// Who calls, by the state given.
    pub(super) fn caller(&self, state: &State, now: SystemTime) -> Result<Caller, Error> {
        let credential = self.credential.as_ref().map_err(|error| *error)?;
        // It may have been issued since; another server may know.
        if self.stale_since().is_some() && state.token(credential.token()).is_none() {
            return Err(Error::StoreUnavailable("nobody knows whether the token was issued meanwhile".into()));
        }
        let caller = identity::authenticate(state, credential, now)?;
        if caller.is_start() && self.method != EXCHANGE {
            return Err(Error::Denied);
        }
        Ok(caller)
    }
}

impl Vault {
    pub(super) fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    /// Hands a line over. What a principal is allowed is bounded: a line about an answer or a change that is to be made
    /// comes from the principal's budget, and is refused when that is spent.
    pub(super) async fn record(&self, call: &Call, phase: Phase, line: Line) -> Result<(), Error> {
        if matches!(phase, Phase::Read | Phase::Intent)
            && let Some(principal) = &line.principal
        {
            let subjects = line.subjects.len() + line.details.len();
            if let Err(wait) = self.0.budgets.take(principal, subjects, self.0.clock.uptime()) {
                let names: Vec<_> = line.subjects.into_iter().map(|subject| subject.name).collect();
                return Err(self.write_refusal(call, Some(principal.clone()), &names, Error::BudgetSpent(wait)).await);
            }
        }
        self.write_line(call, phase, line).await
    }

    async fn write_line(&self, call: &Call, phase: Phase, line: Line) -> Result<(), Error> {
        let mut details = line.details;
        if let Some(since) = call.stale_since() {
            details.push(("stale_since", humantime::format_rfc3339_millis(since).to_string()));
        }
        let event = Event {
            time: self.now(),
            call: call.id,
            phase,
            method: call.method,
            principal: line.principal.map(|principal| principal.to_string()).unwrap_or_default(),
            token: call.credential.as_ref().ok().map(|credential| credential.token().to_string()),
            peer: call.peer.clone(),
            subjects: line.subjects,
            reason: line.reason,
            details,
            leads_to_values: line.leads_to_values,
            values_leave: line.values_leave,
            position: line.position,
        };
        Ok(self.0.audit.record(event).await?)
    }

    /// Writes down why a call got nothing, and gives the reason back. Not every refusal gets a line: see
    /// [`super::refusals`]. For a change whose intent stands, [`Vault::failed`] is to be used.
    pub(super) async fn refused(&self, call: &Call, caller: Option<&Caller>, names: &[String], error: Error) -> Error {
        log_detail(call, &error);
        self.write_refusal(call, caller.map(|caller| caller.principal().clone()), names, error).await
    }

    pub(super) async fn write_refusal(
        &self,
        call: &Call,
        principal: Option<Principal>,
        names: &[String],
        error: Error,
    ) -> Error {
        let refused = principal.clone().map_or_else(|| Refused::address(call.peer.as_deref()), Refused::Principal);
        let what = (call.method, error.reason().as_str());
        let Some(unwritten) = self.0.refusals.take(refused, what, names, self.0.clock.uptime()) else { return error };
        let mut line = failure(principal, names, &error);
        unwritten.write(&mut line);
        self.write_failure(call, line, error).await
    }

    /// Writes down why a change that was begun was not made: no intent stays without an outcome.
    pub(super) async fn failed(&self, call: &Call, caller: Option<&Caller>, names: &[String], error: Error) -> Error {
        log_detail(call, &error);
        let line = failure(caller.map(|caller| caller.principal().clone()), names, &error);
        self.write_failure(call, line, error).await
    }

    /// If not even that can be written, that is the answer: a refusal tells something, too. But who does not know whether
    /// something happened must not be told that nothing did.
    async fn write_failure(&self, call: &Call, line: Line, error: Error) -> Error {
        let phase = if error.is_refusal() { Phase::Refused } else { Phase::Failed };
        match self.write_line(call, phase, line).await {
            Err(unavailable) if !matches!(error, Error::OutcomeUnknown(_)) => unavailable,
            Ok(()) | Err(_) => error,
        }
    }

    /// Refuses a caller nobody knows.
    pub(super) async fn stranger(&self, call: &Call, error: Error) -> Error {
        self.write_refusal(call, None, &[], error).await
    }
}

fn failure(principal: Option<Principal>, names: &[String], error: &Error) -> Line {
    Line {
        principal,
        subjects: names.iter().map(named).collect(),
        reason: Some(error.reason().as_str()),
        details: if *error == Error::StartTokenUsed { vec![("alarm", REPLAYED.to_owned())] } else { Vec::new() },
        ..Line::default()
    }
}

fn log_detail(call: &Call, error: &Error) {
    if let Some(detail) = error.detail() {
        tracing::error!(method = call.method, reason = error.reason().as_str(), detail, "a call failed");
    }
}

/// A subject of which only the name is known.
pub(super) fn named(name: impl ToString) -> Subject {
    Subject { name: name.to_string(), uid: None, version: None }
}
