//! Rows of text in aligned columns.
//!
//! Guarantees: each cell stays on its line, whatever it contains.

use crate::terminal;

/// Space between columns.
const GAP: &str = "  ";

/// `rows` below `header`, each column as wide as its widest cell; those in `right` are aligned to the right.
/// The last column is not filled up.
pub(super) fn render<const N: usize>(header: [&str; N], right: [bool; N], rows: &[[String; N]]) -> String {
    lines(&header, &right, rows)
}

/// The same where the columns are known when it runs; every row has as many as `header`.
pub(super) fn lines(header: &[&str], right: &[bool], rows: &[impl AsRef<[String]>]) -> String {
    let clean = |row: &[String]| row.iter().map(|cell| terminal::within(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| clean(row.as_ref())).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| match (right[column], widths[column]) {
            (true, width) => format!("{cell:>width$}"),
            (false, _) if column + 1 == widths.len() => (*cell).to_owned(),
            (false, width) => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(header.to_vec())).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let rows =
            [["a".to_owned(), "1".to_owned(), "x".to_owned()], ["bcd".into(), "20".into(), String::new()]];
        assert_eq!(
            render(["ID", "N", "WHY"], [false, true, false], &rows),
            "ID    N  WHY\na     1  x\nbcd  20\n"
        );
    }
}
