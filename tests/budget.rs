//! What one token can do to the audit log by using it in a loop.

use std::{fs, time::Duration};

use coffer_proto::v1;
use tempfile::TempDir;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Server, until};

/// One a second in the long run, and a hundred at once.
const BUDGET: usize = 100;

#[tokio::test]
async fn no_token_fills_the_log_by_calls_that_are_answered_or_refused() {
    let home = TempDir::new().expect("a directory");
    let config = home.path().join("coffer.toml");
    fs::write(&config, "[audit]\ncalls_per_second = 1\n").expect("written");
    let server = Server::builder().args(["--config".as_ref(), config.as_os_str()]).start_in(home);
    let starter = server.with("services/starter", &[("workloads:issue", "projects/p")]).await;
    let issue = async |id: &str| {
        let request = v1::IssueTokenRequest { principal: format!("projects/p/servers/{id}"), ..Default::default() };
        server.client(&starter.tokens().issue_token(request).await.expect("issued").into_inner().token)
    };
    let (busy, other) = (issue("busy").await, issue("other").await);
    let fetch = v1::FetchEnvironmentRequest::default;
    let mut answered = 0;
    let spent = loop {
        match busy.workloads().fetch_environment(fetch()).await {
            Ok(_) if answered < 10 * BUDGET => answered += 1,
            Ok(_) => panic!("{answered} calls are answered"),
            Err(status) => break status,
        }
    };
    // What a slow machine takes for a hundred calls fills the bucket on.
    assert!((BUDGET..BUDGET + 60).contains(&answered), "{answered}");
    let details = spent.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("CALL_BUDGET_SPENT"), "{spent}");
    let wait = details.retry_info().and_then(|info| info.retry_delay).expect("when to try again");
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    other.workloads().fetch_environment(fetch()).await.expect("others have budgets of their own");

    // Refused calls cost no budget and get few lines, whose last ones say how many there were.
    let refused = || v1::ListSecretsRequest { parent: "projects/secret".into(), ..Default::default() };
    const REFUSED: usize = 1_000;
    for _ in 0..REFUSED {
        let denied = other.secrets().list_secrets(refused()).await.map(drop).expect_err("denied");
        assert_eq!(denied.code(), Code::PermissionDenied);
    }
    let of_other = || {
        let lines = server.audit().into_iter();
        let lines = lines.filter(|line| line["principal"] == "projects/p/servers/other" && line["phase"] == "refused");
        lines.collect::<Vec<_>>()
    };
    let added_up = |lines: &[serde_json::Value]| -> usize {
        let details = lines.iter().filter_map(|line| line["details"].as_object());
        details.filter_map(|details| details.get("unwritten_refusals")?.as_str()?.parse::<usize>().ok()).sum()
    };
    let told = until("the sum of them all", || {
        let lines = of_other();
        let sums = lines.iter().filter(|line| line["method"] == "coffer-server/refusals").count();
        (added_up(&lines) + lines.len() - sums == REFUSED).then_some(lines)
    });
    assert!(told.len() < BUDGET + 60, "{} lines", told.len());
    assert!(told.iter().any(|line| line.to_string().contains("projects/secret")), "{told:?}");
}
