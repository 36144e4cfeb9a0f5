//! TLS by certificate files, from every client.

use coffer_proto::v1;
use tempfile::TempDir;

use crate::harness::{Authority, Server, client_at, secret};

fn serve() -> (Server, Authority) {
    let home = TempDir::new().expect("a directory");
    let authority = Authority::write_to(&home, "good");
    let builder = Server::builder().args([
        "--tls-cert".as_ref(),
        authority.certificate.as_os_str(),
        "--tls-key".as_ref(),
        authority.key.as_os_str(),
    ]);
    (builder.start_in(home), authority)
}

#[tokio::test]
async fn every_client_speaks_tls_to_a_server_it_can_verify() {
    let (server, authority) = serve();
    assert!(server.address().starts_with("https://127.0.0.1:"), "{}", server.address());
    let operator = client_at(&server.address(), &server.operator_token(), Some(authority.ca.clone()));
    operator.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect("listed");

    let manager = server.socket_client(&server.operator_token());
    for (principal, permission) in [("users/m", "secrets:manage"), ("services/i", "secrets:inject")] {
        let request = v1::CreateGrantRequest {
            principal: principal.into(),
            permission: permission.into(),
            pattern: "projects/p".into(),
        };
        manager.access().create_grant(request).await.expect("granted");
    }
    let token = server.issue(&manager, "users/m", None).await;
    server.socket_client(&token).secrets().create_secret(secret("projects/p", "KEY", "over TLS")).await.expect("made");
    let ca = authority.ca.as_os_str();
    let listed = server.cli(&token).env("COFFER_CA_FILE", ca).args(["secret", "list", "projects/p"]).run().ok();
    assert!(listed.contains("KEY"), "{listed}");
    let injector = server.issue(&manager, "services/i", None).await;
    let run = server.inject(&injector).env("COFFER_CA_FILE", ca);
    let run = run.args(["--workload", "projects/p/servers/s", "--", "sh", "-c", "printf %s \"$KEY\""]).run();
    assert_eq!(run.ok(), "over TLS");
}

#[tokio::test]
async fn nobody_speaks_to_a_server_it_cannot_verify_nor_without_tls() {
    let (server, _) = serve();
    let home = TempDir::new().expect("a directory");
    let other = Authority::write_to(&home, "other");
    let failed = client_at(&server.address(), &server.operator_token(), Some(other.ca))
        .scopes()
        .list_scopes(v1::ListScopesRequest::default())
        .await;
    assert!(failed.is_err(), "a certificate of another authority");

    let token = server.operator_token();
    let unverified = server.cli(&token).args(["scope", "list"]).run();
    assert_ne!(unverified.code, Some(0), "the system's authorities do not know it");
    assert!(unverified.stderr.starts_with("error: "), "{}", unverified.stderr);
    let plain = server.cli(&token).env("COFFER_ADDRESS", server.address().replace("https", "http"));
    assert_ne!(plain.args(["scope", "list"]).run().code, Some(0));
    let operator = server.socket_client(&token);
    operator.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect("the socket needs none");
}
