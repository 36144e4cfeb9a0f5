//! What a dry run prints: names, kinds, versions and sources, never a value.

use crate::{Args, Inherited, deliver::assign, received::Variable, report};

/// A table with a line for each secret. Says where each goes if that is not the variable of its name.
pub(crate) fn render(secrets: &[Variable<()>], args: &Args, inherited: &Inherited) -> String {
    let delivery = &args.delivery;
    let told = !delivery.env.is_empty() || delivery.files.is_some();
    let mut rows = vec![["NAME", "KIND", "VERSION", "DELIVERED AS", "SOURCE"].map(str::to_owned)];
    for secret in secrets {
        let mut places = Vec::new();
        for variable in assign::targets(secret, args) {
            let kept = args.keep_existing && inherited.get(&variable).is_some();
            places.push(if kept { format!("{variable}: inherited (--keep-existing)") } else { variable });
        }
        if let Some(directory) = &delivery.files {
            places.push(directory.join(secret.name.as_str()).display().to_string());
        }
        let name = secret.name.to_string();
        rows.push(match &places[..] {
            // The secret takes no part at all.
            [place] if !told && *place != name => {
                [name, "-".to_owned(), "-".to_owned(), String::new(), "inherited (--keep-existing)".to_owned()]
            }
            _ => {
                let places = report::one_line(&places.join(", "));
                [name, secret.kind.to_owned(), secret.version.to_string(), places, report::one_line(&secret.source)]
            }
        });
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (names, kinds, versions, places) = (width(0), width(1), width(2), width(3));
    let lines = rows.iter().map(|[name, kind, version, place, source]| {
        let place = if told { format!("{place:places$}  ") } else { String::new() };
        format!("{name:names$}  {kind:kinds$}  {version:>versions$}  {place}{source}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::received::tests::args;
    use coffer_proto::name::VariableName;

    fn variable(name: &str, source: &str) -> Variable<()> {
        let name = VariableName::parse(name).expect("a good name");
        Variable { name, value: (), source: source.to_owned(), kind: "plain", version: 12, uid: String::new() }
    }

    fn table(words: &[&str]) -> String {
        let variables = [variable("LONG_NAME", "projects/p/secrets/LONG_NAME"), variable("A", "x\n\u{1b}[2J")];
        render(&variables, &args(words), &Inherited::new([("A".into(), "hunter2".into())]))
    }

    #[test]
    fn columns_line_up_and_nothing_breaks_them() {
        assert_eq!(
            table(&[]),
            "NAME       KIND   VERSION  SOURCE\n\
             LONG_NAME  plain       12  projects/p/secrets/LONG_NAME\n\
             A          plain       12  x\\n\\u{1b}[2J\n"
        );
        let table = table(&["--keep-existing"]);
        assert!(table.ends_with("\nA          -            -  inherited (--keep-existing)\n"), "{table}");
    }

    #[test]
    fn other_places_are_told() {
        assert_eq!(
            table(&["--env", "LONG_NAME=b", "--env", "LONG_NAME=A", "--env", "A=x", "--keep-existing"]),
            "NAME       KIND   VERSION  DELIVERED AS                       SOURCE\n\
             LONG_NAME  plain       12  b, A: inherited (--keep-existing)  projects/p/secrets/LONG_NAME\n\
             A          plain       12  x                                  x\\n\\u{1b}[2J\n"
        );
        let table = table(&["--files", "/run/x\n", "--env", "A=a"]);
        assert!(table.contains("  /run/x\\n/LONG_NAME  projects/"), "{table}");
        assert!(table.contains("  a, /run/x\\n/A"), "{table}");
    }
}
