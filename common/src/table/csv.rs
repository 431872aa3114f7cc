//! Tables as comma-separated values (RFC 4180, with a line feed as in every tool that reads them).
//!
//! Numbers are unrounded, in the units of the results: fractions, seconds, counts. What a seed lacks is an empty field.
//! Fields of comparisons, intervals and published figures are there when the table has any. A row with several
//! published figures has them in one field, with semicolons between, in the order of its `published_sources`.

use super::{Aggregate, Row, Table};

pub(super) fn render(table: &Table) -> String {
    let mut heading: Vec<String> =
        ["data", "model", "method", "N", "done", "running", "waiting", "failed", "cancelled"]
            .map(str::to_owned)
            .to_vec();
    if !table.sources.is_empty() {
        heading.push("published_sources".to_owned());
    }
    for column in &table.columns {
        heading.extend(statistics(table).into_iter().map(|statistic| format!("{column}_{statistic}")));
    }
    let mut text = line(&heading);
    for group in &table.groups {
        for row in &group.rows {
            let mut fields = vec![group.data.clone(), group.model.clone(), row.method.clone()];
            fields.extend(tally(row));
            if !table.sources.is_empty() {
                fields.push(
                    row.published.iter().map(|line| line.source.as_str()).collect::<Vec<_>>().join(";"),
                );
            }
            for (index, value) in row.values.iter().enumerate() {
                fields.extend(numbers(table, value));
                if !table.sources.is_empty() {
                    fields.extend(published(row, index));
                }
            }
            text += &line(&fields);
        }
    }
    text
}

fn tally(row: &Row) -> [String; 6] {
    let tally = row.tally;
    [tally.of, tally.done, tally.running, tally.waiting, tally.failed, tally.cancelled]
        .map(|count| count.to_string())
}

/// Names of the fields of a column.
fn statistics(table: &Table) -> Vec<&'static str> {
    let mut names = vec!["mean", "sd", "n", "N", "marked"];
    if table.intervals.is_some() {
        names.extend(["low", "high"]);
    }
    if table.compare.is_some() {
        names.extend(["difference", "difference_sd", "pairs", "d", "p", "p_holm", "p_wilcoxon"]);
        if table.intervals.is_some() {
            names.extend(["difference_low", "difference_high"]);
        }
    }
    if !table.sources.is_empty() {
        names.extend(["published", "published_difference"]);
    }
    names
}

fn numbers(table: &Table, value: &Aggregate) -> Vec<String> {
    let mut fields = vec![
        number(value.mean),
        number(value.sd),
        value.n.to_string(),
        value.of.to_string(),
        value.best.to_string(),
    ];
    if table.intervals.is_some() {
        fields.extend([number(value.interval.map(|i| i.low)), number(value.interval.map(|i| i.high))]);
    }
    if table.compare.is_some() {
        let found = value.comparison.as_ref();
        fields.extend([
            number(found.map(|found| found.difference)),
            number(found.and_then(|found| found.sd)),
            found.map_or_else(String::new, |found| found.pairs.to_string()),
            number(found.and_then(|found| found.effect)),
            number(found.and_then(|found| found.p)),
            number(found.and_then(|found| found.p_holm)),
            number(found.and_then(|found| found.p_wilcoxon)),
        ]);
        if table.intervals.is_some() {
            let interval = found.and_then(|found| found.interval);
            fields.extend([number(interval.map(|i| i.low)), number(interval.map(|i| i.high))]);
        }
    }
    fields
}

fn published(row: &Row, index: usize) -> [String; 2] {
    let join = |field: &dyn Fn(&super::PublishedValue) -> String| {
        let fields =
            row.published.iter().map(|line| line.values[index].as_ref().map_or_else(String::new, field));
        fields.collect::<Vec<_>>().join(";")
    };
    [join(&|value| value.value.to_string()), join(&|value| number(value.difference))]
}

fn number(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

fn line(fields: &[String]) -> String {
    fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",") + "\n"
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
