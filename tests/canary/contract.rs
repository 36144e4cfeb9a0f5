//! Every method of the contract, from the descriptor: called rightly, and with a canary in each field that takes text.
//! A method that is new is driven as soon as it exists, and must have been seen to work.

use std::{collections::BTreeSet, time::Duration};

use coffer_proto::v1;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::Status;

use super::process;
use crate::{
    harness::{Planted, Raw, Server, until_async},
    permissions::{
        roles::{self, Role, Stage, WORKLOAD},
        table,
    },
};

/// What stands wherever nothing of the kind belongs.
const MISPLACED: &str = "canary-Zt5RkN8wJx2e \"+/%é\\ everywhereQp27";
/// What is given as a description: kept, sealed, and shown to readers.
const DESCRIBED: &str = "canary-Uy6PfH3sVd8a \"/+%é\\ describedBn49Lr";
/// How deep messages within messages are filled.
const DEPTH_MAX: usize = 3;
/// How long a watch may be silent before it is left: it never ends.
const SILENCE: Duration = Duration::from_millis(150);
/// How long anything else may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// More than any method takes, in bytes.
const TOO_LARGE_BYTES: usize = 5 * 1024 * 1024;
/// How long a value may stay in memory after the last call and connection.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);

/// All methods, each way that goes wrong, at TRACE; then the log, the audit log, the store and its snapshots, what is
/// told below /proc, every open file, and, once no call and no connection is left, the memory.
#[tokio::test]
async fn no_method_leaves_a_value_behind_whatever_it_is_given() {
    let server = Server::builder().args(["--log", "trace", "--log-format", "json", "--reflection"]).start();
    let mut stage = Stage::on(server).await;
    let tokens: Vec<String> = stage.tokens().filter(|token| token.starts_with("cof_")).map(secret_part).collect();
    let root_key = std::fs::read_to_string(stage.server.key_file()).expect("the key");
    let secrets = [("a value", roles::CANARY), ("the root key", root_key.trim()), ("what is misplaced", MISPLACED)];
    let secrets = || secrets.into_iter().chain(tokens.iter().map(|token| ("a token", token.as_str())));
    let planted = Planted::new(secrets());
    {
        let mut drive = Drive { raw: stage.server.raw(), planted: &planted, worked: BTreeSet::new(), told: Vec::new() };
        drive.exchange(&stage).await;
        drive.table(&stage).await;
        drive.nonsense(&stage).await;
        assert_eq!(drive.told, Vec::<String>::new(), "in answers");
        let methods: BTreeSet<String> = methods().map(|method| path(&method)).collect();
        assert!(methods.len() > 30, "{} methods", methods.len());
        assert_eq!(drive.worked, methods, "a method that was never seen to work was not driven");
    }
    no_http(&stage.server).await;
    let server = &mut stage.server;
    let all = Planted::new(secrets().chain([("a description", DESCRIBED)]));
    assert_eq!(process::told(server.pid(), &all), Vec::<String>::new());
    let is_gone = async || match process::remembered(server.pid(), &planted) {
        Ok(found) => found.is_empty().then_some(Ok(())),
        Err(error) => Some(Err(error)),
    };
    match tokio::time::timeout(FORGOTTEN_WITHIN, until_async("the server to forget", is_gone)).await {
        Ok(Ok(())) => {}
        #[allow(clippy::print_stderr, reason = "what is left out says so")]
        Ok(Err(error)) => eprintln!("the server's memory and files are not searched in this run: {error}"),
        Err(_) => panic!("in memory: {:#?}", process::remembered(server.pid(), &planted)),
    }
    let backup = server.cli(&server.operator_token()).args(["store", "backup", "coffer.backup"]).run();
    backup.ok();
    assert!(server.stop().await.success());
    assert!(server.log().len() > 10_000, "trace says something: {}", server.log());
    let found = all.found_below(server.home());
    let elsewhere: Vec<_> = found.iter().filter(|at| !belongs(at)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// The part of a token that is hashed, without its checksum.
pub(super) fn secret_part(token: &str) -> String {
    token.split('_').nth(3).expect("a secret part")[..40].to_owned()
}

/// Whether this is a file that the tests or `init` keep a secret in.
pub(super) fn belongs(at: &str) -> bool {
    ["/operator.token: a token", "/root.key: the root key"].iter().any(|file| at.contains(file))
        || (at.contains("/token-") && at.contains(": a token"))
}

fn methods() -> impl Iterator<Item = MethodDescriptor> {
    let pool = DescriptorPool::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("the contract");
    let services: Vec<_> = pool.services().collect();
    services.into_iter().flat_map(|service| service.methods().collect::<Vec<_>>())
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

struct Drive<'a> {
    raw: Raw,
    planted: &'a Planted,
    /// The methods that have answered what was asked.
    worked: BTreeSet<String>,
    /// What was told that must not be.
    told: Vec<String>,
}

impl Drive<'_> {
    /// Calls, and looks at the answer, unless it is to hold values; an error must hold nothing.
    async fn call(&mut self, method: &str, token: Option<&str>, message: Vec<u8>, holds_values: bool) {
        match self.raw.whole(method, token, message, patience(method)).await {
            Ok(bytes) => {
                self.worked.insert(method.to_owned());
                if !holds_values {
                    self.look(method, &bytes);
                }
            }
            Err(status) => self.look(method, &shown(&status)),
        }
    }

    fn look(&mut self, method: &str, bytes: &[u8]) {
        self.told.extend(self.planted.found_in(bytes).into_iter().map(|what| format!("{method}: {what}")));
    }

    /// The one method that no row of the table sees work: it wants a token of its own.
    async fn exchange(&mut self, stage: &Stage) {
        let issuer = stage.server.client(stage.token(Role::WorkloadIssuer).expect("a token"));
        let request = v1::IssueTokenRequest { principal: WORKLOAD.into(), single_use: true, ..Default::default() };
        let start = issuer.tokens().issue_token(request).await.expect("issued").into_inner().token;
        let message = v1::ExchangeStartTokenRequest { nonce: vec![7; 32] }.encode_to_vec();
        for _ in 0..2 {
            self.call("/coffer.v1.Tokens/ExchangeStartToken", Some(&start), message.clone(), false).await;
        }
        let other = v1::ExchangeStartTokenRequest { nonce: vec![8; 32] }.encode_to_vec();
        self.call("/coffer.v1.Tokens/ExchangeStartToken", Some(&start), other, false).await;
    }

    /// Every row as it is, and with a canary in each of its fields in turn, by somebody who may, by somebody who may not
    /// and by nobody.
    async fn table(&mut self, stage: &Stage) {
        for (number, row) in table::rows().into_iter().enumerate() {
            let method = format!("/coffer.v1.{}", row.method);
            let input = methods().find(|known| path(known) == method).expect("of the contract").input();
            let role = row.allowed.last().copied().unwrap_or(Role::Manager);
            let asked = row.request.encoded_as(stage, &format!("ROW_{number}")).await;
            self.call(&method, stage.token(role), asked, row.returns_values).await;
            for place in places(&input, 0) {
                let asked = row.request.encoded_as(stage, &format!("ROW_{number}_{}", place.id())).await;
                let mut message = DynamicMessage::decode(input.clone(), &*asked).expect("its own");
                place.put(&mut message, place.text());
                let message = message.encode_to_vec();
                self.call(&method, stage.token(role), message.clone(), row.returns_values).await;
                self.call(&method, stage.token(Role::User), message.clone(), false).await;
                self.call(&method, None, message, false).await;
            }
        }
    }

    /// Every method with nothing but canaries, with what is no message, with too much, and with tokens that are none.
    async fn nonsense(&mut self, stage: &Stage) {
        for method in methods() {
            let (method, input) = (path(&method), method.input());
            let all = filled(&input, 0).encode_to_vec();
            // A field number of 0, and a length that promises more than there is.
            let requests =
                [all, [&[0][..], MISPLACED.as_bytes()].concat(), [&[0x0a, 0x7f][..], MISPLACED.as_bytes()].concat()];
            let unknown = format!("cof_u_{}", MISPLACED.split(' ').next().expect("a word"));
            for token in [stage.token(Role::Operator), stage.token(Role::Manager), Some(MISPLACED), Some(&unknown)] {
                for request in &requests {
                    self.call(&method, token, request.clone(), false).await;
                }
            }
            let large = MISPLACED.repeat(TOO_LARGE_BYTES / MISPLACED.len() + 1).into_bytes();
            self.call(&method, stage.token(Role::Manager), large, false).await;
        }
        let text = [&[0x0a, MISPLACED.len() as u8][..], MISPLACED.as_bytes()].concat();
        for other in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/coffer.v1.Secrets/Zt5RkN8wJx2e"]
        {
            if let Err(status) = self.raw.whole(other, Some(MISPLACED), text.clone(), patience(other)).await {
                self.look(other, &shown(&status));
            }
        }
    }
}

fn patience(method: &str) -> Duration {
    if method.contains("/Watch") { SILENCE } else { ANSWER_WAIT_MAX }
}

/// All that a caller learns of a failed call.
pub(super) fn shown(status: &Status) -> Vec<u8> {
    let headers = status.metadata().clone().into_headers();
    let headers = headers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()].concat());
    [status.message().as_bytes(), status.details(), &headers.collect::<Vec<_>>()].concat()
}

/// What is no gRPC at all. Of the first 24 bytes, where HTTP/2 has its preface, a copy stays on a stack.
async fn no_http(server: &Server) {
    let address = server.address();
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await.expect("it listens");
    let text = format!("GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MISPLACED}\r\n\r\n");
    stream.write_all(text.as_bytes()).await.expect("it reads");
}

/// A field that takes text, by the way to it.
#[derive(Clone)]
struct Place(Vec<FieldDescriptor>);

fn places(of: &MessageDescriptor, depth: usize) -> Vec<Place> {
    let mut found = Vec::new();
    for field in of.fields() {
        assert!(!field.is_map(), "{}: fill maps, too", field.full_name());
        match field.kind() {
            Kind::String | Kind::Bytes => found.push(Place(vec![field])),
            Kind::Message(inner) if depth < DEPTH_MAX => {
                let below = places(&inner, depth + 1).into_iter();
                found.extend(below.map(|place| Place([std::slice::from_ref(&field), &place.0[..]].concat())));
            }
            _ => {}
        }
    }
    found
}

impl Place {
    /// Upper-case, for names.
    fn id(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|field| field.name().to_uppercase()).collect();
        names.join("_")
    }

    /// What to put there.
    fn text(&self) -> &'static str {
        if self.0.last().is_some_and(|field| field.name() == "description") { DESCRIBED } else { MISPLACED }
    }

    /// Puts the text there; of a list, into the first element.
    fn put(&self, message: &mut DynamicMessage, text: &str) {
        let (field, below) = self.0.split_first().expect("a field");
        let set = |value: &mut Value| match (value, below) {
            (value @ (Value::String(_) | Value::Bytes(_)), []) => *value = text_of(field, text),
            (Value::Message(inner), [_, ..]) => Place(below.to_vec()).put(inner, text),
            (value, _) => panic!("{} holds {value:?}", field.full_name()),
        };
        let value = message.get_field_mut(field);
        match value {
            Value::List(list) => {
                if list.is_empty() {
                    list.push(Value::default_value(&field.kind()));
                }
                set(&mut list[0]);
            }
            value => set(value),
        }
    }
}

fn text_of(field: &FieldDescriptor, text: &str) -> Value {
    match field.kind() {
        Kind::Bytes => Value::Bytes(text.as_bytes().to_vec().into()),
        _ => Value::String(text.to_owned()),
    }
}

/// A message whose texts are all the canary.
fn filled(of: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let value = match field.kind() {
            Kind::String | Kind::Bytes => text_of(&field, Place(vec![field.clone()]).text()),
            Kind::Message(inner) if depth < DEPTH_MAX => Value::Message(filled(&inner, depth + 1)),
            _ => continue,
        };
        message.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
    }
    message
}
