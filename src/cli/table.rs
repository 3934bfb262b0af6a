//! Plain tables: columns padded to their widest cell and two blanks apart.

use std::borrow::Cow;

use crate::go::printable::word;

/// Lays out rows whose cells are divided by `|`.
///
/// A cell may hold what others have said; nothing in it acts on a terminal. Cells are trimmed, widths count characters, and a row's last cell is not padded. The whole is
/// trimmed at its end, so that an empty last cell leaves blanks in every row but the last.
pub fn columns<S: AsRef<str>>(rows: &[S]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.as_ref().split('|').map(|cell| word(cell.trim())).collect())
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    lines.join("\n").trim().to_owned()
}

fn line(row: &[Cow<'_, str>], widths: &[usize]) -> String {
    let Some((last, before)) = row.split_last() else {
        return String::new();
    };
    let mut line = String::new();
    for (cell, width) in before.iter().zip(widths) {
        line.push_str(&format!("{cell:width$}  "));
    }
    line.push_str(last);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_all_but_the_last_cell() {
        assert_eq!(columns(&["a|bb|c", "aaa| b |"]), "a    bb  c\naaa  b");
        assert_eq!(columns(&["aaa|b|", "a|bb|c"]), "aaa  b   \na    bb  c");
    }

    #[test]
    fn a_cell_is_no_row_of_its_own() {
        assert_eq!(columns(&["a\nb|\u{1b}c", "d|e"]), "a\\nb  \\x1bc\nd     e");
    }

    #[test]
    fn counts_characters_and_takes_ragged_rows() {
        assert_eq!(
            columns(&["\u{e4}\u{e4}|x", "a|y|z", "b"]),
            "\u{e4}\u{e4}  x\na   y  z\nb"
        );
        assert_eq!(columns::<&str>(&[]), "");
    }
}
