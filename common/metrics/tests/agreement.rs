//! Agreement with torchmetrics, scikit-learn and torch-uncertainty on 2,000 random predictions.
//!
//! `fixtures/agreement.bin`: `fixtures/make_agreement.py`, torch 2.11.0, torchmetrics 1.9.0, torch-uncertainty
//! 0.13.0, scikit-learn 1.9.1. Predictions are drawn here again, to the last bit; only results are stored.
//! Where a library defines something else, its definition is written out here, must give what the library
//! gave, and must differ from ours nowhere but where the test says.

#![expect(clippy::unwrap_used, reason = "clippy does not take helpers in integration tests for tests")]

mod draws;

use draws::draws;
use metrics::{
    AdaptiveDiagram, DetectionCurve, Diversity, LabelledPredictions, OodScore, PROBABILITY_FLOOR,
    Predictions, ReliabilityDiagram, RiskCoverage, Shape, Uncertainty, accuracy, brier_score,
    classwise_calibration_error, negative_log_likelihood,
};

/// Values are stored as multiples of 2^-26, that is to 7.5e-9; both sides compute in `f64`, to some 1e-14.
const TOLERANCE: f64 = 1e-8;
/// torchmetrics divides counts, and sums up to 50 confidences, in `f32`.
const SINGLE_TOLERANCE: f64 = 1e-6;

const STORED: &[u8] = include_bytes!("../fixtures/agreement.bin");
const SCALE: f64 = 67_108_864.0;
const CASES: usize = 2000;
const FIELDS: usize = 32;
const BINS: usize = 15;

/// What a library said.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    Value(f64),
    /// NaN: it calls the value undefined.
    Undefined,
    Infinite,
    /// It was not asked.
    Skipped,
}

struct Stored {
    /// Boundaries of torchmetrics' bins: `torch.linspace(0, 1, 16)` in both precisions.
    narrow: Vec<f32>,
    wide: Vec<f64>,
    cases: Vec<[Said; FIELDS]>,
}

fn stored() -> Stored {
    let words: Vec<u32> = STORED.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert_eq!(words[..2], [CASES as u32, FIELDS as u32]);
    let (narrow, rest) = words[2..].split_at(BINS + 1);
    let (wide, rest) = rest.split_at(2 * (BINS + 1));
    let double = |pair: &[u32]| f64::from_bits(u64::from(pair[0]) | u64::from(pair[1]) << 32);
    let said = |word: u32| match word {
        u32::MAX => Said::Undefined,
        0xffff_fffe => Said::Skipped,
        0xffff_fffd => Said::Infinite,
        word => Said::Value(f64::from(word) / SCALE),
    };
    let cases = rest.as_chunks::<FIELDS>().0.iter().map(|row| row.map(said)).collect::<Vec<_>>();
    assert_eq!(cases.len(), CASES);
    Stored {
        narrow: narrow.iter().map(|word| f32::from_bits(*word)).collect(),
        wide: wide.chunks(2).map(double).collect(),
        cases,
    }
}

/// Weights of the classes in every row, in the order of the rows.
fn weights(name: &str, kind: u32, rows: usize, classes: usize) -> Vec<u64> {
    if kind < 2 {
        let weight = |draw: u32| {
            let x = u64::from(draw >> 11);
            let x = (x * x) >> 20;
            1 + if kind == 1 { (x * x) >> 20 } else { x }
        };
        return draws(name).map(weight).take(rows * classes).collect();
    }
    let dyadic = || [1, 2, 8][draws(&format!("{name} levels")).next().unwrap() as usize % 3];
    let levels = if kind == 3 { 15 } else { dyadic() };
    let mut weights = vec![0; rows * classes];
    for (unit, draw) in draws(name).take(rows * levels).enumerate() {
        weights[unit / levels * classes + draw as usize % classes] += 1;
    }
    weights
}

/// Predictions, and the probabilities that they were made of.
struct Drawn {
    predictions: Predictions<'static>,
    probabilities: Vec<f32>,
}

fn draw(name: &str, kind: u32, shape: Shape) -> Drawn {
    let Shape { members, samples, classes } = shape;
    let weights = weights(name, kind, members * samples, classes);
    let share = |row: &[u64]| -> Vec<f32> {
        let total: u64 = row.iter().sum();
        row.iter().map(|weight| (*weight as f64 / total as f64) as f32).collect()
    };
    let probabilities: Vec<f32> = weights.chunks(classes).flat_map(share).collect();
    let logit = |draw: u32| match kind {
        0 | 1 => (f64::from(draw) / 134_217_728.0 - 8.0) as f32,
        _ => (f64::from(draw % 33) - 16.0) as f32 / 4.0,
    };
    let logits: Vec<f32> = draws(&format!("{name} logits")).take(probabilities.len()).map(logit).collect();
    let ids: Vec<u64> = (0..samples as u64).collect();
    let predictions = Predictions::new(shape, probabilities.clone(), ids).unwrap();
    Drawn { predictions: predictions.with_logits(logits).unwrap(), probabilities }
}

struct Case {
    number: usize,
    id: LabelledPredictions<'static>,
    /// Class that each member predicts for each sample, `[J][N]`.
    votes: Vec<Vec<usize>>,
    ood: Predictions<'static>,
}

impl Case {
    fn new(number: usize) -> Self {
        let name = format!("case {number}");
        let head: Vec<usize> = draws(&name).take(6).map(|draw| draw as usize).collect();
        let kind = head[0] as u32 % 4;
        let members = match kind {
            2 => [1, 2, 4][head[1] % 3],
            3 => 1,
            _ => 1 + head[1] % 5,
        };
        let shape = Shape { members, samples: 1 + head[2] % 50, classes: 2 + head[4] % 5 };
        let Drawn { predictions, probabilities } = draw(&name, kind, shape);
        let first_max = |row: &[f32]| row.iter().position(|p| row.iter().all(|q| p >= q)).unwrap();
        let chosen: Vec<usize> = probabilities.chunks(shape.classes).map(first_max).collect();
        let votes: Vec<Vec<usize>> = chosen.chunks(shape.samples).map(<[usize]>::to_vec).collect();
        let random: Vec<usize> =
            draws(&format!("{name} labels")).take(shape.samples).map(|draw| draw as usize).collect();
        let label = |n: usize| match head[5] % 3 {
            0 => random[n] % shape.classes,
            1 => random[0] % shape.classes,
            _ if random[n].is_multiple_of(4) => random[n] % shape.classes,
            _ => votes[0][n],
        };
        let labels: Vec<u32> = (0..shape.samples).map(|n| label(n) as u32).collect();
        let ood =
            draw(&format!("{name} ood"), kind, Shape { samples: 1 + head[3] % 30, ..shape }).predictions;
        Self { number, id: predictions.with_labels(labels).unwrap(), votes, ood }
    }

    fn shape(&self) -> Shape {
        self.id.predictions().shape()
    }

    /// The ensemble's probabilities, one row a sample.
    fn rows(&self) -> Vec<Vec<f64>> {
        self.id.predictions().ensemble_mean().chunks(self.shape().classes).map(<[f64]>::to_vec).collect()
    }

    /// Confidence of the predicted class, and whether it is right.
    fn outcomes(&self) -> Vec<(f64, bool)> {
        let predicted = self.id.predictions().predicted_classes();
        let rows = self.rows();
        let outcome = |n: usize| (rows[n][predicted[n]], predicted[n] == self.id.labels()[n] as usize);
        (0..rows.len()).map(outcome).collect()
    }

    #[track_caller]
    fn check(&self, what: &str, found: f64, said: Said, tolerance: f64) {
        let Said::Value(expected) = said else { panic!("case {}, {what}: {said:?}", self.number) };
        let number = self.number;
        assert!(
            (found - expected).abs() <= tolerance,
            "case {number}, {what}: {found} instead of {expected}"
        );
    }
}

fn for_each_case(mut test: impl FnMut(&Case, &[Said; FIELDS], &Stored)) {
    let stored = stored();
    for (number, said) in stored.cases.iter().enumerate() {
        test(&Case::new(number), said, &stored);
    }
}

#[test]
fn accuracy_brier_score_and_log_likelihood() {
    let mut infinite = 0;
    for_each_case(|case, said, _| {
        case.check("accuracy", accuracy(&case.id), said[0], SINGLE_TOLERANCE);
        case.check("Brier", brier_score(&case.id), said[2], TOLERANCE);
        // torch-uncertainty's is infinite when a true class has probability 0; ours counts it as the floor.
        let truths: Vec<f64> =
            case.rows().iter().zip(case.id.labels()).map(|(row, label)| row[*label as usize]).collect();
        let nll = negative_log_likelihood(&case.id);
        if truths.contains(&0.0) {
            infinite += 1;
            assert_eq!(said[1], Said::Infinite, "case {}", case.number);
            let floored: f64 = truths.iter().map(|p| -p.max(PROBABILITY_FLOOR).ln()).sum();
            assert!((nll - floored / truths.len() as f64).abs() < 1e-12, "case {}", case.number);
        } else {
            case.check("NLL", nll, said[1], TOLERANCE);
        }
    });
    assert!((200..1000).contains(&infinite), "{infinite}");
}

/// Gaps of bins that are closed below, `[lo, hi)`, with a bin of its own for what is 1; and their shares.
fn bins_closed_below(outcomes: &[(f64, bool)], bin: impl Fn(f64) -> usize) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0_f64, 0.0_f64); BINS + 1];
    for &(confidence, right) in outcomes {
        let (gap, count) = &mut sums[bin(confidence)];
        *gap += confidence - f64::from(u8::from(right));
        *count += 1.0;
    }
    let total = outcomes.len() as f64;
    sums.into_iter().map(|(gap, count)| (gap.abs() / count.max(1.0), count / total)).collect()
}

/// Whether a confidence is on a boundary of bins, where alone the definitions differ.
fn on_boundary(confidence: f64) -> bool {
    (1..=BINS).any(|i| confidence as f32 == i as f32 / BINS as f32)
}

#[test]
fn calibration_error_differs_from_torchmetrics_on_boundaries_only() {
    let mut different = 0;
    for_each_case(|case, said, stored| {
        let outcomes = case.outcomes();
        // torchmetrics: f32, `torch.bucketize(confidence, boundaries, right=True) - 1`.
        let bin = |p: f64| stored.narrow.iter().filter(|boundary| **boundary <= p as f32).count() - 1;
        let theirs = bins_closed_below(&outcomes, bin);
        let expected: f64 = theirs.iter().map(|(gap, share)| gap * share).sum();
        let greatest = theirs.iter().map(|(gap, _)| *gap).fold(0.0, f64::max);
        case.check("their ECE", expected, said[3], SINGLE_TOLERANCE);
        case.check("their MCE", greatest, said[4], SINGLE_TOLERANCE);

        let ours = ReliabilityDiagram::new(&case.id);
        if outcomes.iter().any(|(confidence, _)| on_boundary(*confidence)) {
            different += usize::from((ours.expected_calibration_error() - expected).abs() > 1e-3);
        } else {
            case.check("ECE", ours.expected_calibration_error(), said[3], SINGLE_TOLERANCE);
            case.check("MCE", ours.maximum_calibration_error(), said[4], SINGLE_TOLERANCE);
        }
    });
    assert!(different > 50, "the boundaries must matter somewhere: {different}");
}

#[test]
fn classwise_calibration_error_differs_from_torch_uncertainty_on_boundaries_only() {
    let mut plain = 0;
    for_each_case(|case, said, stored| {
        let rows = case.rows();
        let bin = |p: f64| stored.wide.iter().filter(|boundary| **boundary <= p).count() - 1;
        let class = |k: usize| -> f64 {
            let outcome = |n: usize| (rows[n][k], case.id.labels()[n] as usize == k);
            let outcomes: Vec<_> = (0..rows.len()).map(outcome).collect();
            bins_closed_below(&outcomes, bin).iter().map(|(gap, share)| gap * share).sum()
        };
        let classes = case.shape().classes;
        let expected = (0..classes).map(class).sum::<f64>() / classes as f64;
        case.check("their class-wise error", expected, said[6], TOLERANCE);
        // 0 is no boundary: here the first bin is closed on both sides.
        if !rows.iter().flatten().any(|p| on_boundary(*p)) {
            plain += 1;
            case.check("class-wise error", classwise_calibration_error(&case.id), said[6], TOLERANCE);
        }
    });
    assert!(plain > 1000, "{plain}");
}

#[test]
fn adaptive_calibration_error() {
    // torch-uncertainty's is NaN for fewer samples than bins, and was then asked for as many bins as samples.
    for_each_case(|case, said, _| {
        let found = AdaptiveDiagram::new(&case.id).expected_calibration_error();
        case.check("adaptive ECE", found, said[5], TOLERANCE);
    });
}

#[test]
fn area_under_the_risk_coverage_curve_is_a_mean_there_trapezoids() {
    for_each_case(|case, said, _| {
        let curve = RiskCoverage::new(&case.id);
        let points: Vec<_> = curve.points().collect();
        let samples = case.shape().samples as f64;
        // Trapezoids leave half of the first and half of the last risk out, and nothing of one sample.
        let ends = points[0].risk + points[points.len() - 1].risk;
        let trapezoids = (samples * curve.aurc() - ends / 2.0) / (samples - 1.0);
        if samples == 1.0 {
            assert_eq!(said[7], Said::Undefined, "case {}", case.number);
        } else {
            case.check("AURC by trapezoids", trapezoids, said[7], TOLERANCE);
        }
    });
}

#[test]
fn coverage_at_5_percent_risk_is_zero_where_torch_uncertainty_has_none() {
    let mut compared = 0;
    for_each_case(|case, said, _| {
        let found = RiskCoverage::new(&case.id).coverage_at_risk(0.05);
        match said[8] {
            // Confidences tie, and its order of them is no property of the predictions.
            Said::Skipped => return,
            Said::Undefined => assert_eq!(found, 0.0, "case {}", case.number),
            Said::Value(_) | Said::Infinite => case.check("coverage at 5 % risk", found, said[8], TOLERANCE),
        }
        compared += 1;
    });
    assert!(compared > 900, "{compared}");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn uncertainty_and_disagreement() {
    for_each_case(|case, said, _| {
        let uncertainty = Uncertainty::new(case.id.predictions());
        case.check("entropy", mean(&uncertainty.predictive_entropy), said[9], TOLERANCE);
        case.check("expected entropy", mean(&uncertainty.expected_entropy), said[10], TOLERANCE);
        let Some(diversity) = Diversity::new(case.id.predictions()) else { return };
        case.check("mutual information", mean(&uncertainty.mutual_information), said[11], TOLERANCE);
        case.check("disagreement", diversity.disagreement, said[13], TOLERANCE);
    });
}

#[test]
fn the_variation_ratio_is_of_the_most_frequent_vote_and_there_of_the_mean_s_class() {
    let mut different = 0;
    for_each_case(|case, said, _| {
        let Shape { members, samples, classes } = case.shape();
        if members == 1 {
            return;
        }
        let against = |n: usize, class: usize| {
            case.votes.iter().filter(|member| member[n] != class).count() as f64 / members as f64
        };
        let chosen = case.id.predictions().predicted_classes();
        let theirs: Vec<f64> = (0..samples).map(|n| against(n, chosen[n])).collect();
        case.check("their variation ratio", mean(&theirs), said[12], TOLERANCE);
        let modal = |n: usize| (0..classes).map(|class| against(n, class)).fold(1.0, f64::min);
        let expected: Vec<f64> = (0..samples).map(modal).collect();
        let ours = Uncertainty::new(case.id.predictions()).variation_ratio;
        assert!((mean(&ours) - mean(&expected)).abs() < 1e-12, "case {}", case.number);
        different += usize::from(mean(&ours) < mean(&theirs) - 1e-9);
    });
    assert!(different > 100, "votes and means must differ somewhere: {different}");
}

#[test]
fn detection_by_every_score() {
    let mut compared = [0; 8];
    for_each_case(|case, said, _| {
        let id = Uncertainty::new(case.id.predictions());
        let ood = Uncertainty::new(&case.ood);
        for (index, score) in OodScore::ALL.into_iter().enumerate() {
            let [auroc, aupr] = [said[14 + 2 * index], said[15 + 2 * index]];
            if auroc == Said::Skipped {
                continue;
            }
            compared[index] += 1;
            let values = [&ood, &id].map(|of| score.values(of).unwrap().into_owned());
            let curve = DetectionCurve::new(&values[0], &values[1]).unwrap();
            case.check(&format!("AUROC {score:?}"), curve.auroc(), auroc, TOLERANCE);
            case.check(&format!("AUPR {score:?}"), curve.aupr(), aupr, TOLERANCE);
            if score == OodScore::MaxProbability {
                case.check("AUPR-in", curve.aupr_in(), said[30], TOLERANCE);
            }
        }
    });
    assert!(compared.iter().all(|count| *count > 700), "{compared:?}");
}

#[test]
fn fpr95_is_of_the_nearest_recall_and_there_of_the_first_that_suffices() {
    let mut different = 0;
    for_each_case(|case, said, _| {
        let confidence = |predictions: &Predictions<'_>| Uncertainty::new(predictions).confidence;
        let (id, ood) = (confidence(case.id.predictions()), confidence(&case.ood));
        let mut thresholds = [&id[..], &ood[..]].concat();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        let at_most = |values: &[f64], t: f64| values.iter().filter(|value| **value <= t).count();
        // Found and false alarms at every threshold, up to full recall.
        let mut points: Vec<_> = thresholds.iter().map(|t| (at_most(&ood, *t), at_most(&id, *t))).collect();
        let full = points.iter().position(|(found, _)| *found == ood.len()).unwrap();
        points.truncate(full + 1);

        let rate = |alarms: usize| alarms as f64 / id.len() as f64;
        let first = points.iter().find(|(found, _)| 20 * found >= 19 * ood.len()).unwrap();
        case.check("their FPR95", rate(first.1), said[31], TOLERANCE);
        let distance = |found: usize| (20 * found).abs_diff(19 * ood.len());
        let nearest = points.iter().rev().min_by_key(|(found, _)| distance(*found)).unwrap();
        let negated = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<_>>();
        let ours = DetectionCurve::new(&negated(&ood), &negated(&id)).unwrap().fpr95();
        assert_eq!(ours, rate(nearest.1), "case {}", case.number);
        // Either the nearest recall is below 0.95, or it is the same one, with all its false alarms.
        assert!(nearest.0 <= first.0, "case {}", case.number);
        assert!(nearest.0 < first.0 || nearest.1 >= first.1, "case {}", case.number);
        let theirs = rate(first.1);
        different += usize::from(ours < theirs);
    });
    assert!(different > 50, "recalls must differ somewhere: {different}");
}
