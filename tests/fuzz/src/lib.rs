//! What each fuzz target does with any bytes: never panic, and keep the promise its assertion states.
//!
//! The suite compiles this file, too, and runs every kept input of `corpus/` through it on a stable compiler.

use std::sync::Arc;

use coffer_proto::{
    name::{
        Permission, Principal, PrincipalPattern, ResourcePattern, Scope, ScopePattern, SecretName, VariableName,
        Workload,
    },
    redaction::{Matcher, Redactor},
    template::{self, Piece},
    token::Token,
    v1,
    value::SecretValue,
};
use coffer_server::{
    identity::Credential,
    record::key,
    seal::{Marks, digest::DigestKey},
    store::{
        Key, Record,
        embedded::log::{frame, group, segment},
        snapshot::{Header, Reader, Writer},
    },
    vault::PageRequest,
};
use prost::Message as _;

/// A target: its name, which is its folder in `corpus/`, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("names", names),
    ("token", token),
    ("value", value),
    ("page", page),
    ("record_key", record_key),
    ("log_segment", log_segment),
    ("log_group", log_group),
    ("snapshot", snapshot),
    ("messages", messages),
    ("address", address),
    ("template", template),
    ("redaction", redaction),
];

/// A name that parses is written exactly as it was read, and a pattern matches what it covers.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(scope) = Scope::parse(text) {
        assert_eq!(scope.as_str(), text);
        let pattern = ScopePattern::parse(text).expect("every scope is a pattern");
        assert!(pattern.matches(&scope) && pattern.as_scope() == Some(scope));
    }
    if let Ok(pattern) = ScopePattern::parse(text) {
        assert!(pattern.covers(&pattern) && text.starts_with(pattern.literal_prefix()));
    }
    if let Ok(workload) = Workload::parse(text) {
        let pattern = ResourcePattern::parse(text).expect("every workload is a pattern");
        assert!(pattern.matches_workload(&workload) && pattern.covers(&pattern));
    }
    if let Ok(secret) = SecretName::parse(text) {
        assert_eq!(secret.to_string(), text);
    }
    if let Ok(principal) = Principal::parse(text) {
        assert_eq!(principal.to_string(), text);
    }
    let _ = (VariableName::parse(text), PrincipalPattern::parse(text), Permission::parse(text));
}

/// A token that parses is written exactly as it was read.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(token) = Token::parse(text)
    {
        assert_eq!(token.expose(), text);
    }
    let _ = Credential::from_header(Some(data));
}

/// A value is taken byte for byte, and its hint never holds more than eight of its characters.
pub fn value(data: &[u8]) {
    let Ok(value) = SecretValue::new(data.to_vec()) else { return };
    assert_eq!(value.expose().as_bytes(), data);
    if let Some(hint) = value.hint() {
        assert_eq!(hint.chars().count(), 9);
        assert!(!hint.chars().any(char::is_control));
    }
}

/// What is behind a page token is found again by the call that it is from; any bytes are of no call.
pub fn page(data: &[u8]) {
    let key = DigestKey::from_slice(&[7; 32]).expect("32 bytes");
    let [one, other] = [b"a", b"b"].map(|call| Marks::new(&key, [call.as_slice()]));
    assert_eq!(one.open(data), None);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = PageRequest::new("List", &["a"], 1, text);
    if let Ok(mark) = one.seal(text) {
        assert_eq!((one.open(&mark).as_deref(), other.open(&mark)), (Some(text), None));
    }
}

/// Any key of a record is known or not.
pub fn record_key(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (key::parse(&Key::new(text)), key::comes_first(&Key::new(text)));
    }
}

/// A log segment of any bytes is read as far as it is whole, or refused.
pub fn log_segment(data: &[u8]) {
    for is_last in [true, false] {
        let _ = segment::scan(data, is_last, &mut |_| {});
    }
    let _ = frame::decode(data);
}

/// A group that decodes encodes to something that decodes to the same.
pub fn log_group(data: &[u8]) {
    if let Ok(commits) = group::decode(data) {
        let again = group::decode(&group::encode(&commits)).expect("what was written can be read");
        assert_eq!(format!("{commits:?}"), format!("{again:?}"));
    }
}

/// A snapshot that is read to its end is written as one that is read the same.
pub fn snapshot(data: &[u8]) {
    let read = |data: &[u8]| -> Option<(Header, Vec<Record>)> {
        let (mut reader, mut records) = (Reader::new(data).ok()?, Vec::new());
        while let Some(frame) = reader.frame().ok()? {
            records.extend(frame);
        }
        Some((*reader.header(), records))
    };
    if let Some((header, records)) = read(data) {
        let mut writer = Writer::new(Vec::new(), header).expect("memory");
        for record in &records {
            writer.push(&record.key, record.revision, &record.value).expect("memory");
        }
        let (written, _) = writer.finish().expect("memory");
        assert_eq!(read(&written), Some((header, records)));
    }
}

/// Any bytes are a message or an error.
pub fn messages(data: &[u8]) {
    let _ = v1::CreateSecretRequest::decode(data);
    let _ = v1::UpdateSecretRequest::decode(data);
    let _ = v1::ImportSecretsRequest::decode(data);
    let _ = v1::CloneSecretsRequest::decode(data);
    let _ = v1::FetchEnvironmentResponse::decode(data);
}

/// An address that parses is written so that it parses again.
pub fn address(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(address) = text.parse::<coffer_client::Address>()
    {
        let again = address.to_string().parse::<coffer_client::Address>().expect("its own text");
        assert_eq!(again.to_string(), address.to_string());
    }
}

/// The pieces of a text are all of it, and a text without two braces in a row is one piece.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut rest = text;
    for piece in template::pieces(text) {
        let written = match piece {
            Piece::Text(piece) if rest.starts_with("{{{{") => (piece == "{{").then_some(4),
            Piece::Text(piece) => (!piece.is_empty() && rest.starts_with(piece)).then_some(piece.len()),
            Piece::Placeholder(name) => {
                assert!(VariableName::parse(name).is_ok());
                [format!("{{{{{name}}}}}"), format!("{{{{ {name} }}}}")]
                    .iter()
                    .find_map(|form| rest.starts_with(form.as_str()).then_some(form.len()))
            }
        };
        rest = &rest[written.expect("a piece of the text")..];
    }
    assert!(rest.is_empty());
    assert!(text.contains("{{") || template::names(text).is_empty());
}

/// The first line is the value, the second byte of the rest says where it is cut: a cut changes nothing, and the value
/// does not stay.
pub fn redaction(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (value, text) = (&data[..end], &data[end + 1..]);
    let Ok(secret) = SecretValue::new(value.to_vec()) else { return };
    let name = VariableName::parse("A").expect("a good name");
    let matcher = Arc::new(Matcher::new([(&name, &secret)]));
    let clean = |parts: &[&[u8]]| {
        let (mut redactor, mut out) = (Redactor::new(Arc::clone(&matcher)), Vec::new());
        parts.iter().for_each(|part| {
            redactor.push(part, &mut out);
        });
        redactor.finish(&mut out);
        out
    };
    let whole = clean(&[text]);
    let (head, tail) = text.split_at(text.first().map_or(0, |at| usize::from(*at) % (text.len() + 1)));
    assert_eq!(clean(&[head, tail]), whole);
    let is_there = |text: &[u8]| text.windows(value.len()).any(|window| window == value);
    if matcher.is_empty() {
        assert_eq!(whole, text);
    } else if is_there(text) {
        assert!(whole.windows(5).any(|window| window == b"{{A}}"));
    }
}
