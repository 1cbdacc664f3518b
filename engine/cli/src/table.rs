//! Aligned columns.

/// Which side a column's text is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows below a headline, columns two spaces apart.
pub(crate) fn render(columns: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let width = |at: usize, title: &str| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).chain([title.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> =
        columns.iter().enumerate().map(|(at, (title, _))| width(at, title)).collect();
    let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let cells =
            row.iter().zip(columns).zip(&widths).map(|((cell, (_, side)), width)| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["read".to_owned(), "1".to_owned()], vec!["x".into(), "12.3µs".into()]];
        let text = render(&[("CALL", Side::Left), ("P50", Side::Right)], &rows);
        assert_eq!(text, "CALL     P50\nread       1\nx     12.3µs\n");
    }
}
