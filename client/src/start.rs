//! Single-use start tokens: exchanged once for a session token.

use coffer_proto::{reason::Reason, token::Token, v1::ExchangeStartTokenRequest};
use tokio::time::Instant;
use tonic::Code;
use zeroize::Zeroizing;

use crate::{Client, Config, Credential, Error, retry};

/// Bytes of the nonce that names this exchange.
const NONCE_BYTES: usize = 32;

/// Exchanges a start token for a session token of the same workload, until the deadline.
///
/// One nonce is used for all attempts: if an answer is lost, it is asked for again and is the same. `config` says where
/// the server is; its credential is not used.
///
/// # Errors
/// [`Reason::StartTokenUsed`] if somebody else exchanged the token before: a copy of it is in other hands.
pub async fn exchange(
    mut config: Config,
    token: Token,
    deadline: Instant,
    policy: retry::Policy,
) -> Result<Token, Error> {
    config.credential = Some(Credential::Token(token));
    let client = Client::lazy(config)?;
    let mut nonce = Zeroizing::new([0; NONCE_BYTES]);
    getrandom::fill(nonce.as_mut())
        .map_err(|_| Error::local(Code::Internal, None, "the operating system gives no randomness"))?;
    retry::until(deadline, policy, || async {
        let request = ExchangeStartTokenRequest { nonce: nonce.to_vec() };
        let answer = client.call(client.tokens().exchange_start_token(request)).await.map_err(may_pass)?;
        let text = Zeroizing::new(answer.token);
        Token::parse(&text).map_err(|error| Error::local(Code::Internal, None, format!("the session token is {error}")))
    })
    .await
}

/// With the same nonce, what may or may not have happened can be asked for again.
fn may_pass(error: Error) -> Error {
    match error.reason() {
        Some(reason @ (Reason::OutcomeUnknown | Reason::Contention)) => {
            Error::local(Code::Unavailable, Some(reason), error.message())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests;
