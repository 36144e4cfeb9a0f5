//! Several servers on one etcd are one: what one acknowledged all see, what one took away is gone everywhere, and without
//! etcd running workloads can be started again for a while, and nothing else. Whatever happens to servers and to etcd's
//! members, nothing acknowledged is lost, and nothing that was refused has happened.

mod apart;
mod clock;
mod cut_off;
mod keys;
mod load;
mod moved;
mod nospace;
mod restored;
mod revoked;
mod together;

use coffer_client::Client;
use coffer_proto::v1;

use crate::harness::{Server, until_async};

const SCOPE: &str = "projects/p";
const WORKLOAD: &str = "projects/p/servers/s";

fn fetch() -> v1::FetchEnvironmentRequest {
    v1::FetchEnvironmentRequest::default()
}

/// What a workload is given now, and not while a busy machine makes the store look away.
async fn fetched_now(client: &Client) -> v1::FetchEnvironmentResponse {
    until_async("an answer of now", async || {
        let answer = client.workloads().fetch_environment(fetch()).await.ok()?.into_inner();
        answer.stale_since.is_none().then_some(answer)
    })
    .await
}

fn list() -> v1::ListSecretsRequest {
    v1::ListSecretsRequest { parent: SCOPE.into(), ..Default::default() }
}

async fn start_token(server: &Server) -> String {
    let issuer = server.with("services/starter", &[("workloads:issue", SCOPE)]).await;
    let request = v1::IssueTokenRequest { principal: WORKLOAD.into(), single_use: true, ..Default::default() };
    issuer.tokens().issue_token(request).await.expect("issued").into_inner().token
}

async fn exchange(client: &Client, nonce: u8) -> Result<String, tonic::Status> {
    let request = v1::ExchangeStartTokenRequest { nonce: vec![nonce; 32] };
    client.tokens().exchange_start_token(request).await.map(|answer| answer.into_inner().token)
}
