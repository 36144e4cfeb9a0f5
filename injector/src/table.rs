//! What a dry run prints: names, kinds, versions and sources, never a value.

use crate::{Inherited, received::Variable, report};

/// A table with a line for each variable; `kept` are the inherited variables that win over secrets, if they do.
pub(crate) fn render(variables: &[Variable<()>], kept: Option<&Inherited>) -> String {
    let head = ["NAME", "KIND", "VERSION", "SOURCE"].map(str::to_owned);
    let rows = variables.iter().map(|variable| {
        let name = variable.name.to_string();
        if kept.is_some_and(|inherited| inherited.get(&name).is_some()) {
            return [name, "-".to_owned(), "-".to_owned(), "inherited (--keep-existing)".to_owned()];
        }
        [name, variable.kind.to_owned(), variable.version.to_string(), report::one_line(&variable.source)]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let (names, kinds, versions) = (width(0), width(1), width(2));
    let lines = rows
        .iter()
        .map(|[name, kind, version, source]| format!("{name:names$}  {kind:kinds$}  {version:>versions$}  {source}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_proto::name::VariableName;

    fn variable(name: &str, source: &str) -> Variable<()> {
        let name = VariableName::parse(name).expect("a good name");
        Variable { name, value: (), source: source.to_owned(), kind: "plain", version: 12 }
    }

    #[test]
    fn columns_line_up_and_nothing_breaks_them() {
        let variables = [variable("LONG_NAME", "projects/p/secrets/LONG_NAME"), variable("A", "x\n\u{1b}[2J")];
        let kept = Inherited::new([("A".into(), "hunter2".into())]);
        assert_eq!(
            render(&variables, None),
            "NAME       KIND   VERSION  SOURCE\n\
             LONG_NAME  plain       12  projects/p/secrets/LONG_NAME\n\
             A          plain       12  x\\n\\u{1b}[2J\n"
        );
        let table = render(&variables, Some(&kept));
        assert!(table.ends_with("\nA          -            -  inherited (--keep-existing)\n"), "{table}");
    }
}
