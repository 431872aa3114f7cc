//! Tables in Markdown, as GitHub and GitLab render them.

use super::{Aggregate, Column, Table};

pub(super) fn render(table: &Table) -> String {
    let mut text = String::new();
    for group in &table.groups {
        text += &format!("**{} · {}**\n\n", escaped(&group.data), escaped(&group.model));
        let headings = table.columns.iter().map(|column| format!("{} {}", column.title(), column.arrow()));
        let heading: Vec<String> =
            ["Method", "Seeds"].map(str::to_owned).into_iter().chain(headings).collect();
        text += &line(heading.iter().map(|cell| escaped(cell.trim_end())));
        text += &line(["---", "---"].into_iter().chain(table.columns.iter().map(|_| "---:")));
        for row in &group.rows {
            let values =
                row.values.iter().zip(&table.columns).map(|(aggregate, column)| value(aggregate, column));
            text += &line([escaped(&row.method), escaped(&row.tally.words())].into_iter().chain(values));
        }
        text += "\n";
    }
    if table.has_best() {
        text += "Bold: best mean among the rows of which all seeds are done.\n";
    }
    let notes = table.notes();
    if !notes.is_empty() {
        text += "\n";
    }
    notes.iter().for_each(|note| text += &format!("- {}\n", escaped(note)));
    text
}

fn line(cells: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    cells.into_iter().fold("|".to_owned(), |line, cell| format!("{line} {} |", cell.as_ref())) + "\n"
}

fn value(value: &Aggregate, column: &Column) -> String {
    let words = value.words(column, |mean, deviation| match deviation {
        Some(deviation) => format!("{mean} ± {deviation}"),
        None => mean.to_owned(),
    });
    if value.best { format!("**{words}**") } else { words }
}

/// Labels are the user's, and may hold what Markdown reads as markup.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| "\\|*_`<>[]".contains(c).then_some('\\').into_iter().chain([c])).collect()
}
