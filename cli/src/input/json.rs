//! A JSON object of variables. What is read is kept as it stands, what cannot be a variable is named by its path.

use std::fmt;

use coffer_proto::value::{InvalidValue, SecretValue};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

/// Between the names of nested objects.
const PATH_SEPARATOR: char = '.';
/// Objects within objects that are read.
const DEPTH_MAX: usize = 16;

/// A string, a number or a truth value at the end of a path.
pub(super) struct Entry {
    /// The names from the outermost object inwards, with `.` between them.
    pub(super) path: String,
    pub(super) value: Result<SecretValue, Wrong>,
}

/// Why an entry has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Value(InvalidValue),
    /// An object within the object, where only one level was asked for.
    Object,
    List,
    /// How a number with a fraction is written is lost.
    Fraction,
    TooDeep,
}

/// Reads the entries. With `nested`, objects within the object are read, too. Fails with what is wrong with the document and
/// where, never with a part of it.
pub(super) fn read(text: &str, nested: bool) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seed = Node { path: String::new(), depth: 0, nested, entries: &mut entries };
    // Not serde_json's own words: they may quote what is wrong.
    seed.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            Category::Data => "must be a JSON object of names and values: {\"NAME\": \"value\"}".to_owned(),
            Category::Eof => format!("{place}: the JSON ends too early"),
            Category::Syntax | Category::Io => {
                format!("{place}: no JSON: a quote, comma or bracket is missing or too much")
            }
        }
    })?;
    Ok(entries)
}

struct Node<'a> {
    path: String,
    depth: usize,
    nested: bool,
    entries: &'a mut Vec<Entry>,
}

impl Node<'_> {
    fn push<E: serde::de::Error>(self, value: Result<SecretValue, Wrong>) -> Result<(), E> {
        // The document itself is no value.
        if self.depth == 0 {
            return Err(E::custom("no object"));
        }
        self.entries.push(Entry { path: self.path, value });
        Ok(())
    }

    fn text<E: serde::de::Error>(self, text: String) -> Result<(), E> {
        self.push(SecretValue::new(text.into_bytes()).map_err(Wrong::Value))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth > 0 && (!self.nested || self.depth == DEPTH_MAX) {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            let wrong = if self.nested { Wrong::TooDeep } else { Wrong::Object };
            return self.push(Err(wrong));
        }
        while let Some(name) = map.next_key::<String>()? {
            let path = if self.path.is_empty() { name } else { format!("{}{PATH_SEPARATOR}{name}", self.path) };
            map.next_value_seed(Node { path, depth: self.depth + 1, nested: self.nested, entries: self.entries })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.push(Err(Wrong::List))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<(), E> {
        self.text(text)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.text(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.text(number.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.text(number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.push(Err(Wrong::Fraction))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.push(Err(Wrong::Value(InvalidValue::Empty)))
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Value(error) => error.fmt(f),
            Wrong::Object => f.write_str("is an object; --nested reads it"),
            Wrong::List => f.write_str("is a list, which no variable can be; write it as a string"),
            Wrong::Fraction => f.write_str("is a number with a fraction or too long; write it as a string"),
            Wrong::TooDeep => write!(f, "is nested more than {DEPTH_MAX} times"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, nested: bool) -> Vec<(String, Result<String, Wrong>)> {
        let entries = read(text, nested).expect("read");
        entries.into_iter().map(|entry| (entry.path, entry.value.map(|value| value.expose().to_owned()))).collect()
    }

    #[test]
    fn leaves_have_paths_and_keep_their_text() {
        let text = r#"{"db": {"host": "h", "port": 5432, "tls": {"on": true}}, "n": -7, "e": null}"#;
        let expected = [("db.host", "h"), ("db.port", "5432"), ("db.tls.on", "true"), ("n", "-7")];
        let mut expected: Vec<_> = expected.map(|(path, value)| (path.to_owned(), Ok(value.to_owned()))).into();
        expected.push(("e".to_owned(), Err(Wrong::Value(InvalidValue::Empty))));
        assert_eq!(shown(text, true), expected);
    }

    #[test]
    fn what_is_no_value_is_told_by_its_path() {
        let text = r#"{"a": {"b": "x"}, "l": ["x"], "f": 1.50, "s": "x"}"#;
        let wrong: Vec<_> = shown(text, false).into_iter().map(|(path, value)| (path, value.err())).collect();
        let expected =
            [("a", Some(Wrong::Object)), ("l", Some(Wrong::List)), ("f", Some(Wrong::Fraction)), ("s", None)];
        assert_eq!(wrong, expected.map(|(path, why)| (path.to_owned(), why)));
        let deep = format!("{}\"x\"{}", r#"{"a":"#.repeat(20), "}".repeat(20));
        assert_eq!(shown(&deep, true)[0].1, Err(Wrong::TooDeep));
        assert!(read(&"[".repeat(100_000), true).is_err(), "no stack is used up");
    }

    #[test]
    fn a_wrong_shape_is_told_from_wrong_syntax() {
        for (text, expected) in [
            (r#"["hunter2"]"#, "must be a JSON object"),
            (r#""hunter2""#, "must be a JSON object"),
            ("12345", "must be a JSON object"),
            (r#"{"A": "hunter2""#, "line 1, column 15: the JSON ends too early"),
            ("", "line 1, column 0: the JSON ends too early"),
            ("{\"A\": \"x\",\n \"B\" \"hunter2\"}", "line 2, column 6: no JSON"),
            (r#"{"A": "hunter2"} hunter2"#, "line 1, column 18: no JSON"),
            ("hunter2", "line 1, column 1: no JSON"),
            ("A=hunter2", "line 1, column 1: no JSON"),
        ] {
            let error = read(text, true).err().expect(text);
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
