//! Figures in columns, as a terminal shows them. Pure.

use std::fmt;

/// The first column stands left, the others right, as wide as their widest cell.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|it| (*it).to_owned()).collect()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

/// What a bar makes of a figure.
pub(super) fn verdict(met: bool) -> String {
    if met { "met" } else { "NOT MET" }.to_owned()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                match column {
                    0 => line.extend([cell, padding.as_str()]),
                    _ => line.extend(["  ", padding.as_str(), cell]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["what", "bar", ""]);
        table.row(["idle ö".to_owned(), "≤ 15 MB".to_owned(), verdict(true)]);
        table.row(["x".to_owned(), "1".to_owned(), verdict(false)]);
        assert_eq!(
            table.to_string(),
            "what        bar\nidle ö  ≤ 15 MB      met\nx             1  NOT MET\n"
        );
    }
}
