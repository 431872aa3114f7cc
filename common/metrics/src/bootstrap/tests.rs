//! Replicates against the metrics themselves, computed on the drawn examples, and the coverage of intervals.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::{DetectionCurve, Shape, accuracy, brier_score, negative_log_likelihood};

const BOOTSTRAP: Bootstrap = Bootstrap { replicates: 100, seed: 7 };

/// Confidences on a coarse grid, so that there are ties, certainty and, in the last class, a confidence at a bin's bound.
fn predictions(rng: &mut SmallRng, samples: usize, first_id: u64) -> Predictions<'static> {
    let mut values = Vec::new();
    for _ in 0..2 * samples {
        let row: [f64; 3] = std::array::from_fn(|_| f64::from(rng.random_range(0..4_u8)) + 1e-3);
        let sum: f64 = row.iter().sum();
        values.extend(row.map(|value| value / sum));
    }
    let shape = Shape { members: 2, samples, classes: 3 };
    let ids: Vec<u64> = (0..samples as u64).map(|n| first_id + 3 * n).collect();
    Predictions::new(shape, values, ids).unwrap()
}

fn labels(rng: &mut SmallRng, samples: usize) -> Vec<u32> {
    (0..samples).map(|_| rng.random_range(0..3)).collect()
}

/// The examples of a replicate as predictions of their own, with fresh ids.
fn drawn(from: &Predictions<'_>, weights: &[u32]) -> (Predictions<'static>, Vec<usize>) {
    let times = weights.iter().enumerate();
    let chosen: Vec<usize> = times.flat_map(|(n, &weight)| std::iter::repeat_n(n, weight as usize)).collect();
    let (mean, classes) = (from.ensemble_mean(), from.shape().classes);
    let rows = chosen.iter().flat_map(|n| mean[n * classes..(n + 1) * classes].to_vec());
    let shape = Shape { members: 1, samples: chosen.len(), classes };
    let ids: Vec<u64> = (0..chosen.len() as u64).collect();
    (Predictions::new(shape, rows.collect::<Vec<f64>>(), ids).unwrap(), chosen)
}

fn scores(predictions: &Predictions<'_>) -> Vec<f64> {
    let classes = predictions.shape().classes;
    let confidence = |row: &[f64]| row.iter().copied().fold(0.0, f64::max);
    predictions.ensemble_mean().chunks(classes).map(|row| -confidence(row)).collect()
}

#[test]
fn a_replicate_is_the_metric_of_the_examples_that_were_drawn() {
    let mut rng = SmallRng::seed_from_u64(1);
    for case in 0..20 {
        let (samples, others) = (5 + case, 3 + 2 * case);
        let id = predictions(&mut rng, samples, 0).with_labels(labels(&mut rng, samples)).unwrap();
        let ood = predictions(&mut rng, others, 50);
        let found = BOOTSTRAP.resample(&id, &[("far", &ood)]).unwrap();
        let (mut of_id, mut of_ood) = (vec![0; samples], vec![0; others]);
        for replicate in 0..BOOTSTRAP.replicates {
            draw(&mut of_id, BOOTSTRAP.key(replicate, None));
            draw(&mut of_ood, BOOTSTRAP.key(replicate, Some("far")));
            let (inside, chosen) = drawn(id.predictions(), &of_id);
            let chosen: Vec<u32> = chosen.iter().map(|&n| id.labels()[n]).collect();
            let inside = inside.with_labels(chosen).unwrap();
            let (outside, _) = drawn(&ood, &of_ood);
            let curve = DetectionCurve::new(&scores(&outside), &scores(inside.predictions())).unwrap();
            let expected = [
                ("accuracy", accuracy(&inside)),
                ("nll", negative_log_likelihood(&inside)),
                ("brier", brier_score(&inside)),
                ("ece", ReliabilityDiagram::new(&inside).expected_calibration_error()),
                ("auroc/far", curve.auroc()),
                ("aupr", curve.aupr()),
                ("fpr95/far", curve.fpr95()),
            ];
            for (name, expected) in expected {
                let found = found.replicates(&name.parse().unwrap()).unwrap()[replicate];
                // 1e-12: sums of some dozen terms in another order.
                assert!((found - expected).abs() < 1e-12, "case {case}, {name}: {found}, not {expected}");
            }
        }
    }
}

#[test]
fn the_order_of_the_examples_does_not_matter() {
    let mut rng = SmallRng::seed_from_u64(2);
    let id = predictions(&mut rng, 9, 0);
    let labels = labels(&mut rng, 9);
    let mean = id.ensemble_mean();
    let turned: Vec<f64> = mean.chunks(3).rev().flatten().copied().collect();
    let shape = Shape { members: 1, samples: 9, classes: 3 };
    let forth =
        Predictions::new(shape, mean, id.ids().to_vec()).unwrap().with_labels(labels.clone()).unwrap();
    let ids: Vec<u64> = id.ids().iter().rev().copied().collect();
    let back = Predictions::new(shape, turned, ids).unwrap();
    let back = back.with_labels(labels.into_iter().rev().collect::<Vec<_>>()).unwrap();
    assert_eq!(BOOTSTRAP.resample(&forth, &[]).unwrap(), BOOTSTRAP.resample(&back, &[]).unwrap());
}

#[test]
fn a_row_less_itself_is_nothing_in_every_replicate() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut cell = |first| {
        let id = predictions(&mut rng, 12, first).with_labels(labels(&mut rng, 12)).unwrap();
        BOOTSTRAP.resample(&id, &[]).unwrap()
    };
    let (one, two, elsewhere) = (cell(0), cell(0), cell(1));
    let name = Metric::BrierScore.into();
    let none = difference_replicates(&[&one, &two], &[&two, &one], &name).unwrap();
    assert!(none.iter().all(|difference| difference.abs() < 1e-15));
    let found = difference_replicates(&[&one], &[&two], &name).unwrap();
    let (of_one, of_two) = (one.replicates(&name).unwrap(), two.replicates(&name).unwrap());
    assert!(found.iter().zip(of_one.iter().zip(of_two)).all(|(found, (one, two))| *found == one - two));
    assert_eq!(mean_replicates(&[&one, &elsewhere], &name), Err(BootstrapError::DifferentExamples));
    assert_eq!(mean_replicates(&[], &name), Err(BootstrapError::Empty));
    let auroc: MetricName = Metric::Auroc.into();
    assert_eq!(mean_replicates(&[&one], &auroc), Err(BootstrapError::NotResampled(auroc)));
}

#[test]
fn an_interval_holds_the_middle_of_the_replicates() {
    let values: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
    let found = Interval::of_replicates(&values, 0.9).unwrap();
    assert!((found.low - 50.0).abs() < 1e-9 && (found.high - 950.0).abs() < 1e-9, "{found:?}");
    assert_eq!(Interval::of_replicates(&values[..99], 0.9), Err(BootstrapError::Replicates(99)));
    for level in [0.0, 1.0, 95.0, f64::NAN] {
        assert!(Interval::of_replicates(&values, level).is_err(), "{level}");
    }
}

/// One network with two classes that is right with probability `p`, at a confidence of `confidence()`.
fn network(rng: &mut SmallRng, samples: usize, p: f64) -> LabelledPredictions<'static> {
    let shape = Shape { members: 1, samples, classes: 2 };
    let ids: Vec<u64> = (0..samples as u64).collect();
    let confidence: Vec<f64> = (0..samples).map(|_| 0.5 + 0.5 * rng.random::<f64>()).collect();
    let rows: Vec<f64> = confidence.iter().flat_map(|c| [*c, 1.0 - c]).collect();
    let labels: Vec<u32> = (0..samples).map(|_| u32::from(rng.random::<f64>() >= p)).collect();
    Predictions::new(shape, rows, ids).unwrap().with_labels(labels).unwrap()
}

/// 300 test sets of 150 images. A 95 % interval holds the truth in 285 of them, with a standard deviation of 3.8; percentile
/// intervals of so few examples hold it one or two percent less often. Below 270 or above 297 (some 4 deviations below
/// 95 %, 3 above) something is wrong.
const SETS: usize = 300;
const HELD: std::ops::RangeInclusive<usize> = 270..=297;

#[test]
fn intervals_of_accuracy_and_nll_and_auroc_hold_the_truth_as_often_as_they_say() {
    let mut rng = SmallRng::seed_from_u64(4);
    let bootstrap = Bootstrap { replicates: 200, seed: 11 };
    let (mut accuracies, mut losses, mut areas) = (0, 0, 0);
    // Confidence is uniform in [½, 1], right with 0.8: E[−ln c] = 1 − ln 2 and E[−ln(1 − c)] = 1 + ln 2.
    let ln2 = std::f64::consts::LN_2;
    let truth = 0.8 * (1.0 - ln2) + 0.2 * (1.0 + ln2);
    for _ in 0..SETS {
        let id = network(&mut rng, 150, 0.8);
        // Out of distribution the confidence is the square of a uniform, so less: P(c_out < c_in) = P(u² < v) = ⅔.
        let out: Vec<f64> = (0..150).map(|_| 0.5 + 0.5 * rng.random::<f64>().powi(2)).collect();
        let rows: Vec<f64> = out.iter().flat_map(|c| [*c, 1.0 - c]).collect();
        let shape = Shape { members: 1, samples: 150, classes: 2 };
        let ood = Predictions::new(shape, rows, (0..150).collect::<Vec<u64>>()).unwrap();
        let found = bootstrap.resample(&id, &[("out", &ood)]).unwrap();
        let holds = |metric: Metric, truth: f64| {
            let interval = Interval::of_replicates(found.replicates(&metric.into()).unwrap(), 0.95).unwrap();
            usize::from((interval.low..=interval.high).contains(&truth))
        };
        accuracies += holds(Metric::Accuracy, 0.8);
        losses += holds(Metric::NegativeLogLikelihood, truth);
        areas += holds(Metric::Auroc, 2.0 / 3.0);
    }
    for held in [accuracies, losses, areas] {
        assert!(HELD.contains(&held), "{accuracies}, {losses}, {areas} of {SETS}");
    }
}

#[test]
fn intervals_of_a_paired_difference_hold_the_truth_and_are_narrower_than_unpaired_ones() {
    let mut rng = SmallRng::seed_from_u64(5);
    let bootstrap = Bootstrap { replicates: 200, seed: 12 };
    let (mut held, mut narrower) = (0, 0);
    let name: MetricName = Metric::Accuracy.into();
    for _ in 0..SETS {
        let one = network(&mut rng, 150, 0.7);
        // The other network is right where the first one is, and on a third of the rest: 0.8.
        let labels: Vec<u32> =
            one.labels().iter().map(|&label| label * u32::from(rng.random::<f64>() >= 1.0 / 3.0)).collect();
        let other = one.predictions().clone().with_labels(labels).unwrap();
        let cells = [&one, &other].map(|id| bootstrap.resample(id, &[]).unwrap());
        let interval = |values: &[f64]| Interval::of_replicates(values, 0.95).unwrap();
        let paired = interval(&difference_replicates(&[&cells[1]], &[&cells[0]], &name).unwrap());
        held += usize::from((paired.low..=paired.high).contains(&0.1));
        let width = |interval: Interval| interval.high - interval.low;
        let alone = cells.iter().map(|cell| width(interval(cell.replicates(&name).unwrap())));
        let unpaired = alone.map(|width| width * width).sum::<f64>().sqrt();
        narrower += usize::from(width(paired) < 0.8 * unpaired);
    }
    assert!(HELD.contains(&held), "{held} of {SETS}");
    assert_eq!(narrower, SETS);
}

/// Not a test of anything but patience: `cargo test --release -p metrics -- --ignored --nocapture thousand`.
#[test]
#[ignore = "measures time"]
fn a_thousand_replicates_of_ten_thousand_and_twenty_six_thousand_images() {
    let mut rng = SmallRng::seed_from_u64(6);
    let id = network(&mut rng, 10_000, 0.9);
    let ood = network(&mut rng, 26_000, 0.5);
    let start = std::time::Instant::now();
    let bootstrap = Bootstrap { replicates: 1_000, seed: 1 };
    let found = bootstrap.resample(&id, &[("out", ood.predictions())]).unwrap();
    eprintln!("{:?}", start.elapsed());
    assert_eq!(found.replicates(&Metric::Auroc.into()).unwrap().len(), 1_000);
}
