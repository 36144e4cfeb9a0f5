//! The forms in which a placeholder of a template writes a value: `{{NAME|json}}`.

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is: `{{NAME}}`.
    Plain,
    /// With its quotes, as a string that JSON (RFC 8259), TOML 1.0 and YAML 1.2 (5.7, in double quotes) read alike.
    Json,
    /// With its quotes, as one word of a POSIX shell (2.2.2, in single quotes).
    Shell,
    /// Percent-encoded but for unreserved characters (RFC 3986, 2.3): for any part of a URL.
    Url,
}

/// The words behind the bar, for errors.
pub(super) const FORMS: &str = "json, toml, yaml, sh and url";

impl Form {
    /// By its word in a template.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "json" | "toml" | "yaml" => Some(Form::Json),
            "sh" => Some(Form::Shell),
            "url" => Some(Form::Url),
            _ => None,
        }
    }

    /// Gives the value piece by piece, so that its length can be known before there is room for it.
    pub(super) fn write(self, value: &str, sink: &mut impl FnMut(&str)) {
        match self {
            Form::Plain => sink(value),
            Form::Json => quoted(value, "\"", sink, json_escape),
            Form::Shell => quoted(value, "'", sink, |c, sink| match c {
                '\'' => sink("'\\''"),
                _ => sink(c.encode_utf8(&mut [0; 4])),
            }),
            Form::Url => value.bytes().for_each(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    sink(char::from(byte).encode_utf8(&mut [0; 4]));
                }
                _ => sink(ascii(&[b'%', digit(byte >> 4), digit(byte & 0xf)])),
            }),
        }
    }
}

fn quoted<S: FnMut(&str)>(value: &str, quote: &str, sink: &mut S, escape: fn(char, &mut S)) {
    sink(quote);
    value.chars().for_each(|c| escape(c, sink));
    sink(quote);
}

/// TOML wants DEL escaped, and YAML all that it does not count as printable (5.1) or reads as a line break.
fn json_escape(c: char, sink: &mut impl FnMut(&str)) {
    match c {
        '"' => sink("\\\""),
        '\\' => sink("\\\\"),
        '\n' => sink("\\n"),
        '\r' => sink("\\r"),
        '\t' => sink("\\t"),
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
            let code = u32::from(c);
            let digits = [12, 8, 4, 0].map(|shift| digit((code >> shift & 0xf) as u8));
            sink("\\u");
            sink(ascii(&digits));
        }
        _ => sink(c.encode_utf8(&mut [0; 4])),
    }
}

fn digit(value: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(value & 0xf)]
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    const HARD: &str = "a\"b\\c'd $HOME `id` %41\n\r\t\u{1}\u{7f}\u{85}\u{2028}\u{feff}ü漢😀";

    fn written(form: Form, value: &str) -> String {
        let mut out = String::new();
        form.write(value, &mut |part| out.push_str(part));
        out
    }

    #[test]
    fn each_form_is_what_its_readers_expect() {
        let json = "\"a\\\"b\\\\c'd $HOME `id` %41\\n\\r\\t\\u0001\\u007F\\u0085\\u2028\\uFEFFü漢😀\"";
        assert_eq!(written(Form::Json, HARD), json);
        assert_eq!(written(Form::Shell, "it's"), "'it'\\''s'");
        assert_eq!(written(Form::Url, "a-Z_0.9~ /?&=%+ü"), "a-Z_0.9~%20%2F%3F%26%3D%25%2B%C3%BC");
        assert_eq!(written(Form::Plain, HARD), HARD);
        for (word, form) in [("json", Form::Json), ("toml", Form::Json), ("yaml", Form::Json), ("sh", Form::Shell)] {
            assert!(Form::parse(word) == Some(form) && FORMS.contains(word), "{word}");
        }
        assert!(Form::parse("url").is_some() && Form::parse("JSON").is_none() && Form::parse("").is_none());
    }

    #[test]
    fn a_shell_reads_what_was_meant() {
        let script = format!("printf %s {}", written(Form::Shell, HARD));
        let printed = Command::new("sh").args(["-c", &script]).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&printed.stdout), HARD);
    }

    proptest! {
        #[test]
        fn nothing_gets_out_of_its_quotes(value in "[^\0]{0,60}|['\"\\\\\n$`]{0,20}") {
            let json = written(Form::Json, &value);
            let inner = &json[1..json.len() - 1];
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                prop_assert!(c != '"' && c != '\n' && c != '\r');
                if c == '\\' {
                    prop_assert!(chars.next().is_some());
                }
            }
            let shell = written(Form::Shell, &value);
            prop_assert!(!shell[1..shell.len() - 1].replace("'\\''", "").contains('\''));
            prop_assert!(written(Form::Url, &value).bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
        }
    }
}
