//! The table of `audit show`. Rows are printed as they come, so columns have widths of their own instead of the widest
//! cell's.

use crate::audit::read::Shown;
use crate::escape;

/// Widths of all columns but the last, in characters; longer cells push the rest of their row aside, and nothing is cut.
const WIDTHS: [usize; 6] = [19, 20, 20, 8, 40, 18];

pub(super) fn header() -> String {
    row(["TIME", "PRINCIPAL", "METHOD", "PHASE", "WHAT", "REASON", "PEER"].map(str::to_owned))
}

pub(super) fn line(line: &Shown) -> String {
    let time = line.time.get(..19).unwrap_or(&line.time).replacen('T', " ", 1);
    let method = line.method.rsplit('/').next().unwrap_or_default();
    // The server's own commands say more by their whole names.
    let method = if line.method.starts_with("coffer-server/") { &line.method } else { method };
    let shown = line.subjects.first().map_or("", |subject| &subject.name);
    let total = line.subjects_total.unwrap_or(line.subjects.len() as u64);
    let what = if total > 1 { format!("{shown} +{}", total - 1) } else { shown.to_owned() };
    let principal = if line.principal.is_empty() { "-" } else { &line.principal };
    let (reason, peer) = (line.reason.as_deref().unwrap_or_default(), line.peer.as_deref().unwrap_or_default());
    row([&time, principal, method, &line.phase, &what, reason, peer].map(escape::text))
}

fn row(cells: [String; 7]) -> String {
    let mut text = String::new();
    for (number, cell) in cells.iter().enumerate() {
        let width = WIDTHS.get(number).copied().unwrap_or(0);
        text.push_str(&format!("{cell:width$}  "));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::read::ShownSubject;

    #[test]
    fn rows_stand_under_their_header_and_say_how_many_more() {
        let subject = |name: &str| ShownSubject { name: name.to_owned() };
        let shown = Shown {
            time: "2026-01-31T12:00:00.000001Z".to_owned(),
            phase: "refused".to_owned(),
            method: "coffer.v1.Secrets/CreateSecret".to_owned(),
            principal: "users/\u{1b}[2Jann".to_owned(),
            subjects: vec![subject("projects/p"), subject("projects/q")],
            reason: Some("PERMISSION_DENIED".to_owned()),
            peer: Some("unix".to_owned()),
            ..Shown::default()
        };
        let (header, text) = (header(), line(&shown));
        assert_eq!(
            text,
            "2026-01-31 12:00:00  users/\\u{1b}[2Jann    CreateSecret          refused   projects/p +1                             PERMISSION_DENIED   unix\n"
        );
        for (name, cell) in [("PRINCIPAL", "users"), ("METHOD", "Create"), ("WHAT", "projects/p"), ("PEER", "unix")] {
            assert_eq!(header.find(name), text.find(cell), "{name}");
        }
        let own = Shown { method: "coffer-server/init".to_owned(), ..Shown::default() };
        assert!(line(&own).contains("coffer-server/init"));
    }
}
