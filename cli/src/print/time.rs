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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let time = Timestamp { seconds: 1_769_903_999, nanos: 500_000_000 };
        let text = rfc3339(Some(&time)).expect("given");
        assert_eq!(text, "2026-01-31T23:59:59.500Z");
        assert_eq!(short(Some(&text)), "2026-01-31 23:59");
        assert_eq!((rfc3339(None), short(None)), (None, String::new()));
    }
}
