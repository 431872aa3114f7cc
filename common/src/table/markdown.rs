//! Tables in Markdown, as GitHub and GitLab render them: pipes aligned, so that the source reads as a table too.

use super::lines::{self, Kind, Line, Value};
use super::{Column, Group, Table, notes};

pub(super) fn render(table: &Table) -> String {
    let mut text = String::new();
    for group in &table.groups {
        text +=
            &format!("**{} · {}**\n\n{}\n", escaped(&group.data), escaped(&group.model), pipes(table, group));
    }
    let blocks = [
        notes::legend(table, "bold").iter().map(|note| format!("- {}\n", escaped(note))).collect::<String>(),
        notes::of_seeds(table).iter().map(|note| format!("- {}\n", escaped(note))).collect(),
        notes::sources(table)
            .iter()
            .enumerate()
            .map(|(index, source)| format!("[^{}]: {}\n", index + 1, escaped(source)))
            .collect(),
    ];
    let blocks: Vec<String> = blocks.into_iter().filter(|block| !block.is_empty()).collect();
    if table.groups.is_empty() { text } else { text + &blocks.join("\n") }
}

/// The rows of a group, heading first.
fn pipes(table: &Table, group: &Group) -> String {
    let headings = table.columns.iter().map(heading);
    let mut rows: Vec<Vec<String>> =
        vec![["Method", "Seeds"].map(str::to_owned).into_iter().chain(headings).collect()];
    rows.extend(lines::of(table, group).iter().map(|line| {
        let values = line.values.iter().map(value);
        [stub(line), escaped(&line.seeds)].into_iter().chain(values).collect()
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(4);
    let widths: Vec<usize> = (0..table.columns.len() + 2).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += &line(cells);
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, width)| {
                if column < 2 { "-".repeat(*width) } else { "-".repeat(width - 1) + ":" }
            });
            text += &line(rules);
        }
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.fold("|".to_owned(), |line, cell| format!("{line} {cell} |")) + "\n"
}

fn heading(column: &Column) -> String {
    let heading = format!("{} {}", column.title(), column.arrow());
    escaped(heading.trim_end())
}

fn stub(line: &Line) -> String {
    let stub = escaped(&line.stub);
    match line.kind {
        Kind::Row => stub,
        Kind::Difference => format!("&emsp;{stub}"),
        Kind::Test => format!("&emsp;*{stub}*"),
        Kind::Published(source) => format!("&emsp;{stub}[^{source}]"),
    }
}

fn value(value: &Value) -> String {
    let words = escaped(&value.words(lines::plus_minus));
    if value.best { format!("**{words}**") } else { words }
}

/// Labels are the user's, and may hold what Markdown reads as markup.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| "\\|*_`<>[]".contains(c).then_some('\\').into_iter().chain([c])).collect()
}
