//! Tables for a terminal: aligned columns, in blocks that fit its width.

use super::lines::{self, Kind, Line, Value};
use super::{Column, Table, notes};

/// How the best values are marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emphasis {
    /// With a star, which survives copying and files.
    #[default]
    Star,
    /// In bold, by escape sequences of terminals.
    Bold,
}

/// How a table is laid out as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextStyle {
    /// Marking of the best values.
    pub emphasis: Emphasis,
    /// Characters in a line. Columns that do not fit are continued in further blocks below. `None` for no limit.
    pub width: Option<usize>,
}

const GAP: &str = "  ";

pub(super) fn render(table: &Table, style: TextStyle) -> String {
    let mut lines = Vec::new();
    for group in &table.groups {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("{} · {}", group.data, group.model));
        let printed = lines::of(table, group);
        let stub = stub(&printed);
        let columns: Vec<Block> = table
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| values(&printed, index, column, style))
            .collect();
        for (first, part) in split(&stub, &columns, style.width).into_iter().enumerate() {
            if first > 0 {
                lines.push(String::new());
            }
            lines.extend(beside(&stub, part));
        }
    }
    let mark = match style.emphasis {
        Emphasis::Star => "*",
        Emphasis::Bold => "bold",
    };
    let sources = notes::sources(table);
    let sources = sources.into_iter().enumerate().map(|(index, source)| format!("[{}] {source}", index + 1));
    for part in [notes::legend(table, mark), sources.collect(), notes::of_seeds(table)] {
        if !part.is_empty() && !lines.is_empty() {
            lines.push(String::new());
            lines.extend(part);
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Cells that stand below each other, all of the same width.
struct Block {
    lines: Vec<String>,
    width: usize,
}

impl Block {
    /// `visible` is the text that is seen, without escape sequences.
    fn right(cells: &[(String, String)]) -> Self {
        let width = cells.iter().map(|(visible, _)| visible.chars().count()).max().unwrap_or(0);
        let pad =
            |(visible, printed): &(String, String)| " ".repeat(width - visible.chars().count()) + printed;
        Self { lines: cells.iter().map(pad).collect(), width }
    }

    fn left(cells: &[String]) -> Self {
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        Self { lines: cells.iter().map(|cell| format!("{cell:<width$}")).collect(), width }
    }
}

/// What stands at the left of every block: methods and their seeds.
fn stub(lines: &[Line]) -> Block {
    let column = |title: &str, cell: &dyn Fn(&Line) -> String| {
        let cells: Vec<String> = [title.to_owned()].into_iter().chain(lines.iter().map(cell)).collect();
        Block::left(&cells)
    };
    let methods = column("Method", &|line| match line.kind {
        Kind::Row => line.stub.clone(),
        Kind::Difference => format!("  {}", line.stub),
        Kind::Test => format!("    {}", line.stub),
        Kind::Published(source) => format!("  {} [{source}]", line.stub),
    });
    let seeds = column("Seeds", &|line| line.seeds.clone());
    let lines = methods.lines.iter().zip(&seeds.lines).map(|(method, seeds)| format!("{method}{GAP}{seeds}"));
    Block { lines: lines.collect(), width: methods.width + GAP.len() + seeds.width }
}

fn values(lines: &[Line], index: usize, column: &Column, style: TextStyle) -> Block {
    let title = format!("{} {}", column.title(), column.arrow());
    // The star has a place of its own, so that digits stay below each other.
    let title = if style.emphasis == Emphasis::Star {
        format!("{} ", title.trim_end())
    } else {
        title.trim_end().to_owned()
    };
    let mut cells = vec![(title.clone(), title)];
    cells.extend(lines.iter().map(|line| value(&line.values[index], style.emphasis)));
    Block::right(&cells)
}

fn value(value: &Value, emphasis: Emphasis) -> (String, String) {
    let words = value.words(lines::plus_minus);
    match (emphasis, value.best) {
        (Emphasis::Star, true) => (format!("{words}*"), format!("{words}*")),
        (Emphasis::Star, false) => (format!("{words} "), format!("{words} ")),
        (Emphasis::Bold, true) => (words.clone(), format!("\u{1b}[1m{words}\u{1b}[0m")),
        (Emphasis::Bold, false) => (words.clone(), words),
    }
}

/// Runs of columns that fit beside the stub; at least one column each.
fn split<'a>(stub: &Block, columns: &'a [Block], width: Option<usize>) -> Vec<&'a [Block]> {
    let mut parts = Vec::new();
    let (mut start, mut used) = (0, stub.width);
    for (index, column) in columns.iter().enumerate() {
        let needed = GAP.len() + column.width;
        if index > start && width.is_some_and(|width| used + needed > width) {
            parts.push(&columns[start..index]);
            (start, used) = (index, stub.width);
        }
        used += needed;
    }
    parts.push(&columns[start..]);
    parts
}

fn beside(stub: &Block, columns: &[Block]) -> Vec<String> {
    let line = |(index, stub): (usize, &String)| {
        columns.iter().fold(stub.clone(), |line, column| line + GAP + &column.lines[index])
    };
    stub.lines.iter().enumerate().map(line).collect()
}
