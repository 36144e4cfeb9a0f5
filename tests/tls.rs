//! TLS by certificate files, from every client.

use std::{fs, path::Path, process::Command};

use coffer_proto::v1;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Authority, Server, client_at, secret, text, until};

fn serve() -> (Server, Authority) {
    serve_for(&["127.0.0.1"])
}

/// A server with a certificate of these names.
fn serve_for(hosts: &[&str]) -> (Server, Authority) {
    let home = TempDir::new().expect("a directory");
    let authority = Authority::write_for(&home, "good", hosts);
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

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_apart() {
    let home = TempDir::new().expect("a directory");
    let stranger = Authority::write_to(&home, "stranger");
    let (server, own) = serve_for(&["coffer.example"]);
    let token = server.operator_token();
    for (ca, said) in [(&stranger.ca, "COFFER_CA_FILE"), (&own.ca, "subjectAltName")] {
        let cli = server.cli(&token).env("COFFER_CA_FILE", ca.as_os_str()).args(["scope", "list"]).run();
        assert!(cli.stderr.contains("hint: ") && cli.stderr.contains(said), "{said}: {}", cli.stderr);
        let injector = server.inject(&token).env("COFFER_CA_FILE", ca.as_os_str());
        let injector = injector.args(["--timeout", "1s", "--workload", "projects/p/servers/s", "--", "true"]).run();
        assert!(injector.stderr.contains(said), "{said}: {}", injector.stderr);
        for other in ["COFFER_CA_FILE", "subjectAltName"].into_iter().filter(|other| *other != said) {
            assert!(!cli.stderr.contains(other) && !injector.stderr.contains(other), "{other}: {}", cli.stderr);
        }
    }
}

/// Runs openssl in `directory`.
fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The words of `check-config`, and whether the configuration is good, of a server with these files.
fn checked(server: &Server, certificate: &Path, key: &Path) -> (String, bool) {
    let mut check = Server::command(&["check-config"]);
    check.arg("--data").arg(server.data()).arg("--key-file").arg(server.key_file());
    check.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    let output = check.output().expect("starts");
    (text(&output), output.status.success())
}

#[tokio::test]
async fn certificates_are_checked_for_use_before_they_are_used() {
    let (server, authority) = serve();
    let home = TempDir::new().expect("a directory");
    let path = |name: &str| home.path().join(name);
    let new_key = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    openssl(home.path(), &format!("{new_key} -out good.key"));
    openssl(
        home.path(),
        "req -x509 -key good.key -subj /CN=x -addext basicConstraints=critical,CA:FALSE -days 7 -out soon.pem",
    );
    openssl(home.path(), "req -x509 -key good.key -subj /CN=x -days 700 -out authority.pem");
    openssl(home.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.key");
    openssl(home.path(), "req -x509 -key p521.key -subj /CN=x -out p521.pem");
    openssl(home.path(), &format!("{new_key} -aes256 -pass pass:x -out encrypted.key"));
    openssl(home.path(), "ec -in good.key -aes256 -passout pass:x -out older.key");
    for (certificate, key, said, is_good) in [
        (authority.certificate.clone(), authority.key.clone(), "the configuration is good", true),
        (path("soon.pem"), path("good.key"), "in 6 days: renew it", true),
        (path("authority.pem"), path("good.key"), "none that coffer's clients accept", true),
        (path("soon.pem"), authority.key.clone(), "is of another key than the one given", false),
        (path("p521.pem"), path("p521.key"), "is of a kind that is not supported: make one of ECDSA P-256", false),
        (path("soon.pem"), path("encrypted.key"), "is encrypted", false),
        (path("soon.pem"), path("older.key"), "is encrypted", false),
    ] {
        let (text, was_good) = checked(&server, &certificate, &key);
        assert!(text.contains(said) && was_good == is_good, "{said}: {text}");
    }
}

#[tokio::test]
async fn an_expired_certificate_replaces_no_good_one() {
    let (mut server, authority) = serve();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    fs::write(&authority.certificate, params.self_signed(&key).expect("a certificate").pem()).expect("written");
    fs::write(&authority.key, key.serialize_pem()).expect("written");
    server.signal(Signal::HUP);
    let expired = "expired at 2021-01-01T00:00:00Z: renew it";
    until("the log names the day", || server.log().contains(expired).then_some(()));
    let operator = client_at(&server.address(), &server.operator_token(), Some(authority.ca.clone()));
    operator.scopes().list_scopes(v1::ListScopesRequest::default()).await.expect("the good one is still in use");

    let (text, is_good) = checked(&server, &authority.certificate, &authority.key);
    assert!(text.contains(expired) && !is_good, "{text}");
    server.stop().await;
    assert!(server.try_run_by(server.run_command()).is_err(), "nobody would trust it");
}
