//! One value through every path, with the log at its loudest: afterwards its bytes are found nowhere.

mod commands;
mod contract;
mod etcd;
mod offline;
mod process;
mod starts;
mod starved;

use coffer_proto::v1::{self, import_secrets_request::Conflict, render_template_request::Sink};

use crate::harness::{Planted, Server, occurrences, secret};
use contract::{belongs, secret_part};

/// Two runs of letters and digits, each looked for by itself, around what encodings escape.
const VALUE: &str = "canary-w8Kq2ZrTcN7u \"/+%é\\ Lx90vYpE41QdGh";
const PLAIN: &str = "canary-plain-P0dJ3nB7mQ5s \"/+%é\\ Hr8sTb2kWm6c";
const HINT: &str = "cana…QdGh";

fn request() -> v1::CreateSecretRequest {
    secret("projects/p", "KEY", VALUE)
}

#[tokio::test]
async fn the_value_is_nowhere_but_where_it_belongs() {
    let mut server = Server::builder().args(["--log", "trace"]).start();
    let manager = server.manager(&["projects/p", "projects/q"]).await;
    let secrets = || manager.secrets();
    let plain = v1::CreateSecretRequest { kind: v1::SecretKind::Plain.into(), ..secret("projects/p", "OPEN", PLAIN) };
    secrets().create_secret(plain).await.expect("created");
    secrets().create_secret(request()).await.expect("created");
    secrets().create_secret(request()).await.map(drop).expect_err("exists");
    secrets().create_secret(secret("projects/p", "bad", VALUE)).await.map(drop).expect_err("a bad name");
    secrets().create_secret(secret("projects/p", "LD_PRELOAD", VALUE)).await.map(drop).expect_err("a reserved name");
    secrets().create_secret(secret("projects/x", "KEY", VALUE)).await.map(drop).expect_err("forbidden");
    secrets().create_secret(secret("projects/p", "NUL", &format!("{VALUE}\0"))).await.map(drop).expect_err("NUL");
    // A value in every field that is not one.
    for misplaced in [secret(VALUE, "K", "v"), secret("projects/p", VALUE, "v")] {
        secrets().create_secret(misplaced).await.map(drop).expect_err("misplaced");
    }
    let name = "projects/p/secrets/KEY".to_owned();
    let update = v1::UpdateSecretRequest { name: name.clone(), value: Some(VALUE.into()), ..Default::default() };
    secrets().update_secret(update.clone()).await.expect("updated");
    let stale = v1::UpdateSecretRequest { etag: VALUE.into(), ..update };
    secrets().update_secret(stale).await.map(drop).expect_err("no etag of ours");
    let entries = vec![v1::ImportEntry { secret_id: "IMPORTED".into(), value: VALUE.into(), ..Default::default() }];
    let import = v1::ImportSecretsRequest {
        parent: "projects/p".into(),
        entries,
        conflict: Conflict::Fail.into(),
        validate_only: false,
        sharing: None,
    };
    manager.imports().import_secrets(import.clone()).await.expect("imported");
    manager.imports().import_secrets(import).await.map(drop).expect_err("exists");
    let clone = v1::CloneSecretsRequest {
        names: vec!["projects/p/secrets/-".into()],
        destination: "projects/q".into(),
        ..Default::default()
    };
    secrets().clone_secrets(clone).await.expect("cloned");
    let list = v1::ListSecretsRequest { parent: "projects/-".into(), page_token: VALUE.into(), ..Default::default() };
    secrets().list_secrets(list).await.map(drop).expect_err("no page token of ours");
    let bad = format!("Bearer {VALUE}");
    let empty = Vec::new();
    server
        .raw()
        .call_with("/coffer.v1.Scopes/ListScopes", Some(bad.as_bytes()), empty)
        .await
        .map(drop)
        .expect_err("no token");

    let got = server.environment("projects/p/servers/s").await;
    assert_eq!(got[1], ("KEY".to_owned(), VALUE.to_owned()), "it was there all the time");
    through_texts(&server).await;
    server.kill_and_restart();
    assert_eq!(server.environment("projects/q/servers/s").await[1].1, VALUE);
    secrets_after(&server, &name).await;
    let token = server.workload_token("projects/p/servers/s").await;
    let run = server.inject(&token).args(["--", "sh", "-c", "printf %s \"$KEY$IMPORTED\""]).run();
    assert!(run.stderr.is_empty(), "{}", run.stderr);
    let manager_token = server.token("users/manager").await;
    assert!(server.stop().await.success());

    assert!(server.log().len() > 1000, "trace says something: {}", server.log());
    let tokens = [server.operator_token(), token, manager_token].map(|token| secret_part(&token));
    let root = std::fs::read_to_string(server.key_file()).expect("the key");
    let texts = [("value", VALUE), ("plain value", PLAIN), ("hint", HINT), ("the root key", root.trim())];
    let planted = Planted::new(texts.into_iter().chain(tokens.iter().map(|token| ("a token", token.as_str()))));
    let found = planted.found_below(server.home());
    assert!(found.iter().any(|at| belongs(at)), "what is there is found");
    let elsewhere: Vec<_> = found.iter().filter(|at| !belongs(at)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    assert_eq!(occurrences(server.home(), &[decoded(root.trim())]), Vec::<String>::new(), "the root key's bytes");
}

fn decoded(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

/// Rendered for a header, refused to a model, and taken out of texts.
async fn through_texts(server: &Server) {
    let workload = server.client(&server.workload_token("projects/p/servers/s").await);
    let render = |sink: Sink, text: String| v1::RenderTemplateRequest {
        texts: vec![text],
        sink: sink.into(),
        ..Default::default()
    };
    let good = render(Sink::Header, format!("{{{{KEY}}}} {VALUE}"));
    let rendered = workload.templates().render_template(good).await.expect("rendered").into_inner();
    assert_eq!(rendered.texts, [format!("{VALUE} {VALUE}").into_bytes()]);
    let closed = render(Sink::Instruction, format!("{{{{KEY}}}} {VALUE}"));
    workload.templates().render_template(closed).await.map(drop).expect_err("not for a model");
    let host = v1::RenderTemplateRequest { destination_host: VALUE.into(), ..render(Sink::Header, "{{NO}}".into()) };
    workload.templates().render_template(host).await.map(drop).expect_err("unknown");
    let redact = v1::RedactTextRequest { texts: vec![VALUE.into()], ..Default::default() };
    let cleaned = workload.redactions().redact_text(redact).await.expect("cleaned").into_inner();
    assert_eq!(cleaned.texts, [b"{{IMPORTED}}"], "the first name of equal values");
    let parts = [&VALUE.as_bytes()[..9], &VALUE.as_bytes()[9..]];
    let parts = parts.map(|part| v1::RedactStreamRequest { part: part.to_vec(), ..Default::default() });
    let mut stream = workload.redactions().redact_stream(tokio_stream::iter(parts)).await.expect("begun").into_inner();
    assert_eq!(stream.message().await.expect("cleaned").map(|answer| answer.part), Some(b"{{IMPORTED}}".to_vec()));
}

async fn secrets_after(server: &Server, name: &str) {
    let manager = server.client(&server.token("users/manager").await);
    let got = manager.secrets().get_secret(v1::GetSecretRequest { name: name.to_owned() }).await.expect("it stands");
    assert_eq!(got.into_inner().hint, HINT, "the hint is for readers");
}
