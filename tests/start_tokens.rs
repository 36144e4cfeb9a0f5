//! Start tokens on the real server: one exchange, a safe retry across a crash, an alarm for a copy, and nothing left of
//! them anywhere.

use coffer_client::Client;
use coffer_proto::v1;
use tonic::Code;

use crate::harness::{Server, forms_of, occurrences, refused, secret};

const SERVER: &str = "projects/p/servers/s";

async fn start_token(server: &Server) -> String {
    let issuer = server.with("services/starter", &[("workloads:issue", "projects/p")]).await;
    let request = v1::IssueTokenRequest { principal: SERVER.into(), single_use: true, ..Default::default() };
    let issued = issuer.tokens().issue_token(request).await.expect("issued").into_inner();
    let metadata = issued.metadata.expect("what is known of it");
    assert!(metadata.single_use && !metadata.used);
    issued.token
}

async fn exchange(client: &Client, nonce: u8) -> Result<String, tonic::Status> {
    let request = v1::ExchangeStartTokenRequest { nonce: vec![nonce; 32] };
    client.tokens().exchange_start_token(request).await.map(|answer| answer.into_inner().token)
}

#[tokio::test]
async fn a_lost_answer_is_safe_and_a_copy_is_not() {
    let mut server = Server::builder().args(["--log", "trace"]).start();
    let manager = server.manager(&["projects/p"]).await;
    manager.secrets().create_secret(secret("projects/p", "KEY", "value")).await.expect("created");
    let start = start_token(&server).await;
    let fetch = v1::FetchEnvironmentRequest::default();
    let refusal = refused(server.client(&start).workloads().fetch_environment(fetch.clone()).await);
    assert_eq!(refusal.why(), (Code::PermissionDenied, "PERMISSION_DENIED"), "it is for one thing only");

    let session = exchange(&server.client(&start), 1).await.expect("exchanged");
    server.kill_and_restart();
    let client = server.client(&start);
    assert_eq!(exchange(&client, 1).await.expect("asked for again"), session);
    let fetched = server.client(&session).workloads().fetch_environment(fetch).await.expect("fetched").into_inner();
    assert_eq!((fetched.workload.as_str(), fetched.variables.len()), (SERVER, 1));
    let refusal = refused(exchange(&client, 2).await);
    assert_eq!(refusal.why(), (Code::Unauthenticated, "START_TOKEN_USED"));

    // Whoever looks after the workload is told, by the list of tokens, the instances and the audit log.
    let issuer = server.with("services/starter", &[]).await;
    let tokens = issuer.tokens().list_tokens(v1::ListTokensRequest::default()).await.expect("listed").into_inner();
    assert!(tokens.tokens.iter().any(|token| token.single_use && token.used), "{:?}", tokens.tokens);
    let request = v1::ListInstancesRequest { parent: "projects/p".into(), ..Default::default() };
    let manager = server.manager(&["projects/p"]).await;
    let known = manager.instances().list_instances(request).await.expect("listed").into_inner();
    assert_eq!(known.workloads.len(), 1);
    assert!(known.workloads[0].token_replay_time.is_some());
    let alarms: Vec<_> =
        server.audit().into_iter().map(|line| line.to_string()).filter(|line| line.contains("alarm")).collect();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].contains("START_TOKEN_USED"), "{}", alarms[0]);

    assert!(server.stop().await.success());
    for (what, token) in [("start", &start), ("session", &session)] {
        let secret_part = &token.split('_').nth(3).expect("a secret part")[..40];
        let found = occurrences(server.home(), &forms_of(secret_part));
        assert_eq!(found, Vec::<String>::new(), "the {what} token");
    }
}
