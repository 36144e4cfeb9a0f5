//! An etcd that has reached its quota.

use coffer_client::Client;
use coffer_proto::{
    token::Token,
    v1::{self, store_status::Writes},
};
use tonic::{Code, Status};

use super::{SCOPE, WORKLOAD, fetched_now, list};
use crate::harness::{Etcd, Server, again, refused, secret, until_async};

/// Eight of them fill a scope.
const VALUE_BYTES: usize = 60_000;
const EACH_SCOPE: usize = 8;
/// More than fit.
const SECRETS: usize = 240;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_without_room_is_read_and_deleted_from_and_written_to_once_there_is_room() {
    let etcd = Etcd::start_with(1, &["--quota-backend-bytes=8000000"]);
    let server = Server::builder().on(etcd.config("")).start();
    let manager = server.manager(&[SCOPE, "projects/fill-1"]).await;
    manager.secrets().create_secret(secret(SCOPE, "KEY", "value")).await.expect("created");
    let workload = server.client(&server.workload_token(WORKLOAD).await);
    let revoked = server.token("users/manager").await;
    let grant = server.operator().access().list_grants(v1::ListGrantsRequest::default()).await.expect("listed");
    let grants = grant.into_inner().grants;
    let grant = grants.into_iter().find(|grant| grant.pattern == "projects/fill-1").expect("as granted").name;
    let (writes, reason) = writes(&server).await;
    assert_eq!((writes, reason.as_str()), (Writes::All, ""));

    let filler = server.with("users/filler", &[("secrets:manage", "projects/-")]).await;
    let (filled, full) = fill(&filler).await;
    let refusal = refused::<()>(Err(full));
    assert_eq!(refusal.why(), (Code::ResourceExhausted, "STORAGE_FULL"));
    assert_eq!(refusal.message, "no room: the store is nearly full; deletes still work");
    let create = manager.secrets().create_secret(secret(SCOPE, "OTHER", "value")).await;
    assert_eq!(refused(create).why(), (Code::ResourceExhausted, "STORAGE_FULL"));
    let (writes, reason) = self::writes(&server).await;
    assert_eq!((writes, reason.as_str()), (Writes::Deletes, "etcd has reached its quota (alarm NOSPACE)"));
    let told = server.cli(&server.operator_token()).args(["store", "status", "--exit-code"]).run();
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.text().contains("etcd has reached its quota (alarm NOSPACE)"), "{}", told.text());

    // Reads go on, and whatever takes something away; and a server starts.
    assert_eq!(names(&manager).await, ["KEY"]);
    drop(Server::builder().beside(&server));
    assert_eq!(fetched_now(&workload).await.variables.len(), 1);
    let name = format!("tokens/{}", Token::parse(&revoked).expect("a token").id());
    server.operator().tokens().revoke_token(v1::RevokeTokenRequest { name }).await.expect("revoked");
    let over = server.client(&revoked).secrets().list_secrets(list()).await;
    assert_eq!(refused(over).why(), (Code::Unauthenticated, "CREDENTIAL_INVALID"));
    server.operator().access().delete_grant(v1::DeleteGrantRequest { name: grant }).await.expect("removed");
    let name = format!("{SCOPE}/secrets/KEY");
    manager.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await.expect("deleted");
    assert_eq!(names(&manager).await, Vec::<String>::new());

    // What an operator of etcd does about it; nobody starts coffer again.
    for name in filled {
        filler.secrets().delete_secret(v1::DeleteSecretRequest { name, ..Default::default() }).await.expect("deleted");
    }
    etcd.ask().compact(0).await;
    etcd.ask().defragment(0).await;
    etcd.ask().disarm().await;
    until_async("writes to go on", async || {
        manager.secrets().create_secret(secret(SCOPE, "OTHER", "value")).await.ok()
    })
    .await;
    assert_eq!(names(&manager).await, ["OTHER"]);
    let (writes, reason) = self::writes(&server).await;
    assert_eq!((writes, reason.as_str()), (Writes::All, ""));
}

/// Creates large secrets until that is refused, and not because the store is slow.
async fn fill(filler: &Client) -> (Vec<String>, Status) {
    let value = "v".repeat(VALUE_BYTES);
    let mut filled = Vec::new();
    for at in 0..SECRETS {
        let request = secret(&format!("projects/fill-{}", at / EACH_SCOPE), &format!("S{at}"), &value);
        match again(async || filler.secrets().create_secret(request.clone()).await).await {
            Ok(made) => filled.push(made.into_inner().name),
            Err(status) => return (filled, status),
        }
    }
    panic!("etcd takes more than its quota");
}

async fn writes(server: &Server) -> (Writes, String) {
    let store = server.store_status().await;
    (store.writes(), store.writes_reason)
}

async fn names(manager: &Client) -> Vec<String> {
    let listed = again(async || manager.secrets().list_secrets(list()).await).await.expect("listed").into_inner();
    let id = |secret: v1::Secret| secret.name.rsplit('/').next().expect("a name").to_owned();
    listed.secrets.into_iter().map(id).collect()
}
