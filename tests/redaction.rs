//! Redaction: no value of the environment stays in a text, however long the text and wherever it is cut.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_client::Client;
use coffer_proto::{limits, v1};
use tokio_stream::iter;
use tonic::{Code, Status};

use crate::harness::{Server, holds, refused, secret, until_async};

const PROJECT: &str = "projects/p";
const WORKLOAD: &str = "projects/p/servers/s";
const VALUE: &str = "s3cr3t-\"quoted\"\n/+ value";
const OVERLAPPING: &str = "+ value-and-more";

async fn workload(server: &Server) -> Client {
    let manager = server.manager(&[PROJECT]).await;
    let plain =
        v1::CreateSecretRequest { kind: v1::SecretKind::Plain.into(), ..secret(PROJECT, "PLAIN", "plain-value") };
    for request in [
        secret(PROJECT, "KEY", VALUE),
        secret(PROJECT, "MORE", OVERLAPPING),
        secret(PROJECT, "SHORT", "1234567"),
        plain,
    ] {
        manager.secrets().create_secret(request).await.expect("created");
    }
    server.client(&server.workload_token(WORKLOAD).await)
}

async fn redact(client: &Client, texts: Vec<Vec<u8>>) -> Result<(Vec<Vec<u8>>, i64), Status> {
    let request = v1::RedactTextRequest { texts, ..Default::default() };
    let answer = client.redactions().redact_text(request).await?.into_inner();
    Ok((answer.texts, answer.replaced))
}

/// The cleaned text of a stream, and how many values were replaced.
async fn redact_stream(client: &Client, parts: Vec<v1::RedactStreamRequest>) -> Result<(Vec<u8>, i64), Status> {
    let mut answers = client.redactions().redact_stream(iter(parts)).await?.into_inner();
    let (mut text, mut replaced) = (Vec::new(), 0);
    while let Some(answer) = answers.message().await? {
        assert!(answer.part.len() <= 256 * 1024);
        text.extend(answer.part);
        replaced += answer.replaced;
    }
    Ok((text, replaced))
}

fn parts(text: &[u8], bytes: usize) -> Vec<v1::RedactStreamRequest> {
    text.chunks(bytes).map(|part| v1::RedactStreamRequest { part: part.to_vec(), ..Default::default() }).collect()
}

#[tokio::test]
async fn encrypted_values_become_placeholders() {
    let server = Server::start();
    let workload = workload(&server).await;
    let text = format!("<{VALUE}> plain-value 1234567 {VALUE}-and-more \u{1}");
    let not_text = [b"\xff\xfe", VALUE.as_bytes(), b"\0"].concat();
    let (texts, replaced) = redact(&workload, vec![text.into(), not_text, Vec::new()]).await.expect("cleaned");
    let expected = "<{{KEY}}> plain-value 1234567 {{KEY}}{{MORE}} \u{1}".as_bytes().to_vec();
    assert_eq!(texts, [expected, b"\xff\xfe{{KEY}}\0".to_vec(), Vec::new()]);
    assert_eq!(replaced, 4);
    let hex: String = VALUE.bytes().map(|byte| format!("{byte:02X}")).collect();
    let base64 = (0..3).map(|at| STANDARD.encode(format!("{}{VALUE}", &"..."[..at])));
    let json = serde_json::to_string(VALUE).expect("JSON");
    let forms = base64.chain([hex, serde_json::to_string(&json).expect("JSON"), json]);
    for form in forms.map(String::into_bytes) {
        let (texts, replaced) = redact(&workload, vec![form.clone()]).await.expect("cleaned");
        assert!(replaced == 1 && holds(&texts[0], b"{{KEY}}"), "{}", String::from_utf8_lossy(&form));
    }
}

#[tokio::test]
async fn megabytes_are_cleaned() {
    let server = Server::start();
    let workload = workload(&server).await;
    let line = format!("{{\"output\": {VALUE:?}}}\n").into_bytes();
    let text = line.repeat(4_000_000 / line.len());
    let (texts, replaced) = redact(&workload, vec![text.clone()]).await.expect("cleaned");
    assert_eq!(replaced as usize, text.len() / line.len());
    assert!(!holds(&texts[0], b"s3cr3t"));
    let too_much = redact(&workload, vec![vec![b'x'; limits::REDACT_REQUEST_BYTES]]).await;
    assert_eq!(too_much.map(drop).map_err(|status| status.code()), Err(Code::OutOfRange));
    let too_many = refused(redact(&workload, vec![Vec::new(); limits::TEXTS + 1]).await);
    assert_eq!((too_many.code, too_many.field()), (Code::InvalidArgument, "texts"));
}

#[tokio::test]
async fn an_answer_that_would_be_too_large_says_what_to_use() {
    let server = Server::start();
    let name = "N".repeat(limits::SECRET_NAME_BYTES);
    let manager = server.manager(&[PROJECT]).await;
    manager.secrets().create_secret(secret(PROJECT, &name, "12345678")).await.expect("created");
    let workload = server.client(&server.workload_token(WORKLOAD).await);
    let text = b"12345678 ".repeat(100_000);
    let refusal = refused(redact(&workload, vec![text.clone()]).await);
    assert_eq!((refusal.code, refusal.field()), (Code::InvalidArgument, "texts"));
    assert!(refusal.message.contains("RedactStream"), "{}", refusal.message);
    let (cleaned, replaced) = redact_stream(&workload, parts(&text, text.len())).await.expect("streamed");
    assert_eq!((cleaned.len(), replaced), (100_000 * (limits::SECRET_NAME_BYTES + 5), 100_000));
}

#[tokio::test]
async fn a_stream_may_be_cut_anywhere() {
    let server = Server::start();
    let workload = workload(&server).await;
    let text = format!("<{VALUE}> {VALUE}-and-more {}", VALUE.replace('"', "\\\"").replace('\n', "\\n"));
    let whole = redact(&workload, vec![text.clone().into()]).await.expect("cleaned");
    for bytes in [1, 3, 7, 1000] {
        let (cleaned, replaced) = redact_stream(&workload, parts(text.as_bytes(), bytes)).await.expect("cleaned");
        assert_eq!((vec![cleaned], replaced), whole, "in parts of {bytes}");
    }
}

#[tokio::test]
async fn a_stream_names_its_workload_once() {
    let server = Server::start();
    let workload = workload(&server).await;
    let part = |workload: &str| v1::RedactStreamRequest { workload: workload.to_owned(), part: VALUE.into() };
    let (text, replaced) = redact_stream(&workload, vec![part(WORKLOAD), part("")]).await.expect("its own");
    assert_eq!((text.as_slice(), replaced), (b"{{KEY}}{{KEY}}".as_slice(), 2));
    let twice = refused(redact_stream(&workload, vec![part(WORKLOAD), part(WORKLOAD)]).await);
    assert_eq!((twice.code, twice.field()), (Code::InvalidArgument, "workload"));
    let none = refused(redact_stream(&workload, Vec::new()).await);
    assert_eq!((none.code, none.field()), (Code::InvalidArgument, "workload"));
    let other = refused(redact_stream(&workload, vec![part("projects/p/servers/other")]).await);
    assert_eq!(other.code, Code::PermissionDenied);
}

/// A stream that has got its first answer, kept open; an error if there is no room for it.
async fn open(client: &Client) -> Result<impl Sized + use<>, Status> {
    let (sender, parts) = tokio::sync::mpsc::channel(1);
    let first = v1::RedactStreamRequest { workload: String::new(), part: b"text ".to_vec() };
    sender.send(first).await.expect("open");
    let parts = tokio_stream::wrappers::ReceiverStream::new(parts);
    let mut answer = client.redactions().redact_stream(parts).await?.into_inner();
    assert_eq!(answer.message().await?.expect("a part").part, b"text ");
    Ok((sender, answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_tenant_have_a_part_of_the_room_and_free_it_when_the_caller_goes_away() {
    let server = Server::start();
    let manager = server.manager(&[PROJECT]).await;
    manager.secrets().create_secret(secret(PROJECT, "KEY", VALUE)).await.expect("created");
    let mut streams = Vec::new();
    // Eight streams of a principal at once, and each environment is another tenant's by its project only.
    let refusal = 'full: {
        for n in 0..8 {
            let workload = format!("projects/p/environments/e{n}/servers/s");
            let client = server.client(&server.workload_token(&workload).await);
            for _ in 0..8 {
                match open(&client).await {
                    Ok(stream) => streams.push(stream),
                    Err(status) => break 'full status,
                }
            }
        }
        panic!("64 streams of one project");
    };
    assert_eq!(refused::<()>(Err(refusal)).why(), (Code::ResourceExhausted, "OVERLOADED"));
    assert!((16..=32).contains(&streams.len()), "{} streams of one project", streams.len());

    let other = server.client(&server.workload_token("projects/other/servers/s").await);
    let of_another = open(&other).await.expect("another project has its own part");
    drop(of_another);
    drop(streams);
    let client = server.client(&server.workload_token("projects/p/servers/later").await);
    until_async("room", async || open(&client).await.ok()).await;
}

#[tokio::test]
async fn users_are_refused_before_anything_is_read() {
    let server = Server::start();
    let user = server.with("users/u", &[("secrets:manage", PROJECT)]).await;
    // Nothing of the request ever comes.
    let (_sender, parts) = tokio::sync::mpsc::channel::<v1::RedactStreamRequest>(1);
    let parts = tokio_stream::wrappers::ReceiverStream::new(parts);
    let denied = refused(user.redactions().redact_stream(parts).await);
    assert_eq!(denied.why(), (Code::PermissionDenied, "PERMISSION_DENIED"));
}
