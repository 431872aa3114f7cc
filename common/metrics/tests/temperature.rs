//! Agreement with scipy and `torch.optim.LBFGS` on temperatures, and with numpy on the scores after scaling.
//!
//! `fixtures/temperature.json`: `fixtures/make_temperature.py`, torch 2.11.0, scipy 1.17.1. Held-out predictions
//! are drawn here again from their numbers.

#![expect(clippy::unwrap_used, reason = "clippy does not take helpers in integration tests for tests")]

mod draws;

use draws::draws;
use metrics::{
    ClassificationReport, Evaluation, LabelledPredictions, Predictions, Shape, TEMPERATURES, Temperature,
    TemperatureFit,
};
use serde_json::Value;

/// Both find the root of the same derivative to its rounding, some 1e-15 over the curvature.
const TOLERANCE: f64 = 1e-10;

/// The same predictions with logits, and as probabilities alone.
struct Case {
    known: LabelledPredictions<'static>,
    plain: LabelledPredictions<'static>,
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|z| (z - greatest).exp()).sum();
    logits.iter().map(|z| (z - greatest).exp() / total).collect()
}

fn case(number: usize) -> Case {
    let name = format!("temperature {number}");
    let head: Vec<usize> = draws(&name).take(4).map(|draw| draw as usize).collect();
    let shape = Shape { members: 1 + head[0] % 4, samples: 1 + head[1] % 80, classes: 2 + head[2] % 6 };
    let Shape { members, samples, classes } = shape;
    let sharpness = (1 + head[3] % 16) as f64 / 16.0;
    let logit = |draw: u32| {
        let unscaled = (f64::from(draw) / 134_217_728.0 - 8.0) as f32;
        f64::from((f64::from(unscaled) * sharpness) as f32)
    };
    let count = members * samples * classes;
    let logits: Vec<f64> = draws(&format!("{name} logits")).take(count).map(logit).collect();
    let probabilities: Vec<f64> = logits.chunks(classes).flat_map(softmax).collect();
    let preferred = |n: usize| {
        let sum = |k: usize| (0..members).map(|j| logits[(j * samples + n) * classes + k]).sum::<f64>();
        (0..classes).max_by(|a, b| sum(*a).total_cmp(&sum(*b))).unwrap()
    };
    let label = |(n, draw): (usize, u32)| {
        if draw.is_multiple_of(3) { draw % classes as u32 } else { preferred(n) as u32 }
    };
    let labels: Vec<u32> = draws(&format!("{name} labels")).take(samples).enumerate().map(label).collect();
    let ids: Vec<u64> = (0..samples as u64).collect();
    let plain = Predictions::new(shape, probabilities, ids).unwrap();
    let known = plain.clone().with_logits(logits).unwrap();
    Case { known: known.with_labels(labels.clone()).unwrap(), plain: plain.with_labels(labels).unwrap() }
}

#[test]
fn temperatures_and_scaled_scores_are_those_of_scipy_and_lbfgs() {
    let golden: Value = serde_json::from_str(include_str!("../fixtures/temperature.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 300);
    let mut bounded = 0;
    for (number, expected) in cases.iter().enumerate() {
        let [temperature, nll, brier] = [0, 1, 2].map(|i| expected[i].as_f64().unwrap());
        let Case { known, plain } = case(number);
        let fitted = Temperature::new(&known);
        bounded += usize::from(fitted.fit() != TemperatureFit::Optimum);
        let interior = *TEMPERATURES.start() < temperature && temperature < *TEMPERATURES.end();
        assert_eq!(fitted.fit() == TemperatureFit::Optimum, interior, "case {number}");
        for held_out in [&known, &plain] {
            // Scaling changes nothing of the held-out predictions, so they serve as test set too.
            let report = ClassificationReport::compute(&Evaluation::new(&known).with_held_out(held_out));
            let report = report.unwrap();
            for (name, expected) in
                [("temperature", temperature), ("nll_scaled", nll), ("brier_scaled", brier)]
            {
                let found = report.value(name).unwrap();
                let error = (found - expected).abs() / expected.max(1.0);
                assert!(error <= TOLERANCE, "case {number}, {name}: {found} instead of {expected}");
            }
        }
    }
    assert!((1..100).contains(&bounded), "{bounded} of 300 have no optimum");
}

#[test]
fn scaling_a_single_network_is_the_softmax_of_its_scaled_logits() {
    let mut compared = 0;
    for number in 0..300 {
        let Case { known, plain } = case(number);
        let Shape { members, classes, .. } = plain.predictions().shape();
        if members > 1 {
            continue;
        }
        compared += 1;
        let temperature = Temperature::new(&plain);
        // Up to a constant of each sample, logarithms of probabilities are logits.
        let logs: Vec<f64> = plain.predictions().ensemble_mean().iter().map(|p| p.ln()).collect();
        let by_logits: Vec<f64> = logs
            .chunks(classes)
            .flat_map(|row| softmax(&row.iter().map(|z| z / temperature.value()).collect::<Vec<_>>()))
            .collect();
        for scaled in [temperature.scale(known.predictions()), temperature.scale(plain.predictions())] {
            for (found, expected) in scaled.ensemble_mean().iter().zip(&by_logits) {
                assert!((found - expected).abs() < 1e-12, "case {number}: {found} instead of {expected}");
            }
        }
    }
    assert!(compared > 50, "{compared}");
}
