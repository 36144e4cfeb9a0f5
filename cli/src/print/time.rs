//! Points in time, always UTC: the same data prints the same text everywhere.

use prost_types::Timestamp;

/// RFC 3339, for programs.
pub(crate) fn rfc3339(time: Option<&Timestamp>) -> Option<String> {
    time.map(ToString::to_string)
}

/// `2026-01-31 23:59`, for tables.
pub(crate) fn short(time: Option<&str>) -> String {
    let minutes = time.and_then(|text| text.get(..16)).unwrap_or_default();
    minutes.replacen('T', " ", 1)
}

/// `2026-01-31`, for tables.
pub(crate) fn date(time: Option<&str>) -> &str {
    time.and_then(|text| text.get(..10)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let time = Timestamp { seconds: 1_769_903_999, nanos: 500_000_000 };
        let text = rfc3339(Some(&time)).expect("given");
        assert_eq!(text, "2026-01-31T23:59:59.500Z");
        assert_eq!((short(Some(&text)).as_str(), date(Some(&text))), ("2026-01-31 23:59", "2026-01-31"));
        assert_eq!((rfc3339(None), short(None).as_str(), date(None)), (None, "", ""));
    }
}
