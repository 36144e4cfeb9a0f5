//! The audit log says who did what to which names, decided how; never a value, hint, description or token.

use coffer_proto::v1;
use serde_json::Value;

use crate::harness::{Server, secret};

/// The lines of the log that are about this method.
fn lines(server: &Server, method: &str) -> Vec<Value> {
    server.audit().into_iter().filter(|line| line.to_string().contains(method)).collect()
}

fn text(line: &Value) -> String {
    line.to_string()
}

#[tokio::test]
async fn a_change_is_announced_before_and_settled_after_and_a_fetch_before_it_leaves() {
    let server = Server::start();
    let manager = server.manager(&["projects/p"]).await;
    let value = "audited-Vq81-value-of-a-secret";
    let request =
        v1::CreateSecretRequest { description: "audited-description".into(), ..secret("projects/p", "KEY", value) };
    manager.secrets().create_secret(request).await.expect("created");
    let created = lines(&server, "CreateSecret");
    assert_eq!(created.len(), 2, "intent and outcome: {created:#?}");
    for line in &created {
        assert!(text(line).contains("users/manager"), "who: {line}");
        assert!(text(line).contains("projects/p/secrets/KEY"), "what: {line}");
    }
    server.environment("projects/p/servers/s").await;
    let fetched = lines(&server, "FetchEnvironment");
    assert!(!fetched.is_empty());
    assert!(fetched.iter().any(|line| text(line).contains("projects/p/servers/s")), "{fetched:#?}");
    assert!(fetched.iter().any(|line| text(line).contains("KEY")), "which names left: {fetched:#?}");

    let all = std::fs::read_to_string(server.home().join("audit.log")).expect("the log");
    for hidden in [value, "audi…cret", "audited-description", &server.operator_token()] {
        assert!(!all.contains(hidden), "the log holds {hidden:?}");
    }
}

#[tokio::test]
async fn refusals_are_written_down_too() {
    let server = Server::start();
    let eve = server.with("users/eve", &[]).await;
    let list = v1::ListSecretsRequest { parent: "projects/p".into(), ..Default::default() };
    eve.secrets().list_secrets(list).await.map(drop).expect_err("forbidden");
    eve.secrets().create_secret(secret("projects/p", "KEY", "v")).await.map(drop).expect_err("forbidden");
    let refusals: Vec<_> =
        server.audit().into_iter().map(|line| text(&line)).filter(|l| l.contains("users/eve")).collect();
    let denied = |method: &str| refusals.iter().any(|line| line.contains(method) && line.contains("refused"));
    assert!(denied("CreateSecret") && denied("ListSecrets"), "{refusals:#?}");
}

#[tokio::test]
async fn grants_and_tokens_that_lead_to_values_are_marked() {
    let server = Server::start();
    server.grant("users/m", "secrets:manage", "projects/p").await;
    let before = server.audit().len();
    server.grant("services/i", "secrets:inject", "projects/p").await;
    let marked: Vec<_> = server.audit().split_off(before).iter().map(text).collect();
    let plain: Vec<_> = lines(&server, "CreateGrant").iter().map(text).filter(|l| l.contains("users/m")).collect();
    let mark = |line: &String| line.contains("leads_to_values\":true");
    assert!(marked.iter().any(mark), "{marked:#?}");
    assert!(!plain.iter().any(mark), "{plain:#?}");
    server.workload_token("projects/p/servers/s").await;
    let issued: Vec<_> = lines(&server, "IssueToken").iter().map(text).collect();
    assert!(issued.iter().any(|l| l.contains("projects/p/servers/s") && mark(l)), "{issued:#?}");
}
