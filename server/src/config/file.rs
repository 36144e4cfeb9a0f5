//! The TOML file, walked by hand rather than by serde, which stops at its first complaint.

use std::{fs, path::Path};

use toml::{Table, Value};

use super::setting::{Given, SETTINGS, Setting, Shape, Source};

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a file gives; `None` if nothing of it is known.
pub(super) fn read(path: &Path, mistakes: &mut Vec<String>) -> Option<Vec<Given>> {
    let text = match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            mistakes.push(format!("configuration file {} is larger than 1 MiB", path.display()));
            return None;
        }
        _ => fs::read_to_string(path),
    };
    match text {
        Ok(text) => parse(&text, path, mistakes),
        Err(error) => {
            mistakes.push(format!("configuration file {} cannot be read: {error}", path.display()));
            None
        }
    }
}

fn parse(text: &str, path: &Path, mistakes: &mut Vec<String>) -> Option<Vec<Given>> {
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            let message = error.message().replace('\n', ", ");
            mistakes.push(format!("configuration file {} is no TOML: line {line}: {message}", path.display()));
            return None;
        }
    };
    let mut given = Vec::new();
    for (key, value) in &table {
        let is_table = SETTINGS.iter().any(|setting| setting.file.0 == key);
        match value {
            Value::Table(inner) if is_table => {
                for (inner_key, value) in inner {
                    given.extend(one(key, inner_key, value, path, mistakes));
                }
            }
            _ if is_table => mistakes.push(format!("`{key}` in {} must be a table: [{key}]", path.display())),
            _ => given.extend(one("", key, value, path, mistakes)),
        }
    }
    Some(given)
}

fn one(table: &str, key: &str, value: &Value, path: &Path, mistakes: &mut Vec<String>) -> Option<Given> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.file == (table, key)) else {
        let dot = if table.is_empty() { "" } else { "." };
        mistakes.push(format!("`{table}{dot}{key}` in {} is no key of this server", path.display()));
        return None;
    };
    let source = Source::File { key: setting.file_key(), file: path.to_owned() };
    match texts(setting, value, path) {
        Ok(texts) => Some(Given { key: setting.key, source, texts }),
        Err(wanted) => {
            mistakes.push(format!("{source} must be {wanted}"));
            None
        }
    }
}

fn texts(setting: &Setting, value: &Value, path: &Path) -> Result<Vec<String>, &'static str> {
    match (setting.shape, value) {
        (Shape::Path, Value::String(text)) if text.is_empty() => Ok(vec![String::new()]),
        (Shape::Path, Value::String(text)) => {
            let directory = path.parent().unwrap_or(Path::new(""));
            directory.join(text).into_os_string().into_string().map(|path| vec![path]).map_err(|_| "UTF-8")
        }
        (Shape::Path, _) => Err("a path, in quotes"),
        (Shape::Text, Value::String(text)) => Ok(vec![text.clone()]),
        (Shape::Text, _) => Err("a text, in quotes"),
        (Shape::Switch, Value::Boolean(on)) => Ok(vec![on.to_string()]),
        (Shape::Switch, _) => Err("true or false"),
        (Shape::Count, Value::Integer(count)) => Ok(vec![count.to_string()]),
        (Shape::Count, _) => Err("a whole number"),
        (Shape::List, Value::Array(values)) => {
            values.iter().map(|value| value.as_str().map(str::to_owned).ok_or("a list of texts")).collect()
        }
        (Shape::List, _) => Err("a list of texts"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sample_has_every_setting() {
        let sample = include_str!("../../../deploy/coffer.toml");
        let is_off = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let all: String =
            sample.lines().map(|line| if is_off(line) { &line[1..] } else { line }.to_owned() + "\n").collect();
        let mut mistakes = Vec::new();
        let given = parse(&all, Path::new("coffer.toml"), &mut mistakes).expect("TOML");
        assert!(mistakes.is_empty(), "{mistakes:?}");
        for setting in SETTINGS {
            assert!(given.iter().any(|given| given.key == setting.key), "{} is missing", setting.file_key());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_configuration_or_mistakes(text in "([a-z_.\\[\\]=\" \n0-9]|listen|data|\\[tls\\]|é)*") {
            let mut mistakes = Vec::new();
            parse(&text, Path::new("coffer.toml"), &mut mistakes);
            prop_assert!(mistakes.iter().all(|mistake| !mistake.contains('\n')));
        }
    }
}
