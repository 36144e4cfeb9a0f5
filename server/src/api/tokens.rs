//! `coffer.v1.Tokens`.

use std::time::Duration;

use coffer_proto::{
    limits,
    name::Principal,
    token::TokenId,
    v1::{self, tokens_server::Tokens},
};
use tonic::{Request, Response, Status};

use super::{
    Api,
    convert::{name, to_token},
    status,
};
use crate::vault::{Error, NewToken, PageRequest, fields::Fields};

#[tonic::async_trait]
impl Tokens for Api {
    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenResponse>, Status> {
        let (call, request) = self.begin("coffer.v1.Tokens/IssueToken", request).await?;
        let principal = name("principal", Principal::parse(&request.principal))?;
        let issued = self.vault.issue_token(&call, principal, new_token(request)).await.map_err(status::of)?;
        let metadata = Some(to_token(&issued.entry));
        Ok(Response::new(v1::IssueTokenResponse { token: issued.token.expose().to_owned(), metadata }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (call, request) = self.begin("coffer.v1.Tokens/ListTokens", request).await?;
        let principal = match request.principal.as_str() {
            "" => None,
            principal => Some(name("principal", Principal::parse(principal))?),
        };
        let page = PageRequest::new("ListTokens", &[&request.principal], request.page_size, &request.page_token);
        let page = self.vault.list_tokens(&call, principal, page).await.map_err(status::of)?;
        let tokens = page.entries.iter().map(|token| to_token(token)).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token: page.next }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let (call, request) = self.begin("coffer.v1.Tokens/RevokeToken", request).await?;
        let id = request.name.strip_prefix("tokens/").and_then(|id| TokenId::parse(id).ok()).ok_or_else(|| {
            status::of(Error::field("name", "must be a token's name, tokens/{id}, not the token itself"))
        })?;
        self.vault.revoke_token(&call, id).await.map_err(status::of)?;
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }
}

fn new_token(request: v1::IssueTokenRequest) -> Result<NewToken, Error> {
    let mut fields = Fields::new();
    if request.description.len() > limits::TOKEN_DESCRIPTION_BYTES {
        fields.wrong("description", "must be at most 200 bytes");
    }
    if request.description.chars().any(char::is_control) {
        fields.wrong("description", "must not contain control characters");
    }
    let ttl =
        request.ttl.and_then(|ttl| fields.take("ttl", Duration::try_from(ttl).map_err(|_| "must not be negative")));
    fields.finish()?;
    Ok(NewToken { ttl, description: request.description })
}
