//! The report as a section of a page.

use std::fmt::Write as _;

use super::{Ceiling, Contestant, Measured, Report, Run, Setting};

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = heading(&mut text, report).and_then(|()| rows(&mut text, report));
    text
}

fn heading(text: &mut String, report: &Report) -> std::fmt::Result {
    let Report { machine, torch, setting, ceilings: [before, after], .. } = report;
    let Setting { precision, batch, depth, widen, members, rounds, warm_up, windows, window_ms, .. } =
        setting;
    let precision = precision.name();
    let layout = if setting.channels_last() { ", channels-last" } else { "" };
    writeln!(text, "{}; {machine}; PyTorch {torch}.\n", before.device)?;
    writeln!(
        text,
        "WRN-{depth}-{widen}, batch {batch}, J = {members}, {precision}{layout}. {rounds} runs of each in turn; {windows} windows \
         of at least {window_ms} ms each after {warm_up} steps."
    )?;
    let teraflops = |ceiling: &Ceiling| ceiling.flops_per_second / 1e12;
    writeln!(
        text,
        "Ceiling: {:.1} TFLOP/s before and {:.1} after, in {precision} products of {} × {} matrices.\n",
        teraflops(before),
        teraflops(after),
        before.size,
        before.size
    )?;
    writeln!(
        text,
        "| network | contestant | images/s (least to most of a round) | TFLOP/s | of ceiling | memory |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|")
}

fn rows(text: &mut String, report: &Report) -> std::fmt::Result {
    let ceiling = report.ceilings.iter().map(|ceiling| ceiling.flops_per_second).fold(0.0, f64::max);
    for (method, measured) in &report.methods {
        for contestant in Contestant::ALL {
            let name = contestant.name();
            if let Some(runs) = measured.runs.get(name) {
                row(text, report.setting.batch, ceiling, (method, measured), (name, runs))?;
            } else if let Some(why) = measured.refused.get(name) {
                let words = why.lines().last().unwrap_or_default().replace('|', "\\|");
                writeln!(text, "| {method} | {name} | does not run: {words} | | | |")?;
            }
        }
    }
    Ok(())
}

fn row(
    text: &mut String,
    batch: u32,
    ceiling: f64,
    (method, measured): (&str, &Measured),
    (name, runs): (&str, &[Run]),
) -> std::fmt::Result {
    let rate = |seconds: f64| f64::from(batch) / seconds;
    let all = median(runs.iter().flat_map(|run| &run.seconds).copied());
    let rounds = || runs.iter().map(|run| rate(median(run.seconds.iter().copied())));
    let (least, most) = (rounds().fold(f64::INFINITY, f64::min), rounds().fold(0.0, f64::max));
    let flops = measured.flops as f64 / all;
    let peak = runs.iter().filter_map(|run| run.peak_bytes).max();
    let memory =
        peak.map_or_else(|| "-".to_owned(), |bytes| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)));
    writeln!(
        text,
        "| {method} | {name} | {:.1} ({least:.1} to {most:.1}) | {:.3} | {:.1} % | {memory} |",
        rate(all),
        flops / 1e12,
        100.0 * flops / ceiling
    )
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use common::report::Device;
    use common::spec::Precision;

    use super::*;
    use crate::machine::Machine;

    fn run(seconds: &[f64], peak_bytes: Option<u64>) -> Run {
        Run { seconds: seconds.to_vec(), peak_bytes, parameters: 1 }
    }

    fn report() -> Report {
        let setting = Setting {
            device: Device::Cuda,
            precision: Precision::Bf16,
            batch: 128,
            depth: 28,
            widen: 10,
            members: 4,
            threads: 2,
            rounds: 2,
            warm_up: 5,
            windows: 3,
            window_ms: 500,
        };
        let ceiling =
            |flops_per_second| Ceiling { device: "Some GPU".to_owned(), size: 8192, flops_per_second };
        let mut measured = Measured { flops: 32_000_000_000_000, ..Measured::default() };
        let ours = vec![run(&[0.1, 0.1, 5.0], Some(1 << 30)), run(&[0.2, 0.2, 0.2], Some(3 << 29))];
        measured.runs = [("credence", ours), ("pytorch", vec![run(&[0.4], None)])].into();
        measured.refused.insert("torch.compile", "long\nNo such compiler: a|b".to_owned());
        Report {
            machine: Machine::describe(),
            torch: "2.11.0".to_owned(),
            setting,
            ceilings: [ceiling(600e12), ceiling(640e12)],
            methods: [("deterministic", measured)].into(),
        }
    }

    #[test]
    fn a_row_has_the_median_rate_its_spread_over_rounds_and_the_share_of_the_higher_ceiling() {
        let text = markdown(&report());
        let expected = [
            // The median of all windows is 0.2 s: 640 images and 160 TFLOP a second.
            "| deterministic | credence | 640.0 (640.0 to 1280.0) | 160.000 | 25.0 % | 1.50 GiB |",
            "| deterministic | pytorch | 320.0 (320.0 to 320.0) | 80.000 | 12.5 % | - |",
            "| deterministic | torch.compile | does not run: No such compiler: a\\|b | | | |",
        ];
        assert_eq!(text.lines().rev().take(3).collect::<Vec<_>>(), [expected[2], expected[1], expected[0]]);
        assert!(text.contains("WRN-28-10, batch 128, J = 4, bf16, channels-last."), "{text}");
        assert!(text.contains("Ceiling: 600.0 TFLOP/s before and 640.0 after"), "{text}");
    }

    #[test]
    fn an_even_number_has_a_median_between_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.5);
    }
}
