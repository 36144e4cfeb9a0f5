//! `coffer.v1.Imports`.

use coffer_proto::{
    limits,
    name::Scope,
    v1::{self, import_result::Action, import_secrets_request, imports_server::Imports},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{kind, name, sharing},
    open, status,
};
use crate::vault::{Conflict, Error, Import, ImportAction, ImportEntry, fields::Fields};

#[tonic::async_trait]
impl Imports for Api {
    async fn import_secrets(
        &self,
        request: Request<v1::ImportSecretsRequest>,
    ) -> Result<Response<v1::ImportSecretsResponse>, Status> {
        let (call, request) = open(request)?;
        let scope = name("parent", Scope::parse(&request.parent))?;
        let outcomes =
            self.vault.import_secrets(&call, scope.clone(), import(&scope, request)).await.map_err(status::of)?;
        let results = outcomes.into_iter().map(|outcome| v1::ImportResult {
            name: outcome.name.to_string(),
            action: match outcome.action {
                ImportAction::Created => Action::Created,
                ImportAction::Replaced => Action::Replaced,
                ImportAction::Skipped => Action::Skipped,
            } as i32,
        });
        Ok(Response::new(v1::ImportSecretsResponse { results: results.collect() }))
    }
}

fn import(scope: &Scope, request: v1::ImportSecretsRequest) -> Result<Import, Error> {
    let mut fields = Fields::new();
    let conflict = match import_secrets_request::Conflict::try_from(request.conflict) {
        Ok(import_secrets_request::Conflict::Unspecified | import_secrets_request::Conflict::Fail) => Conflict::Fail,
        Ok(import_secrets_request::Conflict::Skip) => Conflict::Skip,
        Ok(import_secrets_request::Conflict::Replace) => Conflict::Replace,
        Err(_) => {
            fields.wrong("conflict", "must be CONFLICT_FAIL, CONFLICT_SKIP or CONFLICT_REPLACE");
            Conflict::Fail
        }
    };
    if request.entries.len() as u64 > limits::SCOPE_SECRETS {
        return Err(Error::field("entries", "must hold at most 1,000 secrets"));
    }
    let mut entries = Vec::with_capacity(request.entries.len());
    for (at, entry) in request.entries.into_iter().enumerate() {
        let variable = fields.variable(&format!("entries[{at}].secret_id"), &entry.secret_id);
        let given = !(request.validate_only && entry.value.is_empty());
        let value = if given { fields.value(&format!("entries[{at}].value"), entry.value) } else { None };
        let kind = kind(&mut fields, &format!("entries[{at}].kind"), entry.kind);
        if let Some(description) = &entry.description {
            fields.description(&format!("entries[{at}].description"), description);
        }
        // A refused value has been said already; it must not be said again as a missing one.
        if let Some(variable) = variable.filter(|_| value.is_some() || !given) {
            entries.push(ImportEntry { variable, value, kind, description: entry.description });
        }
    }
    let sharing = sharing(&mut fields, scope, request.sharing);
    fields.finish()?;
    let import = Import { entries, conflict, validate_only: request.validate_only, sharing };
    let mut fields = Fields::new();
    import.check(&mut fields);
    fields.finish()?;
    Ok(import)
}
