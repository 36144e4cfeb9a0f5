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
    open, status,
};
use crate::vault::{Error, NewToken, PageRequest, fields::Fields};

#[tonic::async_trait]
impl Tokens for Api {
    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenResponse>, Status> {
        let (call, request) = open(request)?;
        let principal = name("principal", Principal::parse(&request.principal))?;
        let issued = self.vault.issue_token(&call, principal, new_token(request)).await.map_err(status::of)?;
        let metadata = Some(to_token(&issued.entry));
        Ok(Response::new(v1::IssueTokenResponse { token: issued.token.expose().to_owned(), metadata }))
    }

    async fn exchange_start_token(
        &self,
        request: Request<v1::ExchangeStartTokenRequest>,
    ) -> Result<Response<v1::ExchangeStartTokenResponse>, Status> {
        let (call, request) = open(request)?;
        let issued = self.vault.exchange_start_token(&call, request.nonce).await.map_err(status::of)?;
        let metadata = Some(to_token(&issued.entry));
        Ok(Response::new(v1::ExchangeStartTokenResponse { token: issued.token.expose().to_owned(), metadata }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (call, request) = open(request)?;
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
        let (call, request) = open(request)?;
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
    let ttl = request.ttl.and_then(|ttl| fields.take("ttl", duration(ttl)));
    let session = request.session_ttl.and_then(|ttl| fields.take("session_ttl", duration(ttl)));
    if request.session_ttl.is_some() && !request.single_use {
        fields.wrong("session_ttl", "is of start tokens only: say single_use");
    }
    fields.finish()?;
    let start = request.single_use.then(|| session.unwrap_or(limits::TOKEN_TTL_DEFAULT));
    Ok(NewToken { ttl, description: request.description, start })
}

/// Checked here, because prost-types asserts what any client may break.
fn duration(ttl: prost_types::Duration) -> Result<Duration, &'static str> {
    let seconds = u64::try_from(ttl.seconds).map_err(|_| "must not be negative")?;
    let nanos = u32::try_from(ttl.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    Ok(Duration::new(seconds, nanos.ok_or("must have 0 to 999,999,999 nanoseconds")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_durations_are_errors() {
        let of = |seconds, nanos| duration(prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 5), Ok(Duration::new(1, 5)));
        assert_eq!(of(i64::MAX, 999_999_999), Ok(Duration::new(i64::MAX as u64, 999_999_999)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (1, i32::MAX), (1, 1_000_000_000)] {
            assert!(of(seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }
}
