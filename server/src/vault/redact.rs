//! The values that are looked for in texts: those of a workload's environment that nobody may read.

use coffer_proto::{name::Workload, redaction::Matcher};
use sha2::{Digest as _, Sha256};

use super::{Call, Environment, Error, Vault, call::named, environment::named_or_own, read::Answer};
use crate::{access, seal::Uid, view::OwnedSecret};

/// What is to be looked for, still sealed.
pub struct Redaction {
    secrets: Vec<OwnedSecret>,
    store: Uid,
    tenant: String,
}

/// Which values are looked for: the same for the same versions of the same secrets under the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sought([u8; 32]);

impl Sought {
    /// One of many.
    #[cfg(test)]
    pub(crate) fn of_test(n: u8) -> Self {
        Self([n; 32])
    }
}

impl Redaction {
    /// The size of the values, in bytes.
    pub fn value_bytes(&self) -> u64 {
        self.secrets.iter().map(|secret| secret.entry.meta.value_bytes).sum()
    }

    /// Which values these are.
    pub fn sought(&self) -> Sought {
        let mut hash = Sha256::new();
        for secret in &self.secrets {
            // Names hold no NUL, and the rest has one length.
            hash.update(secret.variable.as_str().as_bytes());
            hash.update([0]);
            hash.update(secret.entry.meta.uid.0);
            hash.update(secret.entry.meta.version.to_be_bytes());
        }
        // Two that have none have nothing to share.
        hash.update(self.tenant.as_bytes());
        Sought(hash.finalize().into())
    }

    /// Whose they are: the account, project or organization.
    pub fn tenant(&self) -> &str {
        &self.tenant
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
        let (secrets, tenant) = self
            .read(call, names, |state, caller| {
                let workload = named_or_own(workload, caller)?;
                let permit = access::permit_inject(state, caller, &workload).ok_or(Error::Denied)?;
                fields?;
                let environment = Environment::of(state, workload.scope());
                let encrypted = environment.effective.into_values().filter(|secret| !secret.is_plain());
                let found = (encrypted.collect(), workload.scope().top().to_string());
                Ok(Answer::new(&permit, found).about([named(&workload)]))
            })
            .await?;
        Ok(Redaction { secrets, store: self.0.view.store(), tenant })
    }

    /// Whose room a call takes before it has said for which workload it is: a workload's own tenant, or a service.
    pub async fn redacting_tenant(&self, call: &Call) -> Result<String, Error> {
        let principal = self.authenticate(call).await?;
        Ok(principal.as_workload().map_or_else(|| principal.to_string(), |workload| workload.scope().top().to_string()))
    }
}
