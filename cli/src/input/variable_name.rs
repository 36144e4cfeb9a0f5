//! Names of a file that is imported: kept, or made to names of variables.

use clap::ValueEnum;
use coffer_proto::{
    misplaced::HIDDEN,
    name::{InvalidName, VariableName},
};

/// Longest name that an error repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 40;
/// Shortest word of a name that is repeated, in bytes.
const WORD_BYTES_MIN: usize = 2;
/// Longest word of upper-case letters in it, in bytes.
const ABBREVIATION_BYTES_MAX: usize = 10;

/// How names are made to names of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rename {
    /// `dbHost`, `db-host` and `db.host` become DB_HOST
    UpperSnake,
}

/// The variable's name. The error says what the name is, if it looks like one, and what it would be.
pub(super) fn variable(given: &str, rename: Option<Rename>) -> Result<VariableName, String> {
    let renamed = upper_snake(given);
    let error = match rename {
        Some(Rename::UpperSnake) => match VariableName::parse(&renamed) {
            Ok(name) => return Ok(name),
            Err(error) => error,
        },
        None => match VariableName::parse(given) {
            Ok(name) => return Ok(name),
            Err(error) => error,
        },
    };
    Err(refused(given, rename, &renamed, error))
}

fn refused(given: &str, rename: Option<Rename>, renamed: &str, error: InvalidName) -> String {
    if !looks_like_a_name(given) {
        return format!("the name {error}");
    }
    match rename {
        None if VariableName::parse(renamed).is_ok() => {
            format!("{given}: the name {error}; --rename upper-snake makes it {renamed}")
        }
        _ => format!("{given}: the name {error}"),
    }
}

/// The name, if it looks like one.
pub(super) fn shown(given: &str) -> &str {
    if looks_like_a_name(given) || VariableName::parse(given).is_ok() { given } else { HIDDEN }
}

/// Whether the text is made of words only. In a broken file a value may stand where a name is expected, and must not be
/// shown: passwords have digits (`hunter2`), keys change between upper and lower case.
fn looks_like_a_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | '.');
    text.len() <= SHOWN_BYTES_MAX && text.chars().all(is_part) && words(text).into_iter().all(is_word)
}

/// `key`, `Key` or `AWS`.
fn is_word(word: &str) -> bool {
    let is_lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_upper = word.len() <= ABBREVIATION_BYTES_MAX && word.bytes().all(|byte| byte.is_ascii_uppercase());
    word.len() >= WORD_BYTES_MIN && (is_upper || is_lower(&word[1..]))
}

fn upper_snake(text: &str) -> String {
    words(text).join("_").to_ascii_uppercase()
}

/// Words end before `_`, `-`, `.` and blanks, and before an upper-case letter after a lower-case letter or a digit.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for part in text.split(['_', '-', '.', ' ']) {
        let mut start = 0;
        for (at, pair) in part.as_bytes().windows(2).enumerate() {
            if !pair[0].is_ascii_uppercase() && pair[1].is_ascii_uppercase() {
                words.push(&part[start..=at]);
                start = at + 1;
            }
        }
        words.push(&part[start..]);
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_upper_snake() {
        for (given, expected) in [
            ("dbHost", "DB_HOST"),
            ("db-host", "DB_HOST"),
            ("db.host.name", "DB_HOST_NAME"),
            ("Db_Host", "DB_HOST"),
            ("DB_HOST", "DB_HOST"),
            ("apiKey2", "API_KEY2"),
            ("oauth2Token", "OAUTH2_TOKEN"),
            ("APIKey", "APIKEY"),
            ("_private", "PRIVATE"),
            ("a  b", "A_B"),
        ] {
            let name = variable(given, Some(Rename::UpperSnake)).expect(given);
            assert_eq!(name.as_str(), expected, "{given}");
        }
        assert!(variable("2nd", Some(Rename::UpperSnake)).is_err());
        assert!(variable("größe", Some(Rename::UpperSnake)).is_err());
        assert_eq!(variable("DB_HOST", None).expect("good").as_str(), "DB_HOST");
    }

    #[test]
    fn the_offending_name_and_what_it_would_be_are_told() {
        let error = variable("apiKey", None).expect_err("lower");
        assert!(error.starts_with("apiKey: the name must match"), "{error}");
        assert!(error.ends_with("; --rename upper-snake makes it API_KEY"), "{error}");
        for given in ["db.host", "db-port", "AWS.region", "stripeApiKey", "Name"] {
            assert!(variable(given, None).expect_err("lower").starts_with(given), "{given}");
        }
    }

    #[test]
    fn what_may_be_a_value_is_not_shown() {
        for value in [
            "hunter2",
            "correct horse battery",
            "wJalrXUtnFEMIKMDENGbPxRfiCYEXAMPLEKEY",
            "sk-live-4242424242424242wxyz",
            "MIIEpAIBAAKCAQEA7w3kx9mP",
            "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
            "ghp_abcDEF0123ghiJKL",
            "a1b2c3d4e5",
            "postgres://u:p@h/db",
            "tr0ub4dor&3",
        ] {
            let error = variable(value, None).expect_err(value);
            assert!(error.starts_with("the name must match"), "{value}: {error}");
        }
    }
}
