//! The values that are looked for in texts: those of a workload's environment that nobody may read.

use coffer_proto::{name::Workload, redaction::Matcher};

use super::{Call, Environment, Error, Vault, call::named, environment::named_or_own, read::Answer};
use crate::{access, seal::Uid, view::OwnedSecret};

/// What is to be looked for, still sealed.
pub struct Redaction {
    secrets: Vec<OwnedSecret>,
    store: Uid,
}

impl Redaction {
    /// The size of the values, in bytes.
    pub fn value_bytes(&self) -> u64 {
        self.secrets.iter().map(|secret| secret.entry.meta.value_bytes).sum()
    }

    /// Opens the values and builds what finds them: work of milliseconds for each megabyte of them.
    pub fn matcher(&self) -> Result<Matcher, Error> {
        let open = |secret: &OwnedSecret| Ok((secret.variable.clone(), secret.open(self.store)?));
        let values = self.secrets.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
        Ok(Matcher::new(values.iter().map(|(name, value)| (name, value))))
    }
}

impl Vault {
    /// What may not stay in texts of a workload. `None` names the caller itself; `fields` is what is wrong with the rest of
    /// the request.
    pub async fn redact(
        &self,
        call: &Call,
        workload: Option<Workload>,
        fields: Result<(), Error>,
    ) -> Result<Redaction, Error> {
        let names = workload.iter().map(ToString::to_string).collect();
        let secrets = self
            .read(call, names, |state, caller| {
                let workload = named_or_own(workload, caller)?;
                let permit = access::permit_inject(state, caller, &workload).ok_or(Error::Denied)?;
                fields?;
                let environment = Environment::of(state, workload.scope());
                let encrypted = environment.effective.into_values().filter(|secret| !secret.is_plain());
                Ok(Answer::new(&permit, encrypted.collect()).about([named(&workload)]))
            })
            .await?;
        Ok(Redaction { secrets, store: self.0.view.keyring().store() })
    }
}
