//! The caller's own deadline.

use std::time::Duration;

use http::HeaderMap;

/// How long the caller waits, in the header's words: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
const HEADER: &str = "grpc-timeout";
const DIGITS_MAX: usize = 8;

/// Returns how long the caller waits for the answer. None if it does not say so, or not in a form that gRPC has.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_known_and_nonsense_is_none() {
        for (text, wanted) in [
            ("2H", Some(Duration::from_secs(7_200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("20m", Some(Duration::from_millis(20))),
            ("5u", Some(Duration::from_micros(5))),
            ("82n", Some(Duration::from_nanos(82))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-1S", None),
            ("+1S", None),
            ("1s", None),
            ("123456789S", None),
            ("1\u{e9}", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, http::HeaderValue::from_bytes(text.as_bytes()).expect("a header"));
            assert_eq!(of(&headers), wanted, "{text}");
        }
    }
}
