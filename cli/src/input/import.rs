//! Files of many secrets. Every mistake is named at once, none with a value; each is the caller's, like one on the
//! command line.

use std::{collections::BTreeMap, fmt};

use coffer_proto::{
    limits,
    name::VariableName,
    text,
    value::{InvalidValue, SecretValue},
};
use serde::{
    Deserializer as _,
    de::{MapAccess, Visitor},
};

use crate::{dotenv, failure::Failure};

/// Mistakes shown of one file.
const MISTAKES_SHOWN: usize = 20;
/// Remarks shown of one file.
const NOTES_SHOWN: usize = 20;

/// Largest file, in bytes: what fits one request.
pub(crate) const FILE_BYTES: usize = limits::IMPORT_REQUEST_BYTES;

/// What the server says of such names, too; here with the line.
const RESERVED: &str = "is reserved, because it would run code or redirect the loader";

/// A secret to be.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: VariableName,
    /// Its value.
    pub(crate) value: SecretValue,
}

/// The variables of a `.env` file, and remarks about them.
pub(crate) fn dotenv(source: &str, bytes: &[u8], skip_empty: bool) -> Result<(Vec<Variable>, Vec<String>), Failure> {
    check_length(source, bytes)?;
    let text = text::decode(bytes).map_err(|error| Failure::usage(format!("{source}: {error}")))?;
    let entries =
        dotenv::parse(text).map_err(|mistakes| refuse(source, mistakes.iter().map(ToString::to_string).collect()))?;
    let mut first_lines = BTreeMap::new();
    let mut mistakes = Vec::new();
    let mut notes = Vec::new();
    let mut variables = Vec::new();
    for dotenv::Entry { line, name, value, differs } in entries {
        if let Some(first) = first_lines.insert(name.clone(), line) {
            mistakes.push(format!("line {line}: {name}: is in line {first} already"));
        }
        if name.is_reserved() {
            mistakes.push(format!("line {line}: {name}: {RESERVED}"));
        }
        notes.extend(differs.iter().map(|differs| format!("note: {source}: line {line}: {name}: {differs}")));
        match value {
            Some(value) => variables.push(Variable { name, value }),
            None if skip_empty => notes.push(format!("note: {source}: line {line}: {name}: left out, it has no value")),
            None => mistakes.push(format!("line {line}: {name}: {}; --skip-empty leaves it out", InvalidValue::Empty)),
        }
    }
    finish(source, variables, mistakes).map(|variables| (variables, shortened(notes)))
}

/// The variables of a JSON object of strings.
pub(crate) fn json(source: &str, bytes: &[u8], skip_empty: bool) -> Result<Vec<Variable>, Failure> {
    check_length(source, bytes)?;
    let text = text::decode(bytes).map_err(|error| Failure::usage(format!("{source}: {error}")))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let entries = deserializer
        .deserialize_map(Strings)
        .and_then(|entries| deserializer.end().map(|()| entries))
        // Not serde_json's own words: they may quote the value that is wrong.
        .map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Failure::usage(format!("{source}: {place}: must be one JSON object whose values are strings"))
        })?;
    let mut mistakes = Vec::new();
    let mut variables: Vec<Variable> = Vec::new();
    for (number, (name, value)) in (1..).zip(entries) {
        match (VariableName::parse(&name), value) {
            (Ok(name), _) if variables.iter().any(|known| known.name == name) => {
                mistakes.push(format!("entry {number}: {name}: is there twice"));
            }
            (Ok(name), _) if name.is_reserved() => mistakes.push(format!("entry {number}: {name}: {RESERVED}")),
            (Ok(name), Ok(value)) => variables.push(Variable { name, value }),
            (Ok(_), Err(InvalidValue::Empty)) if skip_empty => {}
            (Ok(name), Err(error)) => mistakes.push(format!("entry {number}: {name}: {error}")),
            (Err(error), _) => mistakes.push(format!("entry {number}: the name {error}")),
        }
    }
    finish(source, variables, mistakes)
}

fn finish(source: &str, variables: Vec<Variable>, mistakes: Vec<String>) -> Result<Vec<Variable>, Failure> {
    if !mistakes.is_empty() {
        Err(refuse(source, mistakes))
    } else if variables.is_empty() {
        Err(Failure::usage(format!("{source}: holds no variable")))
    } else {
        Ok(variables)
    }
}

fn check_length(source: &str, bytes: &[u8]) -> Result<(), Failure> {
    if bytes.len() <= FILE_BYTES {
        return Ok(());
    }
    Err(Failure::usage(format!("{source}: must have at most {FILE_BYTES} bytes")))
}

fn shortened(mut notes: Vec<String>) -> Vec<String> {
    let more = notes.len().saturating_sub(NOTES_SHOWN);
    notes.truncate(NOTES_SHOWN);
    notes.extend((more > 0).then(|| format!("note: and {more} more")));
    notes
}

fn refuse(source: &str, mistakes: Vec<String>) -> Failure {
    let more = mistakes.len().saturating_sub(MISTAKES_SHOWN);
    let mut text = mistakes.into_iter().take(MISTAKES_SHOWN).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    Failure::usage(format!("{source}: {text}")).hint("nothing was imported")
}

/// Keeps entries in order and duplicates apart, and values in the type that wipes them.
struct Strings;

impl<'de> Visitor<'de> for Strings {
    type Value = Vec<(String, Result<SecretValue, InvalidValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            entries.push((name, SecretValue::new(value.into_bytes())));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(variables: &[Variable]) -> Vec<(String, String)> {
        variables.iter().map(|v| (v.name.to_string(), v.value.expose().to_owned())).collect()
    }

    #[test]
    fn dotenv_mistakes_come_all_at_once() {
        let failure = dotenv("x.env", b"A=hunter2\nB=\nA=hunter3\n", false).err().expect("refused");
        let expected = "x.env: line 2: B: Secret value is required; --skip-empty leaves it out; \
                        line 3: A: is in line 1 already";
        assert_eq!(failure.message(), expected);
    }

    #[test]
    fn dotenv_notes_name_what_is_special() {
        let (variables, notes) = dotenv("x.env", b"A=$HOME\nB=\n", true).expect("accepted");
        assert_eq!(shown(&variables), [("A".to_owned(), "$HOME".to_owned())]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes.iter().all(|note| !note.contains("HOME")), "{notes:?}");
    }

    #[test]
    fn text_of_windows_is_read_or_called_by_its_name() {
        let (read, _) = dotenv("x", b"\xef\xbb\xbfA=1\r\nB=2\r\n", false).expect("accepted");
        assert_eq!(shown(&read), [("A".into(), "1".into()), ("B".into(), "2".into())]);
        let read = json("x", b"\xef\xbb\xbf{\"A\": \"1\"}", false).expect("accepted");
        assert_eq!(shown(&read), [("A".into(), "1".into())]);
        for text in ["A=1\r\n", "{\"A\": \"1\"}"] {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            for failure in [dotenv("x", &utf16, false).err(), json("x", &utf16, false).err()] {
                assert_eq!(failure.expect("refused").message(), "x: is UTF-16; save it as UTF-8");
            }
        }
    }

    #[test]
    fn a_long_list_of_notes_is_cut() {
        let text: String = (0..30).map(|at| format!("A{at}=$B\n")).collect();
        let (_, notes) = dotenv("x", text.as_bytes(), false).expect("accepted");
        assert_eq!((notes.len(), notes[20].as_str()), (21, "note: and 10 more"));
    }

    #[test]
    fn json_reads_an_object_of_strings() {
        let read = json("x", br#" {"B": "2\n", "A": "1"} "#, false).expect("accepted");
        assert_eq!(shown(&read), [("B".into(), "2\n".into()), ("A".into(), "1".into())]);
    }

    #[test]
    fn json_mistakes_never_quote() {
        let cases = [
            r#"["hunter2"]"#,
            r#"{"A": 12345}"#,
            r#"{"A": ["hunter2"]}"#,
            r#"{"A": "hunter2""#,
            r#"{"A": "hunter2"} hunter2"#,
            r#"{"A": "hunter2", "A": "hunter2"}"#,
            r#"{"hunter2": "x"}"#,
            r#"{"A": "hunter2\u0000"}"#,
            r#"{"A": ""}"#,
            "hunter2",
            "",
        ];
        for case in cases {
            let failure = json("x.json", case.as_bytes(), false).err().expect(case);
            assert!(failure.message().starts_with("x.json: "), "{}", failure.message());
            assert!(!failure.message().contains("hunter2") && !failure.message().contains("12345"), "{case}");
        }
    }

    #[test]
    fn reserved_names_and_empty_files_are_refused() {
        let failure = dotenv("x", b"A=1\nLD_PRELOAD=x\n", false).err().expect("refused");
        assert!(failure.message().starts_with("x: line 2: LD_PRELOAD: is reserved"), "{}", failure.message());
        let failure = json("x", br#"{"PATH":"y"}"#, false).err().expect("refused");
        assert!(failure.message().starts_with("x: entry 1: PATH: is reserved"), "{}", failure.message());
        assert_eq!(dotenv("x", b"# nothing\n", false).err().expect("refused").message(), "x: holds no variable");
    }

    #[test]
    fn a_long_list_of_mistakes_is_cut() {
        let text = "nonsense\n".repeat(100);
        let failure = dotenv("x", text.as_bytes(), false).err().expect("refused");
        assert!(failure.message().ends_with("; and 80 more"), "{}", failure.message());
    }
}
