//! Single-use start tokens: exchanged once for a session token.

use coffer_proto::{reason::Reason, token::Token, v1::ExchangeStartTokenRequest};
use tokio::time::Instant;
use tonic::Code;
use zeroize::Zeroizing;

use crate::{Client, Config, Credential, Error, retry};

/// Bytes of the nonce that names this exchange.
const NONCE_BYTES: usize = 32;

/// Names one exchange, so that whoever lost the answer can ask for it again.
#[derive(Clone)]
pub struct Nonce(Zeroizing<[u8; NONCE_BYTES]>);

impl Nonce {
    /// A new one. Fails if the operating system gives no randomness.
    pub fn random() -> Result<Self, Error> {
        let mut nonce = Zeroizing::new([0; NONCE_BYTES]);
        getrandom::fill(nonce.as_mut())
            .map_err(|_| Error::local(Code::Internal, None, "the operating system gives no randomness"))?;
        Ok(Self(nonce))
    }
}

/// Exchanges a start token for a session token of the same workload, until the deadline.
///
/// The nonce is used for all attempts: if an answer is lost, it is asked for again and is the same. Who tries again after
/// the deadline must use the same nonce. `config` says where the server is; its credential is not used.
///
/// # Errors
/// [`Reason::StartTokenUsed`] if somebody else exchanged the token before: a copy of it is in other hands.
pub async fn exchange(
    mut config: Config,
    token: Token,
    nonce: &Nonce,
    deadline: Instant,
    policy: retry::Policy,
) -> Result<Token, Error> {
    config.credential = Some(Credential::Token(token));
    let client = Client::lazy(config)?;
    retry::until(deadline, policy, || async {
        let request = ExchangeStartTokenRequest { nonce: nonce.0.to_vec() };
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
