//! One audit line as JSON: fixed keys in a fixed order.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Event, Phase, Subject};
use crate::seal::chain::{Chain, Mac};

/// Most subjects of one line; `subjects_total` tells when there were more. A fetch of a full scope has 2,001: the
/// workload, 1,000 secrets of its own and 1,000 inherited ones, all of which left the server.
pub(super) const SUBJECTS_MAX: usize = 2_048;

#[derive(Serialize)]
struct Line<'a> {
    /// RFC 3339, UTC, microseconds.
    time: String,
    seq: u64,
    call: String,
    phase: Phase,
    method: &'static str,
    principal: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    subjects: &'a [Subject],
    #[serde(skip_serializing_if = "Option::is_none")]
    subjects_total: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(serialize_with = "object", skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [(&'static str, String)],
    #[serde(skip_serializing_if = "is_false")]
    leads_to_values: bool,
    #[serde(skip_serializing_if = "is_false")]
    values_leave: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<&'a str>,
}

/// What stands between a line's JSON and its code, and what after; together they are one JSON object.
const CODE_BEGIN: &[u8] = b",\"mac\":\"";
const CODE_END: &[u8] = b"\"}";
/// Digits of a code.
const CODE_DIGITS: usize = 32;
/// All that follows what the code is over.
pub(super) const ENDING_BYTES: usize = CODE_BEGIN.len() + CODE_DIGITS + CODE_END.len();

/// Makes the JSON object from `start` on a line of the chain: its code over it and the line before, and the newline.
pub(super) fn seal(buffer: &mut Vec<u8>, start: usize, chain: &Chain, previous: Mac) -> Mac {
    // The brace that closes the object stands after the code.
    buffer.pop();
    let mac = chain.link(previous, &buffer[start..]);
    buffer.extend_from_slice(CODE_BEGIN);
    buffer.extend_from_slice(mac.to_string().as_bytes());
    buffer.extend_from_slice(CODE_END);
    buffer.push(b'\n');
    mac
}

/// The code that a line, without its newline, ends with.
pub(super) fn code_of(line: &[u8]) -> Option<Mac> {
    let ending = &line[line.len().checked_sub(ENDING_BYTES)?..];
    let digits = ending.strip_prefix(CODE_BEGIN)?.strip_suffix(CODE_END)?;
    Mac::parse(std::str::from_utf8(digits).ok()?)
}

/// Appends the JSON of `event` to `buffer`, without its code.
pub(super) fn append(buffer: &mut Vec<u8>, seq: u64, event: &Event) -> Result<(), serde_json::Error> {
    let line = Line {
        time: rfc3339(event.time),
        seq,
        call: event.call.iter().map(|byte| format!("{byte:02x}")).collect(),
        phase: event.phase,
        method: event.method,
        principal: &event.principal,
        token: event.token.as_deref(),
        peer: event.peer.as_deref(),
        subjects: event.subjects.get(..SUBJECTS_MAX).unwrap_or(&event.subjects),
        subjects_total: (event.subjects.len() > SUBJECTS_MAX).then_some(event.subjects.len()),
        reason: event.reason,
        details: &event.details,
        leads_to_values: event.leads_to_values,
        values_leave: event.values_leave,
        position: event.position.as_deref(),
    };
    serde_json::to_writer(buffer, &line)
}

/// RFC 3339 has years 0 to 9999 and humantime those from 1970: a clock beyond them is shown at the bound, because a
/// line with a wrong time is better than none.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// One entry a key, where it first stands: readers of JSON keep only one of two equal keys, and differ in which.
fn object<S: Serializer>(details: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut lists: Vec<(&str, Vec<&str>)> = Vec::with_capacity(details.len());
    for (name, value) in details {
        match lists.iter_mut().find(|(listed, _)| listed == name) {
            Some((_, values)) => values.push(value),
            None => lists.push((name, vec![value])),
        }
    }
    let mut map = serializer.serialize_map(Some(lists.len()))?;
    for (name, values) in &lists {
        match values[..] {
            [value] => map.serialize_entry(name, value)?,
            _ => map.serialize_entry(name, values)?,
        }
    }
    map.end()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::audit) fn event(method: &'static str) -> Event {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
        Event { principal: "users/ann".to_owned(), ..Event::of_server(time, [0xab; 16], Phase::Intent, method) }
    }

    fn text(event: &Event) -> String {
        let mut buffer = Vec::new();
        append(&mut buffer, 7, event).expect("JSON");
        String::from_utf8(buffer).expect("UTF-8")
    }

    #[test]
    fn keys_stand_in_their_order() {
        let mut full = event("coffer.v1.Secrets/CreateSecret");
        full.token = Some("t".to_owned());
        full.peer = Some("unix".to_owned());
        let name = "accounts/a/secrets/K".to_owned();
        full.subjects = vec![Subject { name, uid: Some("u".to_owned()), version: Some(2) }];
        full.reason = Some("SCOPE_FULL");
        full.details = vec![("z", "1\n".to_owned()), ("a", "2".to_owned())];
        (full.leads_to_values, full.values_leave) = (true, true);
        full.position = Some("1.2".to_owned());
        assert_eq!(
            text(&full),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.000001Z","seq":7,"call":"abababababababababababababababab","#,
                r#""phase":"intent","method":"coffer.v1.Secrets/CreateSecret","principal":"users/ann","token":"t","#,
                r#""peer":"unix","subjects":[{"name":"accounts/a/secrets/K","uid":"u","version":2}],"#,
                r#""reason":"SCOPE_FULL","details":{"z":"1\n","a":"2"},"leads_to_values":true,"values_leave":true,"#,
                r#""position":"1.2"}"#,
            )
        );
    }

    #[test]
    fn a_sealed_line_is_one_object_whose_code_is_over_all_before_it() {
        let (chain, before) = (crate::audit::marker::tests::chain(), b"{}\n".to_vec());
        let mut buffer = before.clone();
        append(&mut buffer, 7, &event("m")).expect("JSON");
        let mac = seal(&mut buffer, before.len(), &chain, Mac::NONE);
        let line = buffer[before.len()..].strip_suffix(b"\n").expect("a line");
        let read: serde_json::Value = serde_json::from_slice(line).expect("one object");
        assert_eq!(read["mac"], mac.to_string());
        assert_eq!(code_of(line), Some(mac));
        assert_eq!(chain.link(Mac::NONE, &line[..line.len() - ENDING_BYTES]), mac);
        assert_eq!(code_of(&line[1..ENDING_BYTES]), None);
    }

    #[test]
    fn a_repeated_detail_is_one_list() {
        let mut repeated = event("m");
        repeated.details = [("a", "2"), ("b", "1"), ("a", "3"), ("a", "2")].map(|(k, v)| (k, v.to_owned())).to_vec();
        let line = text(&repeated);
        assert!(line.contains(r#""details":{"a":["2","3","2"],"b":"1"}"#), "{line}");
    }

    #[test]
    fn a_clock_beyond_the_calendar_is_shown_at_its_bound() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000000Z");
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(rfc3339(far), "9999-12-31T23:59:59.000000Z");
    }

    #[test]
    fn what_is_not_there_is_not_written() {
        let line = text(&event("m"));
        assert!(line.ends_with("\"principal\":\"users/ann\",\"subjects\":[]}"), "{line}");
    }

    #[test]
    fn a_whole_fetch_fits() {
        let mut fetch = event("m");
        let subjects_count = 1 + 2 * usize::try_from(coffer_proto::limits::SCOPE_SECRETS).expect("small");
        fetch.subjects = vec![Subject { name: "n".to_owned(), uid: None, version: None }; subjects_count];
        let line: serde_json::Value = serde_json::from_str(&text(&fetch)).expect("JSON");
        assert_eq!(line["subjects"].as_array().map(Vec::len), Some(subjects_count));
        assert!(line.get("subjects_total").is_none());
    }

    #[test]
    fn subjects_beyond_the_limit_are_counted() {
        let mut many = event("m");
        many.subjects = vec![Subject { name: "n".to_owned(), uid: None, version: None }; SUBJECTS_MAX + 1];
        let line: serde_json::Value = serde_json::from_str(&text(&many)).expect("JSON");
        assert_eq!(line["subjects"].as_array().map(Vec::len), Some(SUBJECTS_MAX));
        assert_eq!(line["subjects_total"], SUBJECTS_MAX + 1);
    }
}
