//! Makes what a file says safe to print: whoever could write it must not steer the terminal of whoever reads it.

pub(crate) use coffer_proto::escape::{json, text};

/// The same lines, each of visible text.
pub(crate) fn lines(lines: &str) -> String {
    lines.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_nothing_in_them_steers_a_terminal() {
        assert_eq!(lines("a\u{1b}[31m\nb\rc\n"), "a\\u{1b}[31m\nb\\rc\n");
    }
}
