//! Every method of the contract with the canary in every field that takes text, from the descriptor: a method that is
//! new is driven as soon as it exists.

use std::time::Duration;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::harness::Server;

/// How deep messages within messages are filled.
const DEPTH_MAX: usize = 3;
/// How long a stream may take to say its first word; most have none to say.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(300);
/// More than any method takes, in bytes.
const TOO_LARGE_BYTES: usize = 5 * 1024 * 1024;

/// Calls everything in every wrong way, as each of these tokens and as nobody. Answers how many methods there are.
pub(super) async fn drive(server: &Server, tokens: &[&str], canary: &str) -> usize {
    let pool = DescriptorPool::decode(coffer_proto::FILE_DESCRIPTOR_SET).expect("the contract");
    let raw = server.raw();
    let mut methods = 0;
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        methods += 1;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let input = method.input();
        let mut requests: Vec<_> = input.fields().map(|field| message(&input, canary, Some(&field), 0)).collect();
        requests.push(message(&input, canary, None, 0));
        let mut requests: Vec<_> = requests.iter().map(DynamicMessage::encode_to_vec).collect();
        // No message: a field number of 0, and one that promises more than there is.
        requests.push([&[0][..], canary.as_bytes()].concat());
        requests.push([&[0x0a, 0x7f][..], canary.as_bytes()].concat());
        for token in tokens.iter().copied().map(Some).chain([None, Some(canary)]) {
            for request in &requests {
                let call = raw.call(&path, token, request.clone());
                drop(tokio::time::timeout(ANSWER_WAIT_MAX, call).await);
            }
        }
        let large = canary.repeat(TOO_LARGE_BYTES / canary.len() + 1).into_bytes();
        drop(tokio::time::timeout(ANSWER_WAIT_MAX, raw.call(&path, tokens.first().copied(), large)).await);
    }
    methods
}

/// A message whose texts are all the canary, or only that of one field.
fn message(of: &MessageDescriptor, canary: &str, only: Option<&FieldDescriptor>, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields().filter(|field| only.is_none_or(|only| only == field) && !field.is_map()) {
        let value = match field.kind() {
            Kind::String => Value::String(canary.to_owned()),
            Kind::Bytes => Value::Bytes(canary.as_bytes().to_vec().into()),
            Kind::Message(inner) if depth < DEPTH_MAX => Value::Message(self::message(&inner, canary, None, depth + 1)),
            _ => continue,
        };
        let value = if field.is_list() { Value::List(vec![value]) } else { value };
        message.set_field(&field, value);
    }
    message
}
