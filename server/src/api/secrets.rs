//! `coffer.v1.Secrets`.

use coffer_proto::{
    limits,
    name::{Scope, ScopePattern, SecretName, Workload},
    v1::{self, environment_entry::State, secrets_server::Secrets},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{kind, name, new_sharing, sharing, signed, to_kind, to_secret},
    open, status,
};
use crate::{
    record::Kind,
    vault::{CloneRequest, DescribedEntry, EntryState, Error, NewSecret, PageRequest, SecretChange, fields::Fields},
};

#[tonic::async_trait]
impl Secrets for Api {
    async fn create_secret(&self, request: Request<v1::CreateSecretRequest>) -> Result<Response<v1::Secret>, Status> {
        let (call, request) = open(request)?;
        let scope = name("parent", Scope::parse(&request.parent))?;
        let fields = new_secret(&scope, request);
        let secret = self.vault.create_secret(&call, scope, fields).await.map_err(status::of)?;
        Ok(Response::new(to_secret(secret)))
    }

    async fn get_secret(&self, request: Request<v1::GetSecretRequest>) -> Result<Response<v1::Secret>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", SecretName::parse(&request.name))?;
        let secret = self.vault.get_secret(&call, name).await.map_err(status::of)?;
        Ok(Response::new(to_secret(secret)))
    }

    async fn list_secrets(
        &self,
        request: Request<v1::ListSecretsRequest>,
    ) -> Result<Response<v1::ListSecretsResponse>, Status> {
        let (call, request) = open(request)?;
        let parent = name("parent", ScopePattern::parse(&request.parent))?;
        let page = PageRequest::new("ListSecrets", &[parent.as_str()], request.page_size, &request.page_token);
        let page = self.vault.list_secrets(&call, parent, page).await.map_err(status::of)?;
        let secrets = page.entries.into_iter().map(to_secret).collect();
        Ok(Response::new(v1::ListSecretsResponse { secrets, next_page_token: page.next }))
    }

    async fn update_secret(&self, request: Request<v1::UpdateSecretRequest>) -> Result<Response<v1::Secret>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", SecretName::parse(&request.name))?;
        let etag = request.etag.clone();
        let fields = secret_change(name.scope(), request);
        let secret = self.vault.update_secret(&call, name, etag, fields).await.map_err(status::of)?;
        Ok(Response::new(to_secret(secret)))
    }

    async fn delete_secret(
        &self,
        request: Request<v1::DeleteSecretRequest>,
    ) -> Result<Response<v1::DeleteSecretResponse>, Status> {
        let (call, request) = open(request)?;
        let name = name("name", SecretName::parse(&request.name))?;
        self.vault.delete_secret(&call, name, request.etag, request.force).await.map_err(status::of)?;
        Ok(Response::new(v1::DeleteSecretResponse {}))
    }

    async fn clone_secrets(
        &self,
        request: Request<v1::CloneSecretsRequest>,
    ) -> Result<Response<v1::CloneSecretsResponse>, Status> {
        let (call, request) = open(request)?;
        let request = clone_request(request).map_err(status::of)?;
        let cloned = self.vault.clone_secrets(&call, request).await.map_err(status::of)?;
        Ok(Response::new(v1::CloneSecretsResponse {
            secrets: cloned.secrets.into_iter().map(to_secret).collect(),
            missing_references: cloned.missing.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn get_secret_stats(
        &self,
        request: Request<v1::GetSecretStatsRequest>,
    ) -> Result<Response<v1::SecretStats>, Status> {
        let (call, request) = open(request)?;
        let parent = name("parent", ScopePattern::parse(&request.parent))?;
        let stats = self.vault.secret_stats(&call, parent).await.map_err(status::of)?;
        Ok(Response::new(v1::SecretStats {
            total: signed(stats.encrypted + stats.plain),
            encrypted: signed(stats.encrypted),
            plain: signed(stats.plain),
            scopes: signed(stats.scopes),
            missing: signed(stats.missing),
        }))
    }

    async fn describe_environment(
        &self,
        request: Request<v1::DescribeEnvironmentRequest>,
    ) -> Result<Response<v1::DescribeEnvironmentResponse>, Status> {
        let (call, request) = open(request)?;
        let scope = match Workload::parse(&request.name) {
            Ok(workload) => workload.scope().clone(),
            Err(_) => name("name", Scope::parse(&request.name))?,
        };
        if !scope.kind().has_workloads() {
            let message = "an organization has no workloads of its own; name one of its workspaces";
            return Err(status::of(Error::field("name", message)));
        }
        let page = PageRequest::new("DescribeEnvironment", &[&request.name], request.page_size, &request.page_token);
        let described = self.vault.describe_environment(&call, scope, page).await.map_err(status::of)?;
        Ok(Response::new(v1::DescribeEnvironmentResponse {
            entries: described.page.entries.into_iter().map(to_entry).collect(),
            environment_revision: described.revision,
            next_page_token: described.page.next,
        }))
    }
}

fn new_secret(scope: &Scope, request: v1::CreateSecretRequest) -> Result<NewSecret, Error> {
    let mut fields = Fields::new();
    let variable = fields.variable("secret_id", &request.secret_id);
    let value = fields.value("value", request.value);
    let kind = kind(&mut fields, "kind", request.kind).unwrap_or(Kind::Encrypted);
    fields.description("description", &request.description);
    let sharing = new_sharing(&mut fields, scope, request.sharing);
    fields.locked("locked", scope, request.locked);
    let allowed_hosts = fields.hosts("allowed_hosts", &request.allowed_hosts);
    fields.finish()?;
    // Both are there, or finishing had said why not.
    let (Some(variable), Some(value)) = (variable, value) else {
        return Err(Error::Internal("a field was refused without a reason".into()));
    };
    Ok(NewSecret {
        variable,
        value,
        kind,
        description: request.description,
        sharing,
        locked: request.locked,
        clonable: request.clonable.unwrap_or(true),
        allowed_hosts,
        allow_in_instructions: request.allow_in_instructions,
    })
}

fn secret_change(scope: &Scope, request: v1::UpdateSecretRequest) -> Result<SecretChange, Error> {
    let mut fields = Fields::new();
    let change = SecretChange {
        // An empty value keeps the stored one, as an absent one does.
        value: request.value.filter(|value| !value.is_empty()).and_then(|value| fields.value("value", value)),
        kind: kind(&mut fields, "kind", request.kind),
        sharing: sharing(&mut fields, scope, request.sharing),
        locked: request.locked,
        clonable: request.clonable,
        allowed_hosts: request.allowed_hosts.map(|list| fields.hosts("allowed_hosts.hosts", &list.hosts)),
        allow_in_instructions: request.allow_in_instructions,
        description: request.description,
    };
    if let Some(description) = &change.description {
        fields.description("description", description);
    }
    fields.locked("locked", scope, change.locked == Some(true));
    fields.finish()?;
    Ok(change)
}

fn clone_request(request: v1::CloneSecretsRequest) -> Result<CloneRequest, Error> {
    let destination = Scope::parse(&request.destination).map_err(|error| Error::name("destination", error))?;
    if request.names.len() > limits::CLONE_NAMES {
        return Err(Error::field("names", "must be at most 1,000"));
    }
    let (mut names, mut scopes) = (Vec::new(), Vec::new());
    for (at, text) in request.names.iter().enumerate() {
        let field = || format!("names[{at}]");
        match text.strip_suffix("/secrets/-") {
            Some(scope) => scopes.push(Scope::parse(scope).map_err(|error| Error::name(field(), error))?),
            None => names.push(SecretName::parse(text).map_err(|error| Error::name(field(), error))?),
        }
    }
    let mut fields = Fields::new();
    let sharing = sharing(&mut fields, &destination, request.sharing);
    let sharing = fields.finish().map(|()| sharing);
    Ok(CloneRequest { names, scopes, destination, replace: request.replace, sharing })
}

fn to_entry(entry: DescribedEntry) -> v1::EnvironmentEntry {
    let (state, winner) = match entry.state {
        EntryState::Effective => (State::Effective, String::new()),
        EntryState::Shadowed(winner) => (State::Shadowed, winner.to_string()),
        EntryState::Overruled(winner) => (State::Overruled, winner.to_string()),
        EntryState::NotShared => (State::NotShared, String::new()),
    };
    v1::EnvironmentEntry {
        variable: entry.source.variable().to_string(),
        source: entry.source.to_string(),
        kind: to_kind(entry.kind),
        state: state as i32,
        winner,
        locked: entry.secret.as_ref().is_some_and(|secret| secret.meta.locked),
        secret: entry.secret.map(to_secret),
    }
}
