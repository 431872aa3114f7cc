//! Tables as comma-separated values (RFC 4180, with a line feed as in every tool that reads them).
//!
//! Numbers are unrounded, in the units of the results: fractions, seconds, counts. What a seed lacks is an empty field.

use super::{Aggregate, Row, Table};

pub(super) fn render(table: &Table) -> String {
    let mut heading: Vec<String> =
        ["data", "model", "method", "N", "done", "running", "waiting", "failed", "cancelled"]
            .map(str::to_owned)
            .to_vec();
    for column in &table.columns {
        heading.extend(["mean", "sd", "n", "N"].map(|statistic| format!("{column}_{statistic}")));
    }
    let mut text = line(&heading);
    for group in &table.groups {
        for row in &group.rows {
            let mut fields = vec![group.data.clone(), group.model.clone(), row.method.clone()];
            fields.extend(tally(row));
            row.values.iter().for_each(|value| fields.extend(statistics(value)));
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

fn statistics(value: &Aggregate) -> [String; 4] {
    let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
    [number(value.mean), number(value.sd), value.n.to_string(), value.of.to_string()]
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
