//! `coffer.v1.Scopes`.

use coffer_proto::{
    limits,
    name::{Scope, ScopePattern, SecretName},
    v1::{self, scopes_server::Scopes},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{at, name, signed},
    open, status,
};
use crate::vault::{Error, Health, HealthRequest, PageRequest, ShownScope, fields::Fields};

#[tonic::async_trait]
impl Scopes for Api {
    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> Result<Response<v1::ListScopesResponse>, Status> {
        let (call, request) = open(request)?;
        let pattern = match request.pattern.as_str() {
            "" => None,
            pattern => Some(name("pattern", ScopePattern::parse(pattern))?),
        };
        let page = PageRequest::new("ListScopes", &[&request.pattern], request.page_size, &request.page_token);
        let page = self.vault.list_scopes(&call, pattern, page).await.map_err(status::of)?;
        let scopes = page.entries.into_iter().map(to_scope).collect();
        Ok(Response::new(v1::ListScopesResponse { scopes, next_page_token: page.next }))
    }

    async fn get_scope_health(
        &self,
        request: Request<v1::GetScopeHealthRequest>,
    ) -> Result<Response<v1::ScopeHealth>, Status> {
        let (call, request) = open(request)?;
        let scope = name("scope", Scope::parse(&request.scope))?;
        let fields = health_request(&request);
        let health = self.vault.scope_health(&call, scope, fields).await.map_err(status::of)?;
        Ok(Response::new(to_health(health)))
    }

    async fn delete_scope(
        &self,
        request: Request<v1::DeleteScopeRequest>,
    ) -> Result<Response<v1::DeleteScopeResponse>, Status> {
        let (call, request) = open(request)?;
        let scope = name("name", Scope::parse(&request.name))?;
        let secrets = self.vault.delete_scope(&call, scope, request.uid).await.map_err(status::of)?;
        Ok(Response::new(v1::DeleteScopeResponse { secrets_deleted: signed(secrets) }))
    }
}

fn health_request(request: &v1::GetScopeHealthRequest) -> Result<HealthRequest, Error> {
    let mut fields = Fields::new();
    let mut days = |field: &str, days: i32, default: u32| match u32::try_from(days) {
        Ok(0) => default,
        Ok(days) if days <= limits::HEALTH_DAYS_MAX => days,
        _ => {
            fields.wrong(field, "must be 0 to 36,500");
            default
        }
    };
    let stale_days = days("stale_days", request.stale_days, limits::STALE_DAYS_DEFAULT);
    let unused_days = days("unused_days", request.unused_days, limits::UNUSED_DAYS_DEFAULT);
    fields.finish()?;
    Ok(HealthRequest { stale_days, unused_days })
}

fn to_health(health: Health) -> v1::ScopeHealth {
    let missing = health.missing.into_iter().map(|missing| v1::MissingVariable {
        variable: missing.variable.to_string(),
        declared_by: missing.declared_by.to_string(),
        description: missing.description,
    });
    let aged = |name: SecretName, time| v1::AgedSecret { name: name.to_string(), time };
    v1::ScopeHealth {
        secret_count: signed(health.secrets),
        missing: missing.collect(),
        unused: health.unused.into_iter().map(|(name, seconds)| aged(name, at(seconds))).collect(),
        stale: health.stale.into_iter().map(|(name, time)| aged(name, Some(time))).collect(),
        missing_count: signed(health.missing_count),
    }
}

fn to_scope(scope: ShownScope) -> v1::Scope {
    v1::Scope {
        name: scope.name.to_string(),
        uid: scope.uid.to_string(),
        secret_count: signed(scope.secrets),
        value_bytes: signed(scope.value_bytes),
        create_time: Some(scope.create_time),
        permissions: scope.permissions.iter().map(ToString::to_string).collect(),
    }
}
