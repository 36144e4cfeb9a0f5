//! What only answers: one decision over one state, written down before the answer leaves.

use coffer_proto::name::Principal;

use crate::{
    access::Permit,
    audit::{Phase, Subject},
    identity::Caller,
    view::State,
};

use super::{
    Call, Error, Vault,
    call::{Line, named},
};

/// Entries that one hold of the view's lock walks over at most, in a call that walks over all there are: about half a
/// millisecond.
pub(super) const STEP: usize = 250;

/// An answer and what the audit log says of it.
pub(super) struct Answer<T> {
    pub value: T,
    pub subjects: Vec<Subject>,
    pub values_leave: bool,
}

impl<T> Answer<T> {
    /// An answer that a permit allows.
    pub fn new(_permit: &Permit, value: T) -> Self {
        Self { value, subjects: Vec::new(), values_leave: false }
    }

    pub fn about(mut self, subjects: impl IntoIterator<Item = Subject>) -> Self {
        self.subjects.extend(subjects);
        self
    }
}

impl Vault {
    /// Answers a call. `names` is what it asked about, for the log should it be refused.
    pub(super) async fn read<T>(
        &self,
        call: &Call,
        names: Vec<String>,
        decide: impl FnOnce(&State, &Caller) -> Result<Answer<T>, Error>,
    ) -> Result<T, Error> {
        self.fresh(call).await?;
        let (caller, result) = self.at_once(call, decide);
        self.answer(call, names, caller.as_ref(), result).await
    }

    /// Answers a call that may walk over more entries than one hold of the view's lock should: `step` walks over at most
    /// [`STEP`] of them and says `None` as long as it has not come to the end. Others are served between two steps, so the
    /// answer is of no one position: what changes meanwhile is in it or not. The caller is authenticated, and must be
    /// permitted, at every step.
    pub(super) async fn read_in_steps<T>(
        &self,
        call: &Call,
        names: Vec<String>,
        mut step: impl FnMut(&State, &Caller) -> Result<Option<Answer<T>>, Error>,
    ) -> Result<T, Error> {
        self.fresh(call).await?;
        let mut walk = None;
        loop {
            let (caller, result) = self.at_once(call, &mut step);
            let result = match (result, &caller) {
                (Ok(None), Some(caller)) => match walk.take().or_else(|| self.0.walks.begin(caller.principal())) {
                    Some(under_way) => {
                        walk = Some(under_way);
                        tokio::task::yield_now().await;
                        continue;
                    }
                    None => Err(Error::Overloaded("so many walks over very many scopes or grants; ask for fewer")),
                },
                (Ok(None), None) => Err(Error::Internal("nobody walks".into())),
                (Ok(Some(answer)), _) => Ok(answer),
                (Err(error), _) => Err(error),
            };
            return self.answer(call, names, caller.as_ref(), result).await;
        }
    }

    /// Decides on the state of one moment.
    fn at_once<T>(
        &self,
        call: &Call,
        decide: impl FnOnce(&State, &Caller) -> Result<T, Error>,
    ) -> (Option<Caller>, Result<T, Error>) {
        let now = self.now();
        let state = self.0.view.read();
        match call.caller(&state, now) {
            Ok(caller) => {
                let result = decide(&state, &caller);
                (Some(caller), result)
            }
            Err(error) => (None, Err(error)),
        }
    }

    async fn answer<T>(
        &self,
        call: &Call,
        names: Vec<String>,
        caller: Option<&Caller>,
        result: Result<Answer<T>, Error>,
    ) -> Result<T, Error> {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return Err(self.refused(call, caller, &names, error).await),
        };
        let subjects = if answer.subjects.is_empty() { names.iter().map(named).collect() } else { answer.subjects };
        let line = Line {
            principal: caller.map(|caller| caller.principal().clone()),
            subjects,
            values_leave: answer.values_leave,
            ..Line::default()
        };
        self.record(call, Phase::Read, line).await?;
        Ok(answer.value)
    }

    /// Refuses a call of somebody known for what they are, whatever it asks.
    pub async fn deny(&self, call: &Call, principal: Principal) -> Error {
        self.write_refusal(call, Some(principal), &[], Error::Denied).await
    }

    /// Who calls. Asked before anything else of a request is looked at, and again with every decision.
    pub async fn authenticate(&self, call: &Call) -> Result<Principal, Error> {
        self.fresh(call).await?;
        let result = {
            let state = self.0.view.read();
            call.caller(&state, self.now()).map(|caller| caller.principal().clone())
        };
        match result {
            Ok(principal) => Ok(principal),
            Err(error) => Err(self.stranger(call, error).await),
        }
    }
}
