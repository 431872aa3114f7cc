//! Points of curves, and how they are written for programs.
//!
//! The definitions are those of `metrics`; the columns are described in `docs/tables.md`.

use metrics::{DetectionCurve, LabelledPredictions, Predictions, ReliabilityDiagram, RiskCoverage};

use crate::args::CurveKind;
use crate::commands::table::predictions::Sets;

/// The curve of one trial.
pub struct Curve {
    /// What it is of.
    pub name: String,
    /// In the order of [`columns`]; `None` for what an empty bin lacks.
    pub points: Vec<Vec<Option<f64>>>,
}

/// Names of a point's numbers.
pub fn columns(kind: CurveKind) -> &'static [&'static str] {
    match kind {
        CurveKind::Reliability => &["low", "high", "count", "confidence", "accuracy"],
        CurveKind::RiskCoverage => &["threshold", "coverage", "risk"],
        CurveKind::Roc => &["threshold", "false_positive_rate", "true_positive_rate"],
        CurveKind::Pr => &["threshold", "recall", "precision"],
    }
}

/// The points of a curve of `sets`; `set` names the out-of-distribution set that is detected.
///
/// # Errors
///
/// A sentence for the user when there is no such set, or the name is needed.
pub fn points(sets: &Sets, kind: CurveKind, set: Option<&str>) -> Result<Vec<Vec<Option<f64>>>, String> {
    if let (CurveKind::Reliability | CurveKind::RiskCoverage, Some(set)) = (kind, set) {
        return Err(format!("--set {set}: this curve is of the test set; only roc and pr are of another"));
    }
    Ok(match kind {
        CurveKind::Reliability => reliability(&sets.id),
        CurveKind::RiskCoverage => {
            let curve = RiskCoverage::new(&sets.id);
            curve.points().map(|point| some([point.threshold, point.coverage, point.risk])).collect()
        }
        CurveKind::Roc => {
            let curve = detection(sets, set)?;
            // The curve begins where nothing is called out of distribution.
            let first = vec![None, Some(0.0), Some(0.0)];
            let point =
                |p: metrics::DetectionPoint| some([p.threshold, p.false_positive_rate, p.true_positive_rate]);
            [first].into_iter().chain(curve.points().map(point)).collect()
        }
        CurveKind::Pr => {
            let curve = detection(sets, set)?;
            curve.points().map(|p| some([p.threshold, p.true_positive_rate, p.precision])).collect()
        }
    })
}

fn some<const N: usize>(numbers: [f64; N]) -> Vec<Option<f64>> {
    numbers.map(Some).to_vec()
}

fn reliability(id: &LabelledPredictions<'_>) -> Vec<Vec<Option<f64>>> {
    let diagram = ReliabilityDiagram::new(id);
    let bins = diagram.bins().iter().enumerate().map(|(index, bin)| {
        let (low, high) = ReliabilityDiagram::bounds(index);
        vec![Some(low), Some(high), Some(bin.count() as f64), bin.confidence(), bin.accuracy()]
    });
    bins.collect()
}

/// Out of distribution is to be found; a higher score, minus the confidence, says that it is.
fn detection(sets: &Sets, name: Option<&str>) -> Result<DetectionCurve, String> {
    let known = sets.ood.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let ood = match (name, sets.ood.as_slice()) {
        (_, []) => return Err("the evaluation has no out-of-distribution set".to_owned()),
        (None, [(_, only)]) => only,
        (None, _) => return Err(format!("name one of the out-of-distribution sets with --set: {known}")),
        (Some(name), sets) => {
            let found = sets.iter().find(|(other, _)| other == name);
            let found = found
                .ok_or_else(|| format!("no out-of-distribution set is named `{name}`: there is {known}"));
            &found?.1
        }
    };
    DetectionCurve::new(&scores(ood), &scores(sets.id.predictions())).map_err(|error| error.to_string())
}

fn scores(predictions: &Predictions<'_>) -> Vec<f64> {
    let confidence = |row: &[f64]| row.iter().copied().fold(f64::MIN, f64::max);
    predictions.ensemble_mean().chunks(predictions.shape().classes).map(|row| -confidence(row)).collect()
}

/// A line a point, under a heading, with the curve's name first.
pub fn csv(curves: &[Curve], kind: CurveKind) -> String {
    let mut text = format!("curve,{}\n", columns(kind).join(","));
    for Curve { name, points } in curves {
        let name = if name.contains([',', '"', '\n']) {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            name.clone()
        };
        for point in points {
            let numbers =
                point.iter().map(|number| number.map_or_else(String::new, |number| number.to_string()));
            text += &format!("{name},{}\n", numbers.collect::<Vec<_>>().join(","));
        }
    }
    text
}

/// An object a curve, with a list for each of its numbers.
pub fn json(curves: &[Curve], kind: CurveKind) -> serde_json::Value {
    let curve = |Curve { name, points }: &Curve| {
        let list = |index: usize| points.iter().map(|point| point[index]).collect::<Vec<_>>();
        let lists = columns(kind)
            .iter()
            .enumerate()
            .map(|(index, column)| ((*column).to_owned(), list(index).into()));
        let mut object: serde_json::Map<_, _> = lists.collect();
        object.insert("curve".to_owned(), name.clone().into());
        serde_json::Value::Object(object)
    };
    curves.iter().map(curve).collect()
}

#[cfg(test)]
mod tests {
    use metrics::Shape;

    use super::*;

    /// Four test images with confidences .9, .8, .8, .6, of which the second is wrong, and two others with .7 and .5.
    fn sets() -> Sets {
        let rows = |confidences: &[f64]| confidences.iter().flat_map(|c| [*c, 1.0 - c]).collect::<Vec<f64>>();
        let predictions = |confidences: &[f64]| {
            let shape = Shape { members: 1, samples: confidences.len(), classes: 2 };
            let ids: Vec<u64> = (0..confidences.len() as u64).collect();
            Predictions::new(shape, rows(confidences), ids).unwrap()
        };
        let id = predictions(&[0.9, 0.8, 0.8, 0.6]).with_labels(vec![0, 1, 0, 0]).unwrap();
        Sets {
            id,
            ood: vec![("far".to_owned(), predictions(&[0.7, 0.5]))],
            held_out: None,
            shift: Vec::new(),
            weight_cosine: None,
        }
    }

    fn found(kind: CurveKind) -> String {
        let points = points(&sets(), kind, None).unwrap();
        csv(&[Curve { name: "a, b".to_owned(), points }], kind)
    }

    #[test]
    fn a_roc_curve_runs_from_nothing_to_everything() {
        let expected = "curve,threshold,false_positive_rate,true_positive_rate\n\
                        \"a, b\",,0,0\n\"a, b\",-0.5,0,0.5\n\"a, b\",-0.6,0.25,0.5\n\"a, b\",-0.7,0.25,1\n\
                        \"a, b\",-0.8,0.75,1\n\"a, b\",-0.9,1,1\n";
        assert_eq!(found(CurveKind::Roc), expected);
        assert!(found(CurveKind::Pr).contains("\"a, b\",-0.7,1,0.6666666666666666\n"));
    }

    #[test]
    fn risk_is_over_what_is_answered_and_ties_are_answered_together() {
        let expected = "curve,threshold,coverage,risk\n\
                        \"a, b\",0.9,0.25,0\n\"a, b\",0.8,0.75,0.3333333333333333\n\"a, b\",0.6,1,0.25\n";
        assert_eq!(found(CurveKind::RiskCoverage), expected);
    }

    #[test]
    fn an_empty_bin_has_a_count_of_nothing_and_no_accuracy() {
        let text = found(CurveKind::Reliability);
        assert_eq!(text.lines().count(), 16);
        let bin = text.lines().find(|line| line.contains(",2,")).unwrap();
        assert!(bin.ends_with(",2,0.8,0.5"), "{bin}");
        assert!(text.lines().nth(1).unwrap().ends_with(",0,,"), "{text}");
    }

    #[test]
    fn json_has_a_list_for_each_number() {
        let kind = CurveKind::Roc;
        let value = json(
            &[Curve { name: "a".to_owned(), points: points(&sets(), kind, Some("far")).unwrap() }],
            kind,
        );
        assert_eq!(value[0]["curve"], "a");
        assert_eq!(value[0]["true_positive_rate"], serde_json::json!([0.0, 0.5, 0.5, 1.0, 1.0, 1.0]));
        assert_eq!(value[0]["threshold"][0], serde_json::Value::Null);
    }

    #[test]
    fn a_set_that_is_not_there_is_answered_with_those_that_are() {
        let error = points(&sets(), CurveKind::Roc, Some("near")).unwrap_err();
        assert!(error.contains("`near`") && error.contains("far"), "{error}");
        assert!(points(&sets(), CurveKind::Reliability, Some("far")).is_err());
        let mut two = sets();
        two.ood.push(("near".to_owned(), two.ood[0].1.clone()));
        assert!(points(&two, CurveKind::Pr, None).unwrap_err().contains("far, near"));
        two.ood.clear();
        assert!(points(&two, CurveKind::Roc, None).is_err());
    }
}
