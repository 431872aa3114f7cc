//! Tables for papers: one `tabular` of the `booktabs` package, to be put into a `table` of one's own.

use metrics::Direction;

use super::{Aggregate, Column, Table};

pub(super) fn render(table: &Table) -> String {
    let mut text =
        "% Needs \\usepackage{booktabs}. Mean and sample standard deviation over seeds.\n".to_owned();
    text += &format!("\\begin{{tabular}}{{ll{}}}\n\\toprule\n", "r".repeat(table.columns.len()));
    let headings = table.columns.iter().map(heading);
    text += &line(["Method", "Seeds"].map(str::to_owned).into_iter().chain(headings));
    for group in &table.groups {
        text += "\\midrule\n";
        let title = format!("{}, {}", escaped(&group.data), escaped(&group.model));
        text += &format!("\\multicolumn{{{}}}{{l}}{{\\emph{{{title}}}}} \\\\\n", table.columns.len() + 2);
        for row in &group.rows {
            let values =
                row.values.iter().zip(&table.columns).map(|(aggregate, column)| value(aggregate, column));
            text += &line([escaped(&row.method), escaped(&row.tally.words())].into_iter().chain(values));
        }
    }
    text += "\\bottomrule\n\\end{tabular}\n";
    if table.has_best() {
        text += "% Bold: best mean among the rows of which all seeds are done.\n";
    }
    table.notes().iter().for_each(|note| text += &format!("% {note}\n"));
    text
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().collect::<Vec<_>>().join(" & ") + " \\\\\n"
}

fn heading(column: &Column) -> String {
    let arrow = match column.direction() {
        Direction::Higher => " $\\uparrow$",
        Direction::Lower => " $\\downarrow$",
        Direction::Neither => "",
    };
    escaped(&column.title()) + arrow
}

fn value(value: &Aggregate, column: &Column) -> String {
    let words = value.words(column, |mean, deviation| {
        let number = match deviation {
            Some(deviation) => format!("{mean} \\pm {deviation}"),
            None => mean.to_owned(),
        };
        if value.best { format!("$\\mathbf{{{number}}}$") } else { format!("${number}$") }
    });
    words.replace('–', "--")
}

/// Labels are the user's, and may hold what TeX reads as commands.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', letter]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '|' => out += "\\textbar{}",
            '<' => out += "\\textless{}",
            '>' => out += "\\textgreater{}",
            'ρ' => out += "$\\rho$",
            letter => out.push(letter),
        }
    }
    out
}
