//! One value through every path, with the log at its loudest: afterwards its bytes are found nowhere.

mod contract;
mod process;

use std::time::Duration;

use coffer_proto::v1::{self, import_secrets_request::Conflict, render_template_request::Sink};

use crate::harness::{Server, forms_of, holds, occurrences, secret, until_async};

const VALUE: &str = "canary-w8Kq2ZrT-Lx90vYpE41";
const PLAIN: &str = "canary-plain-P0dJ3nB7-mQ5s";
const HINT: &str = "cana…pE41";
/// How long a value may stay in memory after the last call and connection.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);

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
    for args in [&["secret", "list", "projects/p"][..], &["--output", "json", "secret", "list", "projects/p"]] {
        let listed = server.cli(&manager_token).args(args).run();
        let shown = [listed.stdout.clone(), listed.stderr.clone().into_bytes()].concat();
        assert_eq!(listed.code, Some(0), "{}", listed.stderr);
        assert!(forms_of(VALUE).iter().all(|form| !holds(&shown, form)), "{args:?} shows it");
    }
    assert!(server.stop().await.success());

    assert!(server.log().len() > 1000, "trace says something: {}", server.log());
    let secret_part = |token: &str| token.split('_').nth(3).expect("a secret part")[..40].to_owned();
    let operator = secret_part(&server.operator_token());
    for (what, text) in [("value", VALUE), ("plain value", PLAIN), ("hint", HINT)] {
        assert_eq!(occurrences(server.home(), &forms_of(text)), Vec::<String>::new(), "the {what}");
    }
    let found = occurrences(server.home(), &forms_of(&operator));
    let elsewhere: Vec<_> =
        found.iter().filter(|at| !at.contains("operator.token") && !at.contains("/token-")).collect();
    assert!(elsewhere.is_empty(), "the operator's token: {elsewhere:#?}");
    let issued = occurrences(server.home(), &forms_of(&secret_part(&manager_token)));
    assert!(issued.iter().all(|at| at.contains("/token-")), "an issued token: {issued:#?}");
    let root = std::fs::read_to_string(server.key_file()).expect("the key");
    let found = occurrences(server.home(), &[root.trim().as_bytes().to_vec(), decoded(root.trim())]);
    assert!(found.iter().all(|at| at.contains("root.key")), "the root key: {} places", found.len());
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

/// Everything at once in one process: all methods with all texts wrong, in the log, below /proc, in files, and, once no
/// call and no connection is left, in memory.
#[tokio::test]
async fn no_method_leaves_a_value_behind_whatever_it_is_given() {
    const CANARY: &str = "canary-Zt5RkN8w-everywhere-Qp27";
    let mut server = Server::builder().args(["--log", "trace"]).start();
    let manager_token = {
        let manager = server.manager(&["projects/p", "projects/q"]).await;
        manager.secrets().create_secret(request()).await.expect("created");
        server.token("users/manager").await
    };
    let operator_token = server.operator_token();
    let planted = |name: &str, text: &str| (name.to_owned(), forms_of(text));
    let values = [planted("a value", VALUE), planted("a canary in a wrong place", CANARY)];
    {
        let got = server.environment("projects/p/servers/s").await;
        assert_eq!(got, [("KEY".to_owned(), VALUE.to_owned())], "it was there all the time");
        let methods = contract::drive(&server, &[&manager_token, &operator_token], CANARY).await;
        assert!(methods > 30, "{methods} methods");
        through_value(&server).await;
    }
    assert_eq!(process::told(server.pid(), &values), Vec::<String>::new());
    let is_gone = async || match process::remembered(server.pid(), &values) {
        Ok(found) => Some(Ok(found)).filter(|found| found.as_ref().is_ok_and(Vec::is_empty)),
        Err(error) => Some(Err(error)),
    };
    match tokio::time::timeout(FORGOTTEN_WITHIN, until_async("the server to forget", is_gone)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => eprintln!("the server's memory is not searched in this run: {error}"),
        Err(_) => panic!("in memory: {:#?}", process::remembered(server.pid(), &values)),
    }
    assert!(server.stop().await.success());
    for (what, forms) in &values {
        assert_eq!(occurrences(server.home(), forms), Vec::<String>::new(), "{what}");
    }
}

/// A redaction and a template, whose matchers and buffers hold values for a while.
async fn through_value(server: &Server) {
    let workload = server.client(&server.workload_token("projects/p/servers/s").await);
    let redact = v1::RedactTextRequest { texts: vec![VALUE.into()], ..Default::default() };
    let cleaned = workload.redactions().redact_text(redact).await.expect("cleaned").into_inner();
    assert_eq!(cleaned.texts, [b"{{KEY}}"]);
    let render =
        v1::RenderTemplateRequest { texts: vec!["{{KEY}}".into()], sink: Sink::Header.into(), ..Default::default() };
    let rendered = workload.templates().render_template(render).await.expect("rendered").into_inner();
    assert_eq!(rendered.texts, [VALUE.as_bytes()]);
}
