//! What is told of the times: medians, ratios, and how far single runs lie from them.

use std::fmt::Write as _;

use super::{Report, Times};

/// Median of values, of which there is at least one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    f64::midpoint(low, high)
}

/// One of the two clocks.
type Clock = fn(&Times) -> &[f64];

const CLOCKS: [(&str, Clock); 2] = [("clock", |times| &times.wall), ("processor", |times| &times.processor)];

/// A ratio of medians, and the smallest and largest of single rounds.
struct Ratio {
    all: f64,
    least: f64,
    most: f64,
}

fn ratio(ours: &[Times], beside: &[Times], times: f64, clock: Clock) -> Ratio {
    let all = |runs: &[Times]| median(&runs.iter().flat_map(clock).copied().collect::<Vec<_>>());
    let rounds: Vec<f64> = ours
        .iter()
        .zip(beside)
        .map(|(ours, beside)| median(clock(ours)) / (median(clock(beside)) * times))
        .collect();
    Ratio {
        all: all(ours) / (all(beside) * times),
        least: rounds.iter().copied().fold(f64::INFINITY, f64::min),
        most: rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// The report as a section of a page.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = heading(&mut text, report).and_then(|()| ratios(&mut text, report));
    text
}

fn heading(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report { machine, versions, effort, differences, .. } = report;
    let versions: String = versions.iter().map(|(name, version)| format!(", {name} {version}")).collect();
    writeln!(text, "{machine}{versions}.\n")?;
    let waiting = if effort.passive { ", which sleep while they wait" } else { "" };
    writeln!(
        text,
        "{} runs of each in turn, {} steps of each counted after {} to warm up, {} thread(s){waiting}.",
        effort.rounds, effort.steps, effort.warm_up, effort.threads
    )?;
    if !differences.is_empty() {
        let differences: Vec<String> =
            differences.iter().map(|(method, difference)| format!("{method} {difference:.0e}")).collect();
        writeln!(
            text,
            "Largest relative difference of loss and norm of the gradient between ours and the peer's network: {}.",
            differences.join(", ")
        )?;
    }
    writeln!(text, "\n| contestant | median, ms | processor time, ms |\n|---|---|---|")?;
    for (name, runs) in &report.runs {
        let of = |clock: Clock| median(&runs.iter().flat_map(clock).copied().collect::<Vec<_>>()) * 1e3;
        writeln!(text, "| {name} | {:.1} | {:.1} |", of(CLOCKS[0].1), of(CLOCKS[1].1))?;
    }
    writeln!(text)
}

fn ratios(text: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(text, "| ours | beside | ratio (least to most of a round) | of processor time | goal |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    for comparison in &report.comparisons {
        let (Some(ours), Some(beside)) =
            (report.runs.get(&comparison.ours), report.runs.get(&comparison.beside))
        else {
            continue;
        };
        let shown = CLOCKS.map(|(_, clock)| {
            let Ratio { all, least, most } = ratio(ours, beside, comparison.times, clock);
            format!("{all:.2} ({least:.2} to {most:.2})")
        });
        let beside = if comparison.times == 1.0 {
            comparison.beside.clone()
        } else {
            format!("{} × {}", comparison.times, comparison.beside)
        };
        let [wall, processor] = shown;
        writeln!(
            text,
            "| {} | {beside} | {wall} | {processor} | ≤ {:.2} |",
            comparison.ours, comparison.goal
        )?;
    }
    Ok(())
}

/// Puts `section` between the markers of `name` in a page, or behind what is there.
pub fn replace_section(page: &str, name: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let whole = format!("{begin}\n{}\n{end}", section.trim());
    let found = page.find(&begin).and_then(|from| Some((from, from + page[from..].find(&end)?)));
    match found {
        Some((from, to)) => format!("{}{whole}{}", &page[..from], &page[to + end.len()..]),
        None => format!("{}\n\n## {name}\n\n{whole}\n", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wall: &[f64]) -> Times {
        Times { wall: wall.to_vec(), processor: wall.iter().map(|time| time * 2.0).collect() }
    }

    #[test]
    fn a_ratio_is_one_of_medians_over_all_rounds_and_rounds_show_its_spread() {
        let ours = [run(&[1.0, 1.0, 100.0]), run(&[3.0, 3.0, 3.0])];
        let beside = [run(&[2.0, 2.0, 2.0]), run(&[2.0, 0.1, 2.0])];
        let Ratio { all, least, most } = ratio(&ours, &beside, 1.0, CLOCKS[0].1);
        assert_eq!((all, least, most), (1.5, 0.5, 1.5));
        assert_eq!(ratio(&ours, &beside, 4.0, CLOCKS[1].1).most, 0.375);
    }

    #[test]
    fn an_even_number_has_a_median_between_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
    }

    #[test]
    fn a_section_is_replaced_where_it_stands() {
        let page = replace_section("# Page\n", "step", "one");
        assert_eq!(page, "# Page\n\n## step\n\n<!-- begin step -->\none\n<!-- end step -->\n");
        let both = replace_section(&page, "ddp", "two");
        let changed = replace_section(&both, "step", "three");
        assert_eq!(changed, both.replace("one", "three"));
    }
}
