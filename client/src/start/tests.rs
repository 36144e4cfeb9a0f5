//! Against a server that loses answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use coffer_proto::{
    token::TokenKind,
    v1::{
        self, ExchangeStartTokenResponse,
        tokens_server::{Tokens, TokensServer},
    },
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;

const QUICK: retry::Policy =
    retry::Policy { first: Duration::from_millis(5), max: Duration::from_millis(5), random: || 1.0 };

struct Fake {
    /// What the calls fail with, after they did their work; then one succeeds.
    losses: Mutex<Vec<Status>>,
    nonces: Arc<Mutex<Vec<Vec<u8>>>>,
    session: Token,
}

fn status(code: Code, reason: Reason) -> Status {
    let details = ErrorDetails::with_error_info(reason.as_str(), "coffer", std::collections::HashMap::new());
    Status::with_error_details(code, "as scripted", details)
}

#[tonic::async_trait]
impl Tokens for Fake {
    async fn exchange_start_token(
        &self,
        request: Request<ExchangeStartTokenRequest>,
    ) -> Result<Response<ExchangeStartTokenResponse>, Status> {
        let sent = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        assert!(sent.is_some_and(|sent| sent.starts_with("Bearer cof_start_")), "the start token is the credential");
        self.nonces.lock().expect("no panic before").push(request.into_inner().nonce);
        match self.losses.lock().expect("no panic before").pop() {
            Some(loss) => Err(loss),
            None => {
                let token = self.session.expose().to_owned();
                Ok(Response::new(ExchangeStartTokenResponse { token, metadata: None }))
            }
        }
    }

    async fn issue_token(&self, _: Request<v1::IssueTokenRequest>) -> Result<Response<v1::IssueTokenResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn revoke_token(
        &self,
        _: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

/// Exchanges against these losses; the outcome, the session there was to get, and the nonces that were sent.
async fn exchanged(losses: Vec<Status>) -> (Result<Token, Error>, Token, Vec<Vec<u8>>) {
    let session = Token::generate(TokenKind::Workload);
    let nonces = Arc::<Mutex<Vec<_>>>::default();
    let fake = Fake { losses: losses.into(), nonces: nonces.clone(), session: session.clone() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let server = Server::builder().add_service(TokensServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let deadline = Instant::now() + Duration::from_secs(10);
    let result = exchange(
        Config::new(address),
        Token::generate(TokenKind::Start),
        &Nonce::random().expect("random"),
        deadline,
        QUICK,
    )
    .await;
    let nonces = nonces.lock().expect("no panic before").clone();
    (result, session, nonces)
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_nonce() {
    let losses = vec![
        Status::unavailable("lost"),
        status(Code::Unknown, Reason::OutcomeUnknown),
        status(Code::Aborted, Reason::Contention),
    ];
    let (result, session, nonces) = exchanged(losses).await;
    assert_eq!(result.expect("at last").expose(), session.expose());
    assert_eq!(nonces.len(), 4);
    assert!(nonces[0].len() == 32 && nonces.iter().all(|nonce| *nonce == nonces[0]));
    let (_, _, others) = exchanged(Vec::new()).await;
    assert_ne!(others[0], nonces[0], "each start has its own");
}

#[tokio::test]
async fn a_used_token_is_told_at_once() {
    let (result, _, nonces) = exchanged(vec![status(Code::Unauthenticated, Reason::StartTokenUsed)]).await;
    assert_eq!(result.expect_err("used").reason(), Some(Reason::StartTokenUsed));
    assert_eq!(nonces.len(), 1);
}
