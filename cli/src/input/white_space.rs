//! Names white space at the ends of a value: nobody sees it there, and few programs expect it.

use coffer_proto::value::SecretValue;

/// Begins some text files, and no value that was meant (Unicode 16, 23.8).
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Says what a value begins and ends with, without a character of it; none if that is not white space.
pub(crate) fn at_the_ends(value: &SecretValue) -> Option<String> {
    let value = value.expose();
    let first = value.chars().next().and_then(name);
    let last = value.chars().next_back().and_then(name);
    match (first, last) {
        (Some(first), Some(last)) if value.chars().all(char::is_whitespace) && first == last => {
            Some(format!("is nothing but white space: {first}"))
        }
        (Some(first), Some(last)) => Some(format!("begins with {first} and ends with {last}")),
        (Some(first), None) => Some(format!("begins with {first}")),
        (None, Some(last)) => Some(format!("ends with {last}")),
        (None, None) => None,
    }
}

fn name(c: char) -> Option<&'static str> {
    match c {
        ' ' => Some("a space"),
        '\t' => Some("a tab"),
        '\n' => Some("a line break"),
        '\r' => Some("a carriage return"),
        BYTE_ORDER_MARK => Some("a byte order mark (U+FEFF)"),
        c if c.is_whitespace() => Some("white space"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_named_and_nothing_else() {
        for (value, expected) in [
            ("value", None),
            ("va lue\nvalue", None),
            (" value", Some("begins with a space")),
            ("value\t", Some("ends with a tab")),
            ("value\n", Some("ends with a line break")),
            ("value\r", Some("ends with a carriage return")),
            ("\u{feff}value", Some("begins with a byte order mark (U+FEFF)")),
            ("value\u{a0}", Some("ends with white space")),
            ("\nvalue ", Some("begins with a line break and ends with a space")),
            ("  ", Some("is nothing but white space: a space")),
        ] {
            let value = SecretValue::new(value.as_bytes().to_vec()).expect("a value");
            assert_eq!(at_the_ends(&value).as_deref(), expected, "{:?}", value.expose());
        }
    }
}
