//! Templates: what a placeholder is, all or nothing, and the rules of the sinks.

use coffer_client::Client;
use coffer_proto::{
    limits,
    v1::{self, render_template_request::Sink},
};
use tonic::{Code, Status};

use crate::harness::{Server, refused, secret};

const PROJECT: &str = "projects/p";
const WORKLOAD: &str = "projects/p/servers/s";

async fn with(secrets: Vec<v1::CreateSecretRequest>) -> (Server, Client) {
    let server = Server::start();
    let manager = server.manager(&[PROJECT]).await;
    for request in secrets {
        manager.secrets().create_secret(request).await.expect("created");
    }
    let workload = server.client(&server.workload_token(WORKLOAD).await);
    (server, workload)
}

fn request(texts: &[&str], sink: Sink, host: &str) -> v1::RenderTemplateRequest {
    v1::RenderTemplateRequest {
        texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        sink: sink.into(),
        destination_host: host.to_owned(),
        ..Default::default()
    }
}

async fn render(client: &Client, request: v1::RenderTemplateRequest) -> Result<Vec<String>, Status> {
    let answer = client.templates().render_template(request).await?.into_inner();
    assert!(!answer.environment_revision.is_empty());
    Ok(answer.texts.into_iter().map(|text| String::from_utf8(text).expect("text")).collect())
}

#[tokio::test]
async fn texts_are_read_once() {
    let (_server, workload) =
        with(vec![secret(PROJECT, "A", "{{B}} {{{{"), secret(PROJECT, "B", "other"), secret(PROJECT, "C", "}}")]).await;
    for (text, expected) in [
        ("Bearer {{A}}", "Bearer {{B}} {{{{"),
        ("{{ B }}{{B}}", "otherother"),
        ("{{{B}}}", "{other}"),
        ("{{{{B}}", "{{B}}"),
        ("{{B", "{{B"),
        ("{{B} }{{", "{{B} }{{"),
        ("{{B{{B}}}}", "{{Bother}}"),
        ("{{ B}} {{b}} {{}}", "{{ B}} {{b}} {{}}"),
        ("{{{{B{{C}}", "{{B}}"),
        ("", ""),
    ] {
        let rendered = render(&workload, request(&[text], Sink::Header, "")).await.expect(text);
        assert_eq!(rendered, [expected], "{text}");
    }
    let many = "{{B}}".repeat(9_000);
    let rendered = render(&workload, request(&[&many, "x", &many], Sink::Header, "")).await.expect("thousands");
    assert_eq!((rendered.len(), rendered[0].len(), rendered[1].as_str()), (3, 45_000, "x"));
}

#[tokio::test]
async fn one_error_names_every_unknown_name() {
    let (_server, workload) = with(vec![secret(PROJECT, "KNOWN", "line\r\nbreak")]).await;
    let names: Vec<_> = (0..600).map(|at| format!("UNKNOWN_{at:03}")).collect();
    let texts: Vec<_> = names.iter().map(|name| format!("{{{{{name}}}}} {{{{KNOWN}}}}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let refusal = refused(render(&workload, request(&texts[..100], Sink::Header, "")).await);
    assert_eq!(refusal.why(), (Code::NotFound, "SECRET_NOT_FOUND"));
    assert!(names[..100].iter().all(|name| refusal.message.contains(name)), "{}", refusal.message);
    assert!(refusal.message.contains("control characters") && refusal.message.contains("KNOWN"), "{}", refusal.message);
    let refusal = refused(render(&workload, request(&texts, Sink::Instruction, "")).await);
    assert_eq!(refusal.why(), (Code::NotFound, "SECRET_NOT_FOUND"));
    assert!(refusal.message.contains(" and ") && refusal.message.len() < 6_000, "{}", refusal.message);
    assert!(!refusal.message.contains("break"));
}

#[tokio::test]
async fn a_header_gets_what_is_safe_and_meant_for_its_host() {
    let bound = v1::CreateSecretRequest {
        allowed_hosts: vec!["*.Example.com".into(), "localhost".into()],
        ..secret(PROJECT, "BOUND", "bound")
    };
    let (_server, workload) = with(vec![
        secret(PROJECT, "CRLF", "a\r\nSet-Cookie: b"),
        secret(PROJECT, "DEL", "a\u{7f}b"),
        secret(PROJECT, "FREE", "free"),
        bound,
    ])
    .await;
    let refusal = refused(render(&workload, request(&["{{FREE}}{{CRLF}}", "{{DEL}}"], Sink::Header, "")).await);
    assert_eq!(refusal.why(), (Code::FailedPrecondition, "VALUE_UNSAFE_IN_HEADER"));
    assert!(refusal.message.contains("CRLF, DEL") && !refusal.message.contains("FREE"), "{}", refusal.message);
    for host in ["api.example.com", "API.EXAMPLE.COM", "a.b.example.com", "LOCALHOST"] {
        let rendered = render(&workload, request(&["{{BOUND}}{{FREE}}"], Sink::Header, host)).await.expect(host);
        assert_eq!(rendered, ["boundfree"]);
    }
    for host in ["", "example.com", "example.com.evil.org", "notexample.com", "localhost.example.org"] {
        let refusal = refused(render(&workload, request(&["{{BOUND}}{{FREE}}"], Sink::Header, host)).await);
        assert_eq!(refusal.why(), (Code::FailedPrecondition, "DESTINATION_NOT_ALLOWED"), "{host}");
        assert!(refusal.message.contains("BOUND") && !refusal.message.contains("FREE"), "{}", refusal.message);
    }
}

#[tokio::test]
async fn a_model_reads_what_is_plain_or_allowed() {
    let plain = v1::CreateSecretRequest { kind: v1::SecretKind::Plain.into(), ..secret(PROJECT, "PLAIN", "p\n") };
    let allowed = v1::CreateSecretRequest { allow_in_instructions: true, ..secret(PROJECT, "ALLOWED", "a\r\n") };
    let (_server, workload) = with(vec![plain, allowed, secret(PROJECT, "CLOSED", "c")]).await;
    let rendered = render(&workload, request(&["{{PLAIN}}{{ALLOWED}}"], Sink::Instruction, "")).await;
    assert_eq!(rendered.expect("allowed"), ["p\na\r\n"]);
    let refusal = refused(render(&workload, request(&["{{PLAIN}}{{CLOSED}}"], Sink::Instruction, "")).await);
    assert_eq!(refusal.why(), (Code::FailedPrecondition, "NOT_FOR_INSTRUCTIONS"));
    assert!(refusal.message.contains("CLOSED") && !refusal.message.contains("PLAIN"), "{}", refusal.message);
}

#[tokio::test]
async fn fields_and_sizes_are_checked() {
    let (_server, workload) = with(vec![secret(PROJECT, "BIG", &"x".repeat(limits::VALUE_BYTES))]).await;
    for (field, bad) in [
        ("sink", request(&["x"], Sink::Unspecified, "")),
        ("texts", request(&["x"; limits::TEXTS + 1], Sink::Header, "")),
        ("destination_host", request(&["x"], Sink::Header, "*.example.com")),
        ("destination_host", request(&["x"], Sink::Header, "https://example.com")),
        ("destination_host", request(&["x"], Sink::Header, "example.com:443")),
        ("destination_host", request(&["x"], Sink::Instruction, "example.com")),
        ("texts", request(&[&"{{BIG}}".repeat(33)], Sink::Header, "")),
    ] {
        let refusal = refused(render(&workload, bad).await);
        assert_eq!((refusal.code, refusal.field()), (Code::InvalidArgument, field));
    }
    let most = render(&workload, request(&[&"{{BIG}}".repeat(32)], Sink::Header, "")).await.expect("2 MiB");
    assert_eq!(most[0].len(), limits::RENDERED_BYTES);
    let text = "{".repeat(limits::REQUEST_BYTES - 64);
    let braces = render(&workload, request(&[&text], Sink::Header, "")).await.expect("braces");
    assert_eq!(braces[0].len(), text.len() / 2);
    let text = "{".repeat(limits::REQUEST_BYTES);
    let status = render(&workload, request(&[&text], Sink::Header, "")).await.expect_err("too large a message");
    assert_eq!(status.code(), Code::OutOfRange);
}
