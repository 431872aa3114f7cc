//! Tables for papers: a `table*` a data set, of the packages `booktabs` and `graphicx`, ready to be included.

use metrics::Direction;

use super::lines::{self, Kind, Line, Value};
use super::{Column, Table, notes};

pub(super) fn render(table: &Table) -> String {
    let mut text = "% Needs \\usepackage{booktabs,graphicx}. A table wider than the page is shrunk: choose fewer --columns.\n".to_owned();
    let mut sets: Vec<&str> = Vec::new();
    for group in &table.groups {
        if !sets.contains(&group.data.as_str()) {
            sets.push(&group.data);
        }
    }
    sets.into_iter().for_each(|data| text += &float(&part(table, data), data));
    text
}

/// The groups of one data set, with the sources that they use.
fn part(table: &Table, data: &str) -> Table {
    let mut part = table.clone();
    part.groups.retain(|group| group.data == data);
    let lines: Vec<_> =
        part.groups.iter().flat_map(|group| &group.rows).flat_map(|row| &row.published).collect();
    let used = |source: &super::Source| lines.iter().any(|line| line.source == source.id);
    let sources = table.sources.iter().filter(|source| used(source)).cloned().collect();
    Table { sources, ..part }
}

fn float(table: &Table, data: &str) -> String {
    let mut text = "\\begin{table*}\n\\centering\\small\\setlength{\\tabcolsep}{4pt}\n".to_owned();
    text += &format!("\\caption{{{}}}\n\\label{{tab:{}}}\n", caption(table, data), label(data));
    text += "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n";
    text += &format!("\\begin{{tabular}}{{ll{}}}\n\\toprule\n", "r".repeat(table.columns.len()));
    let headings = table.columns.iter().map(heading);
    text += &row(["Method", "Seeds"].map(str::to_owned).into_iter().chain(headings));
    for group in &table.groups {
        text += "\\midrule\n";
        if table.groups.len() > 1 {
            let columns = table.columns.len() + 2;
            text += &format!("\\multicolumn{{{columns}}}{{l}}{{\\emph{{{}}}}} \\\\\n", escaped(&group.model));
        }
        for line in lines::of(table, group) {
            let values = line.values.iter().map(|cell| value(cell, line.kind));
            text += &row([stub(&line), escaped(&line.seeds)].into_iter().chain(values));
        }
    }
    text += "\\bottomrule\n\\end{tabular}}\n";
    let sources = notes::sources(table);
    let sources = sources
        .iter()
        .enumerate()
        .map(|(index, source)| format!("\\textsuperscript{{{}}} {}.", index + 1, escaped(source)));
    let missing = notes::of_seeds(table).into_iter().map(|note| escaped(&note) + ".");
    let below: Vec<String> = sources.chain(missing).collect();
    if !below.is_empty() {
        text += "\\par\\smallskip\n\\begin{minipage}{\\textwidth}\\footnotesize\n";
        text += &below.join("\\\\\n");
        text += "\n\\end{minipage}\n";
    }
    text + "\\end{table*}\n"
}

fn caption(table: &Table, data: &str) -> String {
    let models: Vec<&str> = table.groups.iter().map(|group| group.model.as_str()).collect();
    let mut caption = format!(
        "{} with {}: mean $\\pm$ sample standard deviation over seeds.",
        escaped(data),
        escaped(&models.join(", "))
    );
    for note in notes::legend(table, "Bold") {
        caption += &format!(" {}.", escaped(&sentence(&note)));
    }
    caption
}

/// With a capital, unless it begins with a symbol such as p.
fn sentence(note: &str) -> String {
    let mut letters = note.chars();
    match (letters.next(), letters.as_str()) {
        (Some(first), rest) if !rest.starts_with(':') => first.to_uppercase().chain(rest.chars()).collect(),
        _ => note.to_owned(),
    }
}

/// For `\ref`: letters, digits and hyphens.
fn label(data: &str) -> String {
    data.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
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

fn stub(line: &Line) -> String {
    let stub = escaped(&line.stub);
    match line.kind {
        Kind::Row => stub,
        Kind::Difference => format!("\\quad {stub}"),
        Kind::Test => "\\quad $p$, $d$".to_owned(),
        Kind::Published(source) => format!("\\quad {stub}\\textsuperscript{{{source}}}"),
    }
}

fn value(value: &Value, kind: Kind) -> String {
    if kind == Kind::Test {
        return escaped(&value.mean);
    }
    let math = |number: &str| number.replace('−', "-");
    let words = value.words(|mean, deviation| {
        let number = match (mean, deviation) {
            ("–", _) => return "--".to_owned(),
            (mean, Some(deviation)) => format!("{} \\pm {deviation}", math(mean)),
            (mean, None) => math(mean),
        };
        if value.best { format!("$\\mathbf{{{number}}}$") } else { format!("${number}$") }
    });
    words.replace('−', "$-$")
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
            '<' => out += "$<$",
            '>' => out += "$>$",
            '−' => out += "$-$",
            '±' => out += "$\\pm$",
            '–' => out += "--",
            'ρ' => out += "$\\rho$",
            letter => out.push(letter),
        }
    }
    out
}
