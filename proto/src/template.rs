//! Texts with placeholders, as `coffer.v1.Templates` defines them.
//!
//! A placeholder is `{{NAME}}` or `{{ NAME }}`, exactly; `{{{{` writes `{{`; every other brace stands for itself. A text
//! is read once, from its start to its end, in time linear in its length.

use std::collections::BTreeSet;

use crate::{limits, name::VariableName};

/// What a text consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Stands for itself.
    Text(&'a str),
    /// Stands for the value of this name, which is a good [`VariableName`].
    Placeholder(&'a str),
}

/// The pieces of a text, in order. No piece of text is empty.
pub fn pieces(text: &str) -> Pieces<'_> {
    Pieces { rest: text }
}

/// The names that a text has placeholders for.
pub fn names(text: &str) -> BTreeSet<VariableName> {
    pieces(text)
        .filter_map(|piece| match piece {
            Piece::Placeholder(name) => VariableName::parse(name).ok(),
            Piece::Text(_) => None,
        })
        .collect()
}

/// See [`pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(brace) = self.rest[from..].find('{').map(|at| from + at) {
            if let Some((piece, length)) = special(&self.rest[brace..]) {
                if brace > 0 {
                    return Some(Piece::Text(self.cut(brace)));
                }
                self.cut(length);
                return Some(piece);
            }
            from = brace + 1;
        }
        Some(Piece::Text(self.cut(self.rest.len())))
    }
}

impl<'a> Pieces<'a> {
    fn cut(&mut self, length: usize) -> &'a str {
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }
}

/// What more than text begins here, and how long it is. Looks no further than the longest placeholder.
fn special(text: &str) -> Option<(Piece<'_>, usize)> {
    if text.starts_with("{{{{") {
        return Some((Piece::Text(&text[..2]), 4));
    }
    let inner = text.strip_prefix("{{")?;
    let (inner, close, around) = match inner.strip_prefix(' ') {
        Some(inner) => (inner, " }}", 6),
        None => (inner, "}}", 4),
    };
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let length = inner.bytes().take(limits::SECRET_NAME_BYTES + 1).take_while(is_name).count();
    let (name, rest) = inner.split_at(length);
    let is_placeholder = rest.starts_with(close) && VariableName::parse(name).is_ok();
    is_placeholder.then_some((Piece::Placeholder(name), length + around))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text with every placeholder written as `<NAME>`.
    fn filled(text: &str) -> String {
        pieces(text).fold(String::new(), |filled, piece| match piece {
            Piece::Text(text) => filled + text,
            Piece::Placeholder(name) => filled + "<" + name + ">",
        })
    }

    #[test]
    fn a_placeholder_is_exact() {
        for (text, expected) in [
            ("", ""),
            ("{{A}}", "<A>"),
            ("{{ A }}", "<A>"),
            ("Bearer {{API_KEY}}, {{ B2 }}.", "Bearer <API_KEY>, <B2>."),
            ("{{A}}{{B}}", "<A><B>"),
            ("{{ A}}", "{{ A}}"),
            ("{{A }}", "{{A }}"),
            ("{{  A  }}", "{{  A  }}"),
            ("{{\tA\t}}", "{{\tA\t}}"),
            ("{{}}", "{{}}"),
            ("{{ }}", "{{ }}"),
            ("{{1A}}", "{{1A}}"),
            ("{{A-B}}", "{{A-B}}"),
            ("{{ä}}", "{{ä}}"),
            ("{A}", "{A}"),
            ("$ {A} }} {", "$ {A} }} {"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn braces_nest_and_stay_open() {
        for (text, expected) in [
            ("{{{A}}}", "{<A>}"),
            ("{{{{A}}}}", "{{A}}}}"),
            ("{{{{{A}}}}}", "{{{A}}}}}"),
            ("{{{{{{A}}}}}}", "{{<A>}}}}"),
            ("{{A{{B}}", "{{A<B>"),
            ("{{A{{B}}}}", "{{A<B>}}"),
            ("{{A", "{{A"),
            ("{{A}", "{{A}"),
            ("{{A} }", "{{A} }"),
            ("{{", "{{"),
            ("{{{", "{{{"),
            ("{{{{", "{{"),
            ("{{{{{", "{{{"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_is_as_long_as_names_are() {
        let longest = "A".repeat(limits::SECRET_NAME_BYTES);
        assert_eq!(filled(&format!("{{{{{longest}}}}}")), format!("<{longest}>"));
        let text = format!("{{{{{longest}A}}}}");
        assert_eq!(filled(&text), text);
    }

    #[test]
    fn names_are_told_once() {
        let found: Vec<_> = names("{{B}} {{A}} {{ B }} {{{{C}}").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["A", "B"]);
    }

    #[test]
    fn megabytes_of_braces_are_read() {
        let text = "{".repeat(4 * 1024 * 1024);
        assert_eq!(pieces(&text).map(|_| 1).sum::<usize>(), text.len() / 4);
        let text = "{{ A".repeat(1024 * 1024);
        assert_eq!(pieces(&text).count(), 1);
    }

    proptest! {
        #[test]
        fn a_text_without_two_braces_is_itself(text in "[^{]{0,20}(\\{[^{]{1,5}){0,9}") {
            prop_assert_eq!(filled(&text), text);
        }

        #[test]
        fn pieces_are_the_text_as_it_was_written(text in "([{} A]|\\{\\{A{1,2}\\}\\}|\\{\\{ A \\}\\}){0,40}") {
            let mut rest = text.as_str();
            for piece in pieces(&text) {
                let written = match piece {
                    Piece::Text(piece) if rest.starts_with("{{{{") => {
                        prop_assert_eq!(piece, "{{");
                        "{{{{".to_owned()
                    }
                    Piece::Text(piece) => {
                        prop_assert!(!piece.is_empty());
                        prop_assert!(!["{{{{", "{{A}}", "{{AA}}", "{{ A }}"].iter().any(|special| piece.contains(special)));
                        piece.to_owned()
                    }
                    Piece::Placeholder(name) if rest.starts_with("{{ ") => format!("{{{{ {name} }}}}"),
                    Piece::Placeholder(name) => format!("{{{{{name}}}}}"),
                };
                prop_assert!(rest.starts_with(&written), "{rest:?} does not begin with {written:?}");
                rest = &rest[written.len()..];
            }
            prop_assert_eq!(rest, "");
        }
    }
}
