//! What a table prints, line by line, for the formats that people read: a row, below it what it is compared with, below
//! that what was published. The formats differ only in how they write a [`Value`].

use super::{Aggregate, Bounds, Column, Comparison, Group, PublishedLine, Row, Table};

/// One printed line of a group.
pub(super) struct Line {
    /// Which line of a row it is.
    pub kind: Kind,
    /// What it is about; a method's label for a row.
    pub stub: String,
    /// Seeds that it rests on.
    pub seeds: String,
    /// One for each column.
    pub values: Vec<Value>,
}

/// Which line of a row it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The row.
    Row,
    /// The row less the one that it is compared with.
    Difference,
    /// What a test says of that difference.
    Test,
    /// Published figures; the number of the source, from 1.
    Published(usize),
}

/// One printed value.
#[derive(Default)]
pub(super) struct Value {
    /// Empty for nothing.
    pub mean: String,
    /// Follows `±`.
    pub deviation: Option<String>,
    /// Follows after a space; empty when the heading says it.
    pub unit: &'static str,
    /// In square brackets.
    pub interval: Option<[String; 2]>,
    /// In round brackets: what the value does not say by itself.
    pub remark: Option<String>,
    /// Whether it is marked.
    pub best: bool,
}

const NOTHING: &str = "–";

/// The lines of a group, rows in order.
pub(super) fn of(table: &Table, group: &Group) -> Vec<Line> {
    group.rows.iter().flat_map(|row| of_row(table, row)).collect()
}

fn of_row(table: &Table, row: &Row) -> Vec<Line> {
    let with = |value: &dyn Fn(&Aggregate, &Column) -> Value| {
        row.values.iter().zip(&table.columns).map(|(aggregate, column)| value(aggregate, column)).collect()
    };
    let mut lines = vec![Line {
        kind: Kind::Row,
        stub: row.method.clone(),
        seeds: row.tally.words(),
        values: with(&aggregate),
    }];
    let pairs = row.values.iter().filter_map(|value| value.comparison.as_ref()).map(|c| c.pairs).max();
    if let (Some(reference), Some(pairs)) = (&table.compare, pairs) {
        let seeds = if pairs == 1 { "1 pair".to_owned() } else { format!("{pairs} pairs") };
        let stub = format!("− {reference}");
        let values = with(&|value, column| difference(value.comparison.as_ref(), column, pairs));
        lines.push(Line { kind: Kind::Difference, stub, seeds, values });
        if row.values.iter().any(|value| value.comparison.as_ref().is_some_and(|c| c.p.is_some())) {
            let values = with(&|value, _| test(value.comparison.as_ref()));
            lines.push(Line { kind: Kind::Test, stub: "p, d".to_owned(), seeds: String::new(), values });
        }
    }
    lines.extend(row.published.iter().filter_map(|line| published(table, line)));
    lines
}

fn aggregate(value: &Aggregate, column: &Column) -> Value {
    let Some(mean) = value.mean else {
        return Value { mean: NOTHING.to_owned(), ..Value::default() };
    };
    let shown = column.show(mean, value.sd);
    Value {
        mean: shown.mean,
        deviation: shown.deviation,
        unit: shown.unit,
        interval: bounds(value.interval, |end| column.show(end, None).mean),
        remark: (value.n < value.of).then(|| format!("{}/{}", value.n, value.of)),
        best: value.best,
    }
}

fn difference(comparison: Option<&Comparison>, column: &Column, pairs: usize) -> Value {
    let Some(found) = comparison else {
        return Value { mean: NOTHING.to_owned(), ..Value::default() };
    };
    let shown = column.show_difference(found.difference, found.sd);
    Value {
        mean: shown.mean,
        deviation: shown.deviation,
        unit: shown.unit,
        interval: bounds(found.interval, |end| column.show_difference(end, None).mean),
        remark: (found.pairs < pairs).then(|| format!("{}/{pairs}", found.pairs)),
        best: false,
    }
}

fn test(comparison: Option<&Comparison>) -> Value {
    let mean = match comparison.map(|found| (found.p_holm, found.effect)) {
        Some((Some(p), Some(effect))) => format!("{}, {}", p_value(p), signed(effect)),
        _ => NOTHING.to_owned(),
    };
    Value { mean, ..Value::default() }
}

fn published(table: &Table, line: &PublishedLine) -> Option<Line> {
    let number = table.sources.iter().position(|source| source.id == line.source)? + 1;
    let values = line.values.iter().zip(&table.columns).map(|(value, column)| {
        let Some(value) = value else {
            return Value { mean: NOTHING.to_owned(), ..Value::default() };
        };
        let difference = value.difference.map(|difference| {
            let shown = column.show_difference(difference, None);
            if shown.unit.is_empty() { shown.mean } else { format!("{} {}", shown.mean, shown.unit) }
        });
        Value { mean: value.printed.clone(), remark: difference, ..Value::default() }
    });
    Some(Line {
        kind: Kind::Published(number),
        stub: "published".to_owned(),
        seeds: String::new(),
        values: values.collect(),
    })
}

fn bounds(interval: Option<Bounds>, show: impl Fn(f64) -> String) -> Option<[String; 2]> {
    interval.map(|interval| [show(interval.low), show(interval.high)])
}

/// Two digits that mean something, or that there are none.
fn p_value(p: f64) -> String {
    if p < 0.001 {
        "<0.001".to_owned()
    } else if p < 0.1 {
        format!("{p:.3}")
    } else {
        format!("{p:.2}")
    }
}

fn signed(effect: f64) -> String {
    format!("{}{:.2}", if effect < 0.0 { '−' } else { '+' }, effect.abs())
}

impl Value {
    /// In plain text; `join` writes mean and deviation.
    pub(super) fn words(&self, join: impl FnOnce(&str, Option<&str>) -> String) -> String {
        let mut words = join(&self.mean, self.deviation.as_deref());
        if !self.unit.is_empty() {
            words = format!("{words} {}", self.unit);
        }
        if let Some([low, high]) = &self.interval {
            words = format!("{words} [{low}, {high}]");
        }
        match &self.remark {
            Some(remark) => format!("{words} ({remark})"),
            None => words,
        }
    }
}

/// `mean ± deviation`.
pub(super) fn plus_minus(mean: &str, deviation: Option<&str>) -> String {
    match deviation {
        Some(deviation) => format!("{mean} ± {deviation}"),
        None => mean.to_owned(),
    }
}
