//! Watches one workload's environment.

use std::sync::Arc;

use coffer_proto::{
    limits,
    name::{VariableName, Workload},
};

use tokio::time::Instant;

use super::{
    super::{Call, Error, Vault, call::named, environment::named_or_own, read::Answer},
    LOOK_AROUND_EVERY, Resolved, Wait, check, logged, name,
    resolved::Stamp,
};
use crate::access;

/// A new state of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// The environment revision now.
    pub revision: String,
    /// The names that differ from the state before, in order; `None` if that is not known any more.
    pub changed: Option<Vec<VariableName>>,
}

/// Follows one environment. Dropping it ends it.
pub struct EnvironmentWatch {
    vault: Vault,
    call: Call,
    workload: Workload,
    wait: Wait,
    began: Instant,
    told: Told,
    stamp: Option<Stamp>,
}

/// The state that the caller knows.
enum Told {
    /// The revision that they gave.
    Given(String),
    /// What they were told, or have been found to have.
    This(Arc<Resolved>),
}

impl Vault {
    /// Watches a workload's environment from a revision on. `None` names the caller itself.
    pub async fn watch_environment(
        &self,
        call: &Call,
        workload: Option<Workload>,
        revision: String,
    ) -> Result<EnvironmentWatch, Error> {
        let names = workload.iter().map(ToString::to_string).collect();
        let (workload, mut wait) = self
            .read(call, names, |state, caller| {
                let workload = named_or_own(workload, caller)?;
                let permit = access::permit_inject(state, caller, &workload).ok_or(Error::Denied)?;
                if revision.len() > limits::REVISION_BYTES {
                    return Err(Error::field("environment_revision", "must be at most 64 bytes"));
                }
                let scope = workload.scope();
                let scopes = std::iter::once(scope.as_str().into());
                let parent = scope.inherits_from().map(|parent| parent.as_str().into());
                // It listens before it looks for the first time, so that nothing happens between.
                let listening = self.0.view.listen(scopes.chain(parent).chain([name(caller)]).collect());
                let about = named(&workload);
                Ok(Answer::new(&permit, (workload, Wait::new(listening))).about([about]))
            })
            .await?;
        if self.is_shared() {
            wait.look_again = LOOK_AROUND_EVERY;
        }
        let (vault, call, told) = (self.clone(), call.clone(), Told::Given(revision));
        Ok(EnvironmentWatch { vault, call, workload, wait, began: Instant::now(), told, stamp: None })
    }
}

impl EnvironmentWatch {
    /// Waits for a state that the caller does not know. An error is the end: the right or the token is gone, or nothing
    /// new can be seen any more, or for now.
    pub async fn next(&mut self) -> Result<EnvironmentChange, Error> {
        loop {
            if let Some(change) = self.look().map_err(logged)? {
                return Ok(change);
            }
            self.wait.wait(self.vault.now()).await;
            if self.began.elapsed() >= LOOK_AROUND_EVERY
                && let Some(error) = self.vault.cut_off()
            {
                return Err(error);
            }
        }
    }

    /// What is new to the caller now.
    pub(super) fn look(&mut self) -> Result<Option<EnvironmentChange>, Error> {
        let view = &self.vault.0.view;
        let (stamp, found) = {
            let state = view.read();
            let caller = self.call.caller(&state, self.vault.now())?;
            access::permit_inject(&state, &caller, &self.workload).ok_or(Error::Denied)?;
            check(view)?;
            self.wait.know(&caller);
            let stamp = Stamp::of(&state, self.workload.scope());
            if self.stamp == Some(stamp) {
                return Ok(None);
            }
            (stamp, self.vault.find(&state, self.workload.scope())?)
        };
        let now = self.vault.resolve(found);
        self.stamp = Some(stamp);
        let (is_known, changed) = match &self.told {
            Told::Given(revision) => (*revision == now.revision, self.vault.changed_since(revision, &now.names)),
            Told::This(old) => (old.revision == now.revision, Some(old.names.changed(&now.names))),
        };
        let revision = now.revision.clone();
        self.told = Told::This(now);
        Ok((!is_known).then_some(EnvironmentChange { revision, changed }))
    }
}
