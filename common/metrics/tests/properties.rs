//! Properties that hold for every input, on thousands of small random ones.
//!
//! Scores and probabilities are drawn from few levels as often as not, because ties are where
//! implementations differ. Seeds are fixed: a failure names the seed of its case.

#![expect(clippy::unwrap_used, reason = "clippy does not take helpers in integration tests for tests")]

use metrics::{
    AdaptiveDiagram, ClassificationReport, DetectionCurve, Diversity, ErrorDiversity, Evaluation,
    LabelledPredictions, OodScore, PairCounts, Predictions, ReliabilityDiagram, RiskCoverage, Shape,
    ShiftedSet, Summary, TEMPERATURES, Temperature, Uncertainty, accuracy, brier_score,
    negative_log_likelihood,
};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Differences by the order of summation of some hundred terms of size 1.
const ROUNDING: f64 = 1e-12;

fn cases(count: u64) -> impl Iterator<Item = (u64, SmallRng)> {
    (0..count).map(|seed| (seed, SmallRng::seed_from_u64(seed)))
}

fn scores(rng: &mut SmallRng) -> Vec<f64> {
    let count = rng.random_range(1..=40);
    let levels = [0, 2, 5, 50][rng.random_range(0..4)];
    let draw = |rng: &mut SmallRng| match levels {
        0 => rng.random_range(-1.0..1.0),
        levels => f64::from(rng.random_range(0..=levels)) / f64::from(levels),
    };
    (0..count).map(|_| draw(rng)).collect()
}

fn curve(positives: &[f64], negatives: &[f64]) -> DetectionCurve {
    DetectionCurve::new(positives, negatives).unwrap()
}

fn map(scores: &[f64], f: impl Fn(f64) -> f64) -> Vec<f64> {
    scores.iter().map(|&score| f(score)).collect()
}

#[test]
fn auroc_is_the_probability_that_a_positive_scores_higher() {
    for (seed, mut rng) in cases(3000) {
        let (positives, negatives) = (scores(&mut rng), scores(&mut rng));
        let mut doubled_wins = 0_u32;
        for p in &positives {
            for n in &negatives {
                doubled_wins += 2 * u32::from(p > n) + u32::from(p == n);
            }
        }
        let pairs = (positives.len() * negatives.len()) as f64;
        // Exactly equal: both are one division of the same integers.
        let expected = f64::from(doubled_wins) / (2.0 * pairs);
        assert_eq!(curve(&positives, &negatives).auroc(), expected, "seed {seed}");
    }
}

/// Straight from the definition: one pass over all samples for every distinct threshold, highest first.
fn naive_points(positives: &[f64], negatives: &[f64]) -> Vec<(usize, usize)> {
    let mut thresholds = [positives, negatives].concat();
    thresholds.sort_by(|a, b| b.partial_cmp(a).unwrap());
    thresholds.dedup();
    let at_least = |scores: &[f64], t: f64| scores.iter().filter(|score| **score >= t).count();
    thresholds.iter().map(|&t| (at_least(positives, t), at_least(negatives, t))).collect()
}

#[test]
fn average_precision_is_that_of_its_definition_in_both_directions() {
    let naive = |positives: &[f64], negatives: &[f64]| {
        let (mut sum, mut before) = (0.0, 0.0);
        for (tp, fp) in naive_points(positives, negatives) {
            let recall = tp as f64 / positives.len() as f64;
            sum += (recall - before) * tp as f64 / (tp + fp) as f64;
            before = recall;
        }
        sum
    };
    for (seed, mut rng) in cases(3000) {
        let (ood, id) = (scores(&mut rng), scores(&mut rng));
        let curve = curve(&ood, &id);
        assert!((curve.aupr() - naive(&ood, &id)).abs() < ROUNDING, "seed {seed}");
        let (in_id, in_ood) = (map(&id, |s| -s), map(&ood, |s| -s));
        assert!((curve.aupr_in() - naive(&in_id, &in_ood)).abs() < ROUNDING, "seed {seed}");
    }
}

#[test]
fn fpr95_is_taken_at_the_recall_nearest_to_95_percent() {
    for (seed, mut rng) in cases(5000) {
        let (positives, negatives) = (scores(&mut rng), scores(&mut rng));
        let mut best: Option<(usize, usize, usize)> = None;
        for (tp, fp) in naive_points(&positives, &negatives) {
            let distance = (100 * tp).abs_diff(95 * positives.len());
            let full_already = best.is_some_and(|(_, tp, _)| tp == positives.len());
            if !full_already && best.is_none_or(|(nearest, ..)| distance <= nearest) {
                best = Some((distance, tp, fp));
            }
            if tp == positives.len() {
                break;
            }
        }
        let (_, _, fp) = best.unwrap();
        let found = curve(&positives, &negatives).fpr95();
        assert_eq!(found, fp as f64 / negatives.len() as f64, "seed {seed}");
    }
}

#[test]
fn detection_sees_only_the_order_of_the_scores() {
    for (seed, mut rng) in cases(2000) {
        let (positives, negatives) = (scores(&mut rng), scores(&mut rng));
        // Everything of a point but its threshold, which is a score.
        let rates = |curve: DetectionCurve| {
            let rates = curve.points().map(|p| [p.false_positive_rate, p.true_positive_rate, p.precision]);
            (rates.collect::<Vec<_>>(), curve.auroc(), curve.aupr(), curve.aupr_in(), curve.fpr95())
        };
        let expected = rates(curve(&positives, &negatives));
        // Strictly increasing in floating point too, on the range of the scores.
        let maps: [fn(f64) -> f64; 3] =
            [|s| 8.0 * s, |s| if s < 0.0 { s } else { 4.0 * s }, |s| s.cbrt() + s];
        for f in maps {
            let (mut p, mut n) = (map(&positives, f), map(&negatives, f));
            p.shuffle(&mut rng);
            n.shuffle(&mut rng);
            assert_eq!(rates(curve(&p, &n)), expected, "seed {seed}");
        }
    }
}

#[test]
fn exchanging_the_classes_mirrors_auroc() {
    for (seed, mut rng) in cases(2000) {
        let (positives, negatives) = (scores(&mut rng), scores(&mut rng));
        let sum = curve(&positives, &negatives).auroc() + curve(&negatives, &positives).auroc();
        assert!((sum - 1.0).abs() < ROUNDING, "seed {seed}");
    }
}

/// Rows of random probabilities; of few levels, and so with ties, for every second seed.
fn rows(rng: &mut SmallRng, count: usize, classes: usize) -> Vec<f64> {
    let levels = if rng.random() { 4 } else { 1_000_000 };
    let mut values = Vec::with_capacity(count * classes);
    for _ in 0..count {
        let mut row: Vec<u32> = (0..classes).map(|_| rng.random_range(0..=levels)).collect();
        row[rng.random_range(0..classes)] += 1;
        let sum: u32 = row.iter().sum();
        values.extend(row.iter().map(|&v| f64::from(v) / f64::from(sum)));
    }
    values
}

struct Case {
    shape: Shape,
    probabilities: Vec<f64>,
    labels: Vec<u32>,
}

impl Case {
    fn random(rng: &mut SmallRng) -> Self {
        let (members, classes) = (rng.random_range(1..=5), rng.random_range(2..=6));
        Self::random_of(rng, members, classes)
    }

    fn random_of(rng: &mut SmallRng, members: usize, classes: usize) -> Self {
        let shape = Shape { members, samples: rng.random_range(1..=20), classes };
        let probabilities = rows(rng, shape.members * shape.samples, shape.classes);
        let labels = (0..shape.samples).map(|_| rng.random_range(0..shape.classes as u32)).collect();
        Self { shape, probabilities, labels }
    }

    fn predictions(&self) -> Predictions<'_> {
        let ids: Vec<u64> = (0..self.shape.samples as u64).collect();
        Predictions::new(self.shape, &self.probabilities[..], ids).unwrap()
    }

    fn labelled(&self) -> LabelledPredictions<'_> {
        self.predictions().with_labels(&self.labels[..]).unwrap()
    }

    /// The same predictions, with the samples in another order.
    fn permuted(&self, order: &[usize]) -> Self {
        let Shape { members, samples, classes } = self.shape;
        let row = |j: usize, n: usize| &self.probabilities[(j * samples + n) * classes..][..classes];
        let rows = (0..members).flat_map(|j| order.iter().map(move |&n| (j, n)));
        let probabilities = rows.flat_map(|(j, n)| row(j, n).to_vec()).collect();
        let labels = order.iter().map(|&n| self.labels[n]).collect();
        Self { shape: self.shape, probabilities, labels }
    }
}

#[test]
fn every_reported_value_is_finite_and_in_its_range() {
    let unit = [
        "accuracy",
        "ece",
        "auroc",
        "aupr",
        "aupr_in",
        "fpr95",
        "disagreement",
        "variation_ratio",
        "member_variance",
    ];
    for (seed, mut rng) in cases(1000) {
        let case = Case::random(&mut rng);
        let samples = rng.random_range(1..=20);
        let ood = rows(&mut rng, case.shape.members * samples, case.shape.classes);
        let ids: Vec<u64> = (0..samples as u64).collect();
        let ood = Predictions::new(Shape { samples, ..case.shape }, ood, ids).unwrap();
        let report =
            ClassificationReport::compute(&Evaluation::new(&case.labelled()).with_ood(&[("ood", &ood)]))
                .unwrap();
        for (name, value) in report.entries() {
            assert!(value.is_finite(), "seed {seed}: {name}");
            let (metric, least) = (name.metric().name(), *value >= 0.0);
            assert!(
                least || ["q_statistic", "error_correlation"].contains(&metric),
                "seed {seed}: {name} {value}"
            );
            assert!(*value <= 1.0 || !unit.contains(&metric), "seed {seed}: {name} {value}");
        }
        assert!(report.value("brier").unwrap() <= 2.0 + ROUNDING, "seed {seed}");
        let entropies =
            (report.value("expected_entropy").unwrap(), report.value("predictive_entropy").unwrap());
        let most = (case.shape.classes as f64).ln();
        assert!(entropies.0 <= entropies.1 + ROUNDING && entropies.1 <= most + ROUNDING, "seed {seed}");
    }
}

#[test]
fn everything_that_can_be_given_is_reported_finite_and_in_its_range() {
    for (seed, mut rng) in cases(1000) {
        let case = Case::random(&mut rng);
        let held_out = Case::random_of(&mut rng, case.shape.members, case.shape.classes);
        let corrupted: Vec<Case> = (0..3).map(|_| Case::random_of(&mut rng, 1, case.shape.classes)).collect();
        let labelled: Vec<_> = corrupted.iter().map(Case::labelled).collect();
        let names = ["fog.1", "fog.2", "rain.5"];
        let sets = names.iter().zip(&labelled);
        let sets: Vec<_> =
            sets.map(|(name, predictions)| ShiftedSet { name: name.parse().unwrap(), predictions }).collect();
        let (id, held_out) = (case.labelled(), held_out.labelled());
        let evaluation =
            Evaluation::new(&id).with_held_out(&held_out).with_shift(&sets).with_weight_cosine(0.5);
        let report = ClassificationReport::compute(&evaluation).unwrap();
        for (name, value) in report.entries() {
            assert!(value.is_finite(), "seed {seed}: {name}");
        }
        let value = |name: &str| report.value(name).unwrap();
        assert!(TEMPERATURES.contains(&value("temperature")), "seed {seed}");
        let unit = ["mce", "adaptive_ece", "classwise_ece", "aurc", "e_aurc", "coverage_at_5_risk"];
        for name in unit.iter().chain(&["ece_scaled", "adaptive_ece_scaled"]) {
            assert!((0.0..=1.0 + ROUNDING).contains(&value(name)), "seed {seed}: {name}");
        }
        assert!(value("ece") <= value("mce") + ROUNDING, "seed {seed}");
        assert!(value("e_aurc") <= value("aurc") + ROUNDING, "seed {seed}");
        assert!(value("nll_scaled") >= 0.0 && value("brier_scaled") <= 2.0 + ROUNDING, "seed {seed}");
    }
}

#[test]
fn scaling_by_the_fitted_temperature_is_never_worse_on_what_it_was_fitted_on() {
    for (seed, mut rng) in cases(1000) {
        let case = Case::random(&mut rng);
        let labelled = case.labelled();
        // With a probability of 0 the reported value has a floor that the fit does not see.
        if case.probabilities.contains(&0.0) {
            continue;
        }
        let scaled = Temperature::new(&labelled).scale(labelled.predictions());
        let scaled = scaled.with_labels(labelled.labels()).unwrap();
        let (before, after) = (negative_log_likelihood(&labelled), negative_log_likelihood(&scaled));
        assert!(after <= before + ROUNDING, "seed {seed}: {before} became {after}");
    }
}

/// Confidences with ties as often as not, and whether each was right.
fn outcomes(rng: &mut SmallRng) -> Vec<(f64, bool)> {
    let confidences = scores(rng);
    confidences.into_iter().map(|confidence| (confidence, rng.random())).collect()
}

#[test]
fn selective_risk_is_that_of_its_thresholds_and_of_shuffled_ties_on_average() {
    for (seed, mut rng) in cases(300) {
        let outcomes = outcomes(&mut rng);
        let curve = RiskCoverage::from_outcomes(outcomes.iter().copied());
        let mut greatest = 0.0;
        for (threshold, _) in &outcomes {
            let taken: Vec<_> = outcomes.iter().filter(|(c, _)| c >= threshold).collect();
            let errors = taken.iter().filter(|(_, right)| !right).count();
            if 4 * errors <= taken.len() {
                greatest = f64::max(greatest, taken.len() as f64 / outcomes.len() as f64);
            }
        }
        assert_eq!(curve.coverage_at_risk(0.25), greatest, "seed {seed}");

        let shuffles = 400;
        let mut areas = Vec::new();
        for _ in 0..shuffles {
            let mut order = outcomes.clone();
            order.shuffle(&mut rng);
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut errors = 0.0;
            let risk = |(k, (_, right)): (usize, &(f64, bool))| {
                errors += f64::from(u8::from(!right));
                errors / (k + 1) as f64
            };
            areas.push(order.iter().enumerate().map(risk).sum::<f64>() / order.len() as f64);
        }
        let summary = Summary::new(&areas).unwrap();
        // Five standard errors of the mean over shuffles: one in a million by chance, of 300 fixed seeds.
        let error = 5.0 * summary.standard_deviation.unwrap() / f64::from(shuffles).sqrt();
        assert!((curve.aurc() - summary.mean).abs() <= error + ROUNDING, "seed {seed}");
        let (least, most) = (summary.min, summary.max);
        assert!((least - ROUNDING..=most + ROUNDING).contains(&curve.aurc()), "seed {seed}");
    }
}

#[test]
fn bins_of_equal_mass_see_no_order_and_hold_everything() {
    for (seed, mut rng) in cases(2000) {
        let mut outcomes = outcomes(&mut rng);
        let diagram = AdaptiveDiagram::from_outcomes(outcomes.iter().copied());
        let counts = diagram.bins().map(|bin| bin.count());
        assert_eq!(counts.iter().sum::<usize>(), outcomes.len(), "seed {seed}");
        assert!(counts.is_sorted_by(|a, b| a >= b) && counts[0] - counts[14] <= 1, "seed {seed}");
        let error = diagram.expected_calibration_error();
        outcomes.shuffle(&mut rng);
        let shuffled = AdaptiveDiagram::from_outcomes(outcomes.iter().copied());
        assert!((error - shuffled.expected_calibration_error()).abs() < ROUNDING, "seed {seed}");
        // One bin's gap is no more than the mean of the gaps of its parts.
        let total: f64 = outcomes.iter().map(|(c, right)| c - f64::from(u8::from(*right))).sum();
        assert!(total.abs() / outcomes.len() as f64 <= error + ROUNDING, "seed {seed}");
    }
}

#[test]
fn the_order_of_the_samples_changes_nothing_but_rounding() {
    for (seed, mut rng) in cases(500) {
        let case = Case::random(&mut rng);
        let mut order: Vec<usize> = (0..case.shape.samples).collect();
        order.shuffle(&mut rng);
        let permuted = case.permuted(&order);
        let reports = [&case, &permuted]
            .map(|c| ClassificationReport::compute(&Evaluation::new(&c.labelled())).unwrap());
        for (left, right) in reports[0].entries().iter().zip(reports[1].entries()) {
            assert_eq!(left.0, right.0, "seed {seed}");
            assert!((left.1 - right.1).abs() < ROUNDING, "seed {seed}: {}", left.0);
        }
    }
}

#[test]
fn repeating_the_members_changes_no_prediction_metric() {
    for (seed, mut rng) in cases(500) {
        let case = Case::random(&mut rng);
        let twice = Case {
            shape: Shape { members: 2 * case.shape.members, ..case.shape },
            probabilities: case.probabilities.repeat(2),
            labels: case.labels.clone(),
        };
        let metrics: [fn(&LabelledPredictions<'_>) -> f64; 2] = [negative_log_likelihood, brier_score];
        for metric in metrics {
            assert!((metric(&case.labelled()) - metric(&twice.labelled())).abs() < ROUNDING, "seed {seed}");
        }
        let (once, twice) = (Uncertainty::new(&case.predictions()), Uncertainty::new(&twice.predictions()));
        for score in OodScore::ALL {
            for (a, b) in score
                .values(&once)
                .iter()
                .flat_map(|v| v.iter())
                .zip(score.values(&twice).iter().flat_map(|v| v.iter()))
            {
                assert!((a - b).abs() < ROUNDING, "seed {seed}: {score:?}");
            }
        }
    }
}

#[test]
fn labels_that_equal_the_predictions_are_all_right_and_shifted_ones_all_wrong() {
    for (seed, mut rng) in cases(500) {
        let case = Case::random(&mut rng);
        let predicted = case.predictions().predicted_classes();
        let labels: Vec<u32> = predicted.iter().map(|&class| class as u32).collect();
        let right = case.predictions().with_labels(labels).unwrap();
        assert_eq!(accuracy(&right), 1.0, "seed {seed}");
        let wrong =
            predicted.iter().map(|&class| (class as u32 + 1) % case.shape.classes as u32).collect::<Vec<_>>();
        let wrong = case.predictions().with_labels(wrong).unwrap();
        assert_eq!(accuracy(&wrong), 0.0, "seed {seed}");
        // All wrong: the calibration error is the mean confidence, all right: its complement.
        let confidence = Uncertainty::new(&case.predictions()).confidence;
        let mean = confidence.iter().sum::<f64>() / confidence.len() as f64;
        let error = |labelled| ReliabilityDiagram::new(labelled).expected_calibration_error();
        assert!((error(&wrong) - mean).abs() < ROUNDING, "seed {seed}");
        assert!((error(&right) - (1.0 - mean)).abs() < ROUNDING, "seed {seed}");
    }
}

#[test]
fn calibration_error_is_that_of_its_definition() {
    for (seed, mut rng) in cases(2000) {
        let count = rng.random_range(1..=60);
        let on_boundaries = rng.random::<bool>();
        let outcomes: Vec<(f64, bool)> = (0..count)
            .map(|_| {
                let confidence = match on_boundaries {
                    true => f64::from(rng.random_range(1_u8..=15) as f32 / 15.0),
                    false => 1.0 - rng.random::<f64>(),
                };
                (confidence, rng.random())
            })
            .collect();
        let mut expected = 0.0;
        for bin in 0..15_u8 {
            let (low, high) = (f32::from(bin) / 15.0, f32::from(bin + 1) / 15.0);
            let inside = |&&(c, _): &&(f64, bool)| (c as f32) > low && (c as f32) <= high;
            let gap: f64 =
                outcomes.iter().filter(inside).map(|&(c, right)| c - f64::from(u8::from(right))).sum();
            expected += gap.abs() / f64::from(count);
        }
        let found = ReliabilityDiagram::from_outcomes(outcomes).expected_calibration_error();
        assert!((found - expected).abs() < ROUNDING, "seed {seed}: {found} instead of {expected}");
    }
}

#[test]
fn diversity_is_that_of_its_definition_over_pairs() {
    for (seed, mut rng) in cases(1000) {
        let case = Case::random(&mut rng);
        let Shape { members, samples, classes } = case.shape;
        let row = |j: usize, n: usize| &case.probabilities[(j * samples + n) * classes..][..classes];
        let first_max = |p: &[f64]| p.iter().position(|v| p.iter().all(|w| v >= w)).unwrap();
        let (mut differ, mut kl, mut count) = (0.0, 0.0, 0.0);
        for (i, j) in (0..members).flat_map(|i| (0..members).map(move |j| (i, j))).filter(|(i, j)| i != j) {
            for n in 0..samples {
                count += 1.0;
                differ += f64::from(u8::from(first_max(row(i, n)) != first_max(row(j, n))));
                let terms = row(i, n).iter().zip(row(j, n));
                kl += terms.map(|(p, q)| p * (p.max(1e-12) / q.max(1e-12)).ln()).sum::<f64>();
            }
        }
        match Diversity::new(&case.predictions()) {
            None => assert_eq!(members, 1, "seed {seed}"),
            Some(found) => {
                assert!((found.disagreement - differ / count).abs() < ROUNDING, "seed {seed}");
                assert!((found.pairwise_kl - kl / count).abs() < ROUNDING, "seed {seed}");
            }
        }
    }
}

#[test]
fn divergences_are_never_negative_not_even_by_rounding() {
    for (seed, mut rng) in cases(2000) {
        let members = rng.random_range(2..=5);
        let row = rows(&mut rng, 1, 4);
        // Members that differ in the last bit only: the information is below what rounding leaves.
        let nudge = |p: f64, rng: &mut SmallRng| match rng.random_range(0..3) {
            0 => p.next_up(),
            1 => p.next_down().max(0.0),
            _ => p,
        };
        let values: Vec<f64> = row.repeat(members).into_iter().map(|p| nudge(p, &mut rng)).collect();
        let shape = Shape { members, samples: 1, classes: 4 };
        let predictions = Predictions::new(shape, values, vec![0]).unwrap();
        let information = Uncertainty::new(&predictions).mutual_information[0];
        assert!((0.0..1e-15).contains(&information), "seed {seed}: {information}");
        let kl = Diversity::new(&predictions).unwrap().pairwise_kl;
        assert!((0.0..1e-13).contains(&kl), "seed {seed}: {kl}");
    }
}

#[test]
fn every_sample_is_counted_once_for_every_pair() {
    for (seed, mut rng) in cases(500) {
        let case = Case::random(&mut rng);
        let pairs = PairCounts::of_pairs(&case.labelled());
        assert_eq!(pairs.len(), case.shape.members * (case.shape.members - 1) / 2, "seed {seed}");
        assert_eq!(ErrorDiversity::new(&case.labelled()).is_none(), pairs.is_empty(), "seed {seed}");
        for p in pairs {
            let sum = p.both_right + p.first_right + p.second_right + p.same_errors + p.different_errors;
            assert_eq!(sum, case.shape.samples as u64, "seed {seed}");
        }
    }
}

#[test]
fn a_summary_is_that_of_two_passes() {
    for (seed, mut rng) in cases(1000) {
        let count = rng.random_range(2..=12);
        let offset = rng.random_range(-1e6..1e6);
        let values: Vec<f64> = (0..count).map(|_| offset + rng.random::<f64>()).collect();
        let mean = values.iter().sum::<f64>() / f64::from(count);
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let found = Summary::new(&values).unwrap();
        // Values of size 1e6 have a spacing of 1e-10.
        assert!((found.mean - mean).abs() < 1e-9, "seed {seed}");
        let expected = (squares / f64::from(count - 1)).sqrt();
        assert!((found.standard_deviation.unwrap() - expected).abs() < 1e-9, "seed {seed}");
        assert!(found.min <= found.median && found.median <= found.max, "seed {seed}");
    }
}
