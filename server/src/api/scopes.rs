//! `coffer.v1.Scopes`.

use coffer_proto::{
    name::{Scope, ScopePattern},
    v1::{self, scopes_server::Scopes},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{name, signed},
    open, status,
};
use crate::vault::{PageRequest, ShownScope};

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
        _request: Request<v1::GetScopeHealthRequest>,
    ) -> Result<Response<v1::ScopeHealth>, Status> {
        Err(Status::unimplemented("being built"))
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
