//! Aligned columns that fit a terminal, in which nothing that a person may want to copy is shortened.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::escape;

/// Between two columns.
const GAP: &str = "  ";
/// A column that may be narrower than its content is not made narrower than this, in cells.
const COLUMN_CELLS_MIN: usize = 16;

/// What becomes of a column where the terminal is too narrow for all of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Whole,
    Wraps,
    Cut,
    Dropped,
}

/// A column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    fit: Fit,
}

/// A column whose cells are always whole: arguments of other commands, and what the table is for.
pub(crate) const fn whole(name: &'static str) -> Column {
    Column { name, fit: Fit::Whole }
}

/// A column whose cells are always whole, and take several lines where that is needed; no word is broken.
pub(crate) const fn wraps(name: &'static str) -> Column {
    Column { name, fit: Fit::Wraps }
}

/// A column of texts that are cut with `…`, and left out if that is not enough. Never for arguments.
pub(crate) const fn cut(name: &'static str) -> Column {
    Column { name, fit: Fit::Cut }
}

/// A column that is left out where there is no room for it.
pub(crate) const fn dropped(name: &'static str) -> Column {
    Column { name, fit: Fit::Dropped }
}

/// Rows under a header; every cell is escaped, columns without content are left out.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

enum Row {
    Group(String),
    Cells(Vec<String>),
}

/// A column that is shown: its number, and its width in cells.
type Shown = (usize, usize);

impl Table {
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A heading over the rows that follow.
    pub(crate) fn group(&mut self, heading: &str) {
        self.rows.push(Row::Group(escape::text(heading)));
    }

    /// A row with one cell a column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(Row::Cells(cells.into_iter().map(escape::text).collect()));
    }

    /// The text, a line break after each line. A line longer than `width` has whole cells only, which a terminal shows on
    /// several lines and copies as one.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        if self.cells().next().is_none() {
            return String::new();
        }
        let used = |column: &usize| self.cells().any(|row| !row[*column].is_empty());
        let mut shown: Vec<Shown> =
            (0..self.columns.len()).filter(used).map(|column| (column, self.widest(column))).collect();
        let grouped = self.rows.iter().any(|row| matches!(row, Row::Group(_)));
        let indent = if grouped { GAP } else { "" };
        let left_out = width.map_or(Vec::new(), |width| self.fit(&mut shown, width.saturating_sub(indent.len())));

        let mut text = String::new();
        let header: Vec<String> = self.columns.iter().map(|column| column.name.to_owned()).collect();
        self.lines(&mut text, indent, &shown, &header);
        for row in &self.rows {
            match row {
                Row::Group(heading) => {
                    text.push_str(heading);
                    text.push('\n');
                }
                Row::Cells(cells) => self.lines(&mut text, indent, &shown, cells),
            }
        }
        if !left_out.is_empty() {
            text.push_str(&format!("not shown on this narrow terminal: {}\n", left_out.join(", ")));
        }
        text
    }

    fn cells(&self) -> impl Iterator<Item = &Vec<String>> {
        self.rows.iter().filter_map(|row| match row {
            Row::Cells(cells) => Some(cells),
            Row::Group(_) => None,
        })
    }

    fn widest(&self, column: usize) -> usize {
        let content = self.cells().map(|row| row[column].width()).max().unwrap_or(0);
        content.max(self.columns[column].name.width())
    }

    /// The width that a column keeps at least.
    fn floor(&self, (column, width): Shown) -> usize {
        let least = match self.columns[column].fit {
            Fit::Whole | Fit::Dropped => width,
            Fit::Cut => COLUMN_CELLS_MIN,
            Fit::Wraps => {
                let longest = |row: &Vec<String>| words(&row[column]).map(|word| word.trim_end().width()).max();
                COLUMN_CELLS_MIN.max(self.cells().filter_map(longest).max().unwrap_or(0))
            }
        };
        least.min(width)
    }

    /// Leaves out columns, the last first, and narrows others, the widest first, until a line fits as well as it can.
    /// Returns the names of those left out.
    fn fit(&self, shown: &mut Vec<Shown>, line: usize) -> Vec<&'static str> {
        let mut left_out = Vec::new();
        let gaps = |shown: &[Shown]| GAP.len() * shown.len().saturating_sub(1);
        while shown.iter().map(|one| self.floor(*one)).sum::<usize>() + gaps(shown) > line {
            let may_go = |(column, _): &Shown| matches!(self.columns[*column].fit, Fit::Cut | Fit::Dropped);
            let Some(last) = shown.iter().rposition(may_go) else { break };
            left_out.insert(0, self.columns[shown.remove(last).0].name);
        }
        let floors: Vec<usize> = shown.iter().map(|one| self.floor(*one)).collect();
        while shown.iter().map(|(_, width)| width).sum::<usize>() + gaps(shown) > line {
            let can_shrink = |(at, (_, width)): &(usize, &mut Shown)| *width > floors[*at];
            match shown.iter_mut().enumerate().filter(can_shrink).max_by_key(|(_, (_, width))| *width) {
                Some((_, (_, widest))) => *widest -= 1,
                None => break,
            }
        }
        left_out
    }

    fn lines(&self, text: &mut String, indent: &str, shown: &[Shown], cells: &[String]) {
        let parts: Vec<Vec<String>> = shown
            .iter()
            .map(|(column, width)| match self.columns[*column].fit {
                Fit::Cut => vec![cut_to(&cells[*column], *width)],
                Fit::Wraps => wrapped(&cells[*column], *width),
                Fit::Whole | Fit::Dropped => vec![cells[*column].clone()],
            })
            .collect();
        for at in 0..parts.iter().map(Vec::len).max().unwrap_or(0) {
            let start = text.len();
            text.push_str(indent);
            for (part, (_, width)) in parts.iter().zip(shown) {
                let cell = part.get(at).map_or("", String::as_str);
                text.push_str(cell);
                text.push_str(&" ".repeat(width.saturating_sub(cell.width())));
                text.push_str(GAP);
            }
            text.truncate(start + text[start..].trim_end_matches(' ').len());
            text.push('\n');
        }
    }
}

/// Pieces between which a line may break: after blanks and commas.
fn words(cell: &str) -> impl Iterator<Item = &str> {
    cell.split_inclusive([' ', ','])
}

/// Lines of at most `width` cells, of whole words.
fn wrapped(cell: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(cell) {
        let line = lines.last().map_or(0, |line| line.width());
        if line > 0 && line + word.trim_end().width() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// At most `width` cells, the last one `…` if something is missing.
fn cut_to(cell: &str, width: usize) -> String {
    if cell.width() <= width {
        return cell.to_owned();
    }
    let mut cells = 0;
    let fits = |c: &char| {
        cells += c.width().unwrap_or(0);
        cells < width
    };
    cell.chars().take_while(fits).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[whole("NAME"), whole("EMPTY"), cut("DESCRIPTION")]);
        table.row(["A", "", "漢字 wide"]);
        table.row(["LONGER_NAME", "", "second\nline"]);
        table
    }

    #[test]
    fn columns_align_and_empty_ones_go() {
        let expected = "NAME         DESCRIPTION\nA            漢字 wide\nLONGER_NAME  second\\nline\n";
        assert_eq!(table().render(None), expected);
        assert_eq!(table().render(Some(80)), expected);
    }

    #[test]
    fn groups_indent_their_rows() {
        let mut table = Table::new(&[whole("NAME"), whole("KIND")]);
        table.group("accounts/a/plugins/github");
        table.row(["A", "plain"]);
        assert_eq!(table.render(None), "  NAME  KIND\naccounts/a/plugins/github\n  A     plain\n");
    }

    #[test]
    fn texts_are_cut_to_fit_a_terminal() {
        let mut table = Table::new(&[whole("NAME"), cut("DESCRIPTION")]);
        table.row(["SHORT", &"long ".repeat(30)]);
        table.row(["SHORT", &"漢".repeat(60)]);
        for line in table.render(Some(40)).lines() {
            assert!(line.width() <= 40, "{line}");
        }
        assert!(table.render(Some(40)).contains('…'));
        assert!(!table.render(None).contains('…'), "only terminals have a width");
    }

    #[test]
    fn arguments_stay_whole_whatever_the_width() {
        let workload = "projects/shop/environments/production/servers/web";
        let token = "tokens/abcdefghijklmnopqrstuv";
        let mut table = Table::new(&[
            whole("PRINCIPAL"),
            whole("TOKEN"),
            dropped("EXPIRES"),
            wraps("CHANGED"),
            dropped("BY"),
            cut("DESCRIPTION"),
        ]);
        table.row([workload, token, "2026-01-31 23:59", "DATABASE_URL,STRIPE_API_KEY,A", "services/x", "words of it"]);
        for width in 0..200 {
            let text = table.render(Some(width));
            for whole in [workload, token, "DATABASE_URL,", "STRIPE_API_KEY,"] {
                assert!(text.contains(whole), "{width}: {text}");
            }
        }
        // The last goes first, and is named.
        let wide = table.render(Some(120));
        assert!(wide.contains("EXPIRES") && !wide.contains("services/x"), "{wide}");
        assert!(wide.ends_with("not shown on this narrow terminal: BY, DESCRIPTION\n"), "{wide}");
        let narrow = table.render(Some(80));
        assert!(narrow.ends_with("not shown on this narrow terminal: EXPIRES, BY, DESCRIPTION\n"), "{narrow}");
    }

    #[test]
    fn lists_wrap_between_their_words() {
        let mut table = Table::new(&[whole("NAME"), wraps("CHANGED"), whole("X")]);
        table.row(["SHORT", "AAAAAAAAAA,BBBBBBBBBB,CC,DD", "x"]);
        let expected = "NAME   CHANGED           X\nSHORT  AAAAAAAAAA,       x\n       BBBBBBBBBB,CC,DD\n";
        assert_eq!(table.render(Some(26)), expected);
        let one_line = "NAME   CHANGED                      X\nSHORT  AAAAAAAAAA,BBBBBBBBBB,CC,DD  x\n";
        assert_eq!(table.render(Some(80)), one_line);
    }

    #[test]
    fn nothing_prints_nothing() {
        assert_eq!(Table::new(&[whole("NAME")]).render(None), "");
    }
}
