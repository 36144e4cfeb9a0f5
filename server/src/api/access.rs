//! `coffer.v1.Access`.

use coffer_proto::{
    limits,
    name::{Permission, Principal, PrincipalPattern, ResourcePattern, Scope, Workload},
    v1::{self, access_server::Access, effective_access::Reason},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{name, to_grant},
    open, status,
};
use crate::vault::{Effective, EffectiveReason, Error, NewGrant, PageRequest};

#[tonic::async_trait]
impl Access for Api {
    async fn create_grant(&self, request: Request<v1::CreateGrantRequest>) -> Result<Response<v1::Grant>, Status> {
        let (call, request) = open(request)?;
        let principal = name("principal", Principal::parse(&request.principal))?;
        let permission = name("permission", Permission::parse(&request.permission))?;
        if !is_pattern(&request.pattern) || (request.pattern.is_empty() && permission != Permission::Operator) {
            return Err(status::of(Error::field(
                "pattern",
                "must be a scope, a workload, a pattern of them with `-`, a principal pattern, or empty for operator",
            )));
        }
        let new = NewGrant { principal, permission, pattern: request.pattern };
        let grant = self.vault.create_grant(&call, new).await.map_err(status::of)?;
        Ok(Response::new(to_grant(&grant)))
    }

    async fn delete_grant(
        &self,
        request: Request<v1::DeleteGrantRequest>,
    ) -> Result<Response<v1::DeleteGrantResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request
            .name
            .strip_prefix("grants/")
            .filter(|id| is_grant_id(id))
            .ok_or_else(|| status::of(Error::field("name", "must be a grant: grants/{id}")))?;
        self.vault.delete_grant(&call, id.to_owned()).await.map_err(status::of)?;
        Ok(Response::new(v1::DeleteGrantResponse {}))
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let (call, request) = open(request)?;
        if !is_pattern(&request.pattern) {
            return Err(status::of(Error::field("pattern", "must be a scope or principal pattern, or empty")));
        }
        let principal = match request.principal.as_str() {
            "" => None,
            principal => Some(name("principal", Principal::parse(principal))?),
        };
        let fields = [request.pattern.as_str(), request.principal.as_str()];
        let page = PageRequest::new("ListGrants", &fields, request.page_size, &request.page_token);
        let pattern = Some(request.pattern).filter(|pattern| !pattern.is_empty());
        let page = self.vault.list_grants(&call, pattern, principal, page).await.map_err(status::of)?;
        let grants = page.entries.iter().map(|grant| to_grant(grant)).collect();
        Ok(Response::new(v1::ListGrantsResponse { grants, next_page_token: page.next }))
    }

    async fn list_effective_access(
        &self,
        request: Request<v1::ListEffectiveAccessRequest>,
    ) -> Result<Response<v1::ListEffectiveAccessResponse>, Status> {
        let (call, request) = open(request)?;
        let scope = name("scope", Scope::parse(&request.scope))?;
        let page = PageRequest::new("ListEffectiveAccess", &[scope.as_str()], request.page_size, &request.page_token);
        let page = self.vault.list_effective_access(&call, scope, page).await.map_err(status::of)?;
        let entries = page.entries.into_iter().map(to_effective).collect();
        Ok(Response::new(v1::ListEffectiveAccessResponse { entries, next_page_token: page.next }))
    }

    async fn test_permissions(
        &self,
        request: Request<v1::TestPermissionsRequest>,
    ) -> Result<Response<v1::TestPermissionsResponse>, Status> {
        let (call, request) = open(request)?;
        let resource = request.resource;
        let known = resource.is_empty()
            || Scope::parse(&resource).is_ok()
            || Workload::parse(&resource).is_ok()
            || Principal::parse(&resource).is_ok();
        if !known {
            return Err(status::of(Error::field("resource", "must be a scope, a workload, a principal, or empty")));
        }
        let permissions = permissions(&request.permissions);
        let held = self.vault.test_permissions(&call, resource, permissions).await.map_err(status::of)?;
        let permissions = held.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::TestPermissionsResponse { permissions }))
    }
}

fn permissions(texts: &[String]) -> Result<Vec<Permission>, Error> {
    if texts.len() > limits::TESTED_PERMISSIONS {
        return Err(Error::field("permissions", "must be at most 20"));
    }
    let parsed = texts
        .iter()
        .enumerate()
        .map(|(at, text)| Permission::parse(text).map_err(|error| Error::name(format!("permissions[{at}]"), error)));
    parsed.collect()
}

/// A pattern of any kind; which kind a permission takes is the vault's to say.
fn is_pattern(text: &str) -> bool {
    text.is_empty() || ResourcePattern::parse(text).is_ok() || PrincipalPattern::parse(text).is_ok()
}

fn is_grant_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn to_effective(entry: Effective) -> v1::EffectiveAccess {
    let (grant, pattern) = entry.grant.map(|(id, pattern)| (format!("grants/{id}"), pattern)).unwrap_or_default();
    let reason = match entry.reason {
        EffectiveReason::Grant => Reason::Grant,
        EffectiveReason::Wildcard => Reason::WildcardGrant,
        EffectiveReason::Owner => Reason::Owner,
        EffectiveReason::Operator => Reason::Operator,
    };
    v1::EffectiveAccess {
        principal: entry.principal.to_string(),
        permission: entry.permission.to_string(),
        reason: reason as i32,
        grant,
        pattern,
    }
}
