//! Aligned columns.

use unicode_width::UnicodeWidthStr as _;

use super::escape;

/// Between two columns.
const GAP: &str = "  ";
/// A column is not cut shorter than this, in cells.
const COLUMN_CELLS_MIN: usize = 12;

/// Rows under a header; every cell is escaped, columns without content are left out.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Row>,
}

enum Row {
    Group(String),
    Cells(Vec<String>),
}

impl Table {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// A heading over the rows that follow.
    pub(crate) fn group(&mut self, heading: &str) {
        self.rows.push(Row::Group(escape::text(heading)));
    }

    /// A row with one cell a column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        debug_assert_eq!(N, self.header.len());
        self.rows.push(Row::Cells(cells.into_iter().map(escape::text).collect()));
    }

    /// The text, a line break after each line. With a width, the widest columns are cut so that lines fit.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let cells = || {
            self.rows.iter().filter_map(|row| match row {
                Row::Cells(cells) => Some(cells),
                Row::Group(_) => None,
            })
        };
        if cells().next().is_none() {
            return String::new();
        }
        let kept: Vec<usize> =
            (0..self.header.len()).filter(|column| cells().any(|row| !row[*column].is_empty())).collect();
        let widest = |column: &usize| {
            let content = cells().map(|row| row[*column].width()).max().unwrap_or(0);
            content.max(self.header[*column].width())
        };
        let mut widths: Vec<usize> = kept.iter().map(widest).collect();
        let grouped = self.rows.iter().any(|row| matches!(row, Row::Group(_)));
        let indent = if grouped { GAP } else { "" };
        if let Some(width) = width {
            shrink(&mut widths, width.saturating_sub(indent.len()));
        }

        let mut text = String::new();
        let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
        line(&mut text, indent, &kept, &widths, &header);
        for row in &self.rows {
            match row {
                Row::Group(heading) => {
                    text.push_str(heading);
                    text.push('\n');
                }
                Row::Cells(cells) => line(&mut text, indent, &kept, &widths, cells),
            }
        }
        text
    }
}

/// Takes cells from the widest column until the line fits or every column is at its minimum.
fn shrink(widths: &mut [usize], line: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > line {
        match widths.iter_mut().max() {
            Some(widest) if *widest > COLUMN_CELLS_MIN => *widest -= 1,
            _ => return,
        }
    }
}

fn line(text: &mut String, indent: &str, kept: &[usize], widths: &[usize], cells: &[String]) {
    let start = text.len();
    text.push_str(indent);
    for (column, width) in kept.iter().zip(widths) {
        let cell = cut(&cells[*column], *width);
        text.push_str(&cell);
        text.push_str(&" ".repeat(width.saturating_sub(cell.width())));
        text.push_str(GAP);
    }
    text.truncate(start + text[start..].trim_end_matches(' ').len());
    text.push('\n');
}

/// At most `width` cells, the last one `…` if something is missing.
fn cut(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut short = String::new();
    for c in cell.chars() {
        short.push(c);
        if short.width() >= width {
            short.pop();
            break;
        }
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "EMPTY", "DESCRIPTION"]);
        table.row(["A", "", "漢字 wide"]);
        table.row(["LONGER_NAME", "", "second\nline"]);
        table
    }

    #[test]
    fn columns_align_and_empty_ones_go() {
        let expected = "NAME         DESCRIPTION\nA            漢字 wide\nLONGER_NAME  second\\nline\n";
        assert_eq!(table().render(None), expected);
    }

    #[test]
    fn groups_indent_their_rows() {
        let mut table = Table::new(&["NAME", "KIND"]);
        table.group("accounts/a/plugins/github");
        table.row(["A", "plain"]);
        assert_eq!(table.render(None), "  NAME  KIND\naccounts/a/plugins/github\n  A     plain\n");
    }

    #[test]
    fn lines_fit_a_terminal() {
        let mut table = Table::new(&["NAME", "DESCRIPTION"]);
        table.row(["SHORT", &"long ".repeat(30)]);
        table.row(["SHORT", &"漢".repeat(60)]);
        for line in table.render(Some(40)).lines() {
            assert!(line.width() <= 40, "{line}");
        }
        assert!(table.render(Some(40)).contains('…'));
        assert!(!table.render(None).contains('…'), "only terminals have a width");
    }

    #[test]
    fn nothing_prints_nothing() {
        assert_eq!(Table::new(&["NAME"]).render(None), "");
    }
}
