//! Bootstrap over examples: how far a figure may move because the test set is a sample.
//!
//! A replicate draws as many examples as there are, with replacement, and computes every metric of what it drew. The
//! in-distribution set and each out-of-distribution set are drawn separately, their sizes being the benchmark's choice.
//! Replicate `r` of a seed draws the same examples of a set in *every* evaluation (the draw depends on the bootstrap's
//! seed, `r`, the set and the rank of an example's id, on nothing else). So the replicates of several seeds of a row
//! can be averaged, and those of two rows subtracted, one by one: the examples are resampled jointly, and differences
//! are paired by example.
//!
//! Intervals are percentile intervals. They are about the examples alone: networks are taken as they are, and the
//! spread over seeds is another number. **Read those of a calibration error with care**: binning noise only ever
//! adds to it, resampling adds more, so its interval lies above the point, and may not even hold it.
//!
//! Nothing is sorted but once an evaluation: a replicate is a list of integer weights.

use crate::calibration::{BINS, ReliabilityDiagram};
use crate::classification::PROBABILITY_FLOOR;
use crate::metric::Metric;
use crate::name::{MetricName, MetricNameError};
use crate::predictions::{LabelledPredictions, Predictions, argmax};

/// What a resampled evaluation measures on the in-distribution set.
const QUALITY: [Metric; 4] =
    [Metric::Accuracy, Metric::NegativeLogLikelihood, Metric::BrierScore, Metric::ExpectedCalibrationError];
/// What it measures on each out-of-distribution set, by the maximum probability.
const DETECTION: [Metric; 3] = [Metric::Auroc, Metric::Aupr, Metric::Fpr95];

/// Why there is no interval.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BootstrapError {
    /// Too few replicates for any quantile.
    #[error("{0} replicates are too few for an interval: use at least 100")]
    Replicates(usize),
    /// Not a level between 0 and 1.
    #[error("{0} is not the level of an interval: use a number between 0 and 1, such as 0.95")]
    Level(f64),
    /// An out-of-distribution set has a name that cannot be part of a metric name.
    #[error("the name of an out-of-distribution set was refused")]
    SetName(#[from] MetricNameError),
    /// Nothing to average.
    #[error("there are no evaluations to take the mean of")]
    Empty,
    /// An evaluation has no such metric, or it is not one that resampling knows.
    #[error("`{0}` is not resampled")]
    NotResampled(MetricName),
    /// Two evaluations have different examples, or another number of replicates.
    #[error("the evaluations do not have the same examples, so they cannot be resampled together")]
    DifferentExamples,
}

/// A percentile interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// The central interval that holds the share `level` of the replicates, by linear interpolation between them.
    ///
    /// # Errors
    ///
    /// [`BootstrapError::Level`], and [`BootstrapError::Replicates`] for fewer than 100.
    pub fn of_replicates(replicates: &[f64], level: f64) -> Result<Self, BootstrapError> {
        if !(level > 0.0 && level < 1.0) {
            return Err(BootstrapError::Level(level));
        }
        if replicates.len() < LEAST_REPLICATES {
            return Err(BootstrapError::Replicates(replicates.len()));
        }
        let mut sorted = replicates.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - level) / 2.0;
        Ok(Self { low: quantile(&sorted, tail), high: quantile(&sorted, 1.0 - tail) })
    }
}

/// Fewer replicates than this have no tails to speak of.
const LEAST_REPLICATES: usize = 100;

/// How examples are resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Replicates; 1,000 are enough for the two digits of a 95 % interval that a table prints.
    pub replicates: usize,
    /// Names the draws. The same seed gives the same intervals, everywhere.
    pub seed: u64,
}

impl Bootstrap {
    /// Computes every replicate of an evaluation: accuracy, NLL, Brier score and ECE in distribution, and AUROC, AUPR
    /// and FPR95 of the maximum probability for each out-of-distribution set (without a set's name too, if it is the only one).
    ///
    /// # Errors
    ///
    /// [`BootstrapError::Replicates`], and [`BootstrapError::SetName`].
    pub fn resample(
        &self,
        id: &LabelledPredictions<'_>,
        ood: &[(&str, &Predictions<'_>)],
    ) -> Result<Resampled, BootstrapError> {
        if self.replicates < LEAST_REPLICATES {
            return Err(BootstrapError::Replicates(self.replicates));
        }
        let labelled = Examples::labelled(id);
        let mut metrics: Vec<MetricName> = QUALITY.map(MetricName::from).to_vec();
        let mut sets = Vec::with_capacity(ood.len());
        for (name, predictions) in ood {
            for metric in DETECTION {
                metrics.push(MetricName::on_set(metric, name)?);
            }
            sets.push(Detection::new(&labelled, name, predictions));
        }
        let mut columns: Vec<Vec<f64>> =
            metrics.iter().map(|_| Vec::with_capacity(self.replicates)).collect();
        let mut weights = vec![0; labelled.ids.len()];
        for replicate in 0..self.replicates {
            draw(&mut weights, self.key(replicate, None));
            let quality = labelled.quality(&weights);
            let detection = sets.iter_mut().flat_map(|set| {
                set.draw(&weights, self.key(replicate, Some(&set.name)));
                set.measure()
            });
            for (column, value) in columns.iter_mut().zip(quality.into_iter().chain(detection)) {
                column.push(value);
            }
        }
        let mut values: Vec<(MetricName, Vec<f64>)> = metrics.into_iter().zip(columns).collect();
        if let [_] = ood {
            let short = values[QUALITY.len()..].iter();
            let short: Vec<_> = short.map(|(name, values)| (name.metric().into(), values.clone())).collect();
            values.extend(short);
        }
        let sets = sets.into_iter().map(|set| (set.name, set.ids)).collect();
        Ok(Resampled { values, ids: labelled.ids, sets })
    }

    fn key(&self, replicate: usize, set: Option<&str>) -> u64 {
        // FNV-1a of the set's name; 0 for the in-distribution set.
        let set = set.map_or(0, |name| {
            name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
            })
        });
        mix(mix(mix(self.seed) ^ replicate as u64) ^ set)
    }
}

/// The replicates of one evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    values: Vec<(MetricName, Vec<f64>)>,
    ids: Vec<u64>,
    sets: Vec<(String, Vec<u64>)>,
}

impl Resampled {
    /// The values of a metric, one a replicate.
    pub fn replicates(&self, name: &MetricName) -> Option<&[f64]> {
        self.values.iter().find(|(other, _)| other == name).map(|(_, values)| values.as_slice())
    }

    /// Whether both draw from the same examples for this metric, so that their replicates belong together.
    fn fits(&self, other: &Self, name: &MetricName) -> bool {
        let set = |resampled: &Self| match name.set() {
            // Short names of detection are about the only set.
            None if DETECTION.contains(&name.metric()) => resampled.sets.first().cloned(),
            None => None,
            Some(set) => resampled.sets.iter().find(|(name, _)| name == set).cloned(),
        };
        self.ids == other.ids && set(self) == set(other)
    }
}

/// Replicates of the mean of a metric over evaluations: the seeds of a row, examples resampled jointly.
///
/// # Errors
///
/// [`BootstrapError`] when there is no evaluation, one lacks the metric, or their examples differ.
pub fn mean_replicates(cells: &[&Resampled], name: &MetricName) -> Result<Vec<f64>, BootstrapError> {
    let (first, rest) = cells.split_first().ok_or(BootstrapError::Empty)?;
    let replicates = |cell: &&Resampled| {
        cell.replicates(name).map(<[f64]>::to_vec).ok_or(BootstrapError::NotResampled(name.clone()))
    };
    let mut sums = replicates(first)?;
    for cell in rest {
        let values = replicates(cell)?;
        if !first.fits(cell, name) || values.len() != sums.len() {
            return Err(BootstrapError::DifferentExamples);
        }
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.iter_mut().for_each(|sum| *sum /= cells.len() as f64);
    Ok(sums)
}

/// Replicates of `mean(left) − mean(right)`, paired by example.
///
/// # Errors
///
/// As [`mean_replicates`].
pub fn difference_replicates(
    left: &[&Resampled],
    right: &[&Resampled],
    name: &MetricName,
) -> Result<Vec<f64>, BootstrapError> {
    let (minuend, subtrahend) = (mean_replicates(left, name)?, mean_replicates(right, name)?);
    let fit = left.first().zip(right.first()).is_some_and(|(left, right)| left.fits(right, name));
    if !fit || minuend.len() != subtrahend.len() {
        return Err(BootstrapError::DifferentExamples);
    }
    Ok(minuend.into_iter().zip(subtrahend).map(|(left, right)| left - right).collect())
}

/// What the metrics need of each in-distribution example, in the order of the ids.
struct Examples {
    ids: Vec<u64>,
    right: Vec<bool>,
    loss: Vec<f64>,
    brier: Vec<f64>,
    confidence: Vec<f64>,
    bin: Vec<usize>,
}

impl Examples {
    fn labelled(id: &LabelledPredictions<'_>) -> Self {
        let predictions = id.predictions();
        let samples = predictions.shape().samples;
        let mut rows = Vec::with_capacity(samples);
        predictions.for_each_sample(|n, sample| {
            let (predicted, label) = (argmax(sample.mean), id.label(n));
            let squares = sample.mean.iter().enumerate().map(|(class, p)| {
                let error = p - if class == label { 1.0 } else { 0.0 };
                error * error
            });
            let loss = -id.true_class_probability(n).max(PROBABILITY_FLOOR).ln();
            rows.push((
                predictions.ids()[n],
                predicted == label,
                loss,
                squares.sum(),
                sample.mean[predicted],
            ));
        });
        rows.sort_unstable_by_key(|row| row.0);
        Self {
            ids: rows.iter().map(|row| row.0).collect(),
            right: rows.iter().map(|row| row.1).collect(),
            loss: rows.iter().map(|row| row.2).collect(),
            brier: rows.iter().map(|row| row.3).collect(),
            confidence: rows.iter().map(|row| row.4).collect(),
            bin: rows.iter().map(|row| bin_of(row.4)).collect(),
        }
    }

    /// In the order of [`QUALITY`].
    fn quality(&self, weights: &[u32]) -> [f64; 4] {
        let (mut right, mut loss, mut brier) = (0_u64, 0.0, 0.0);
        // The last one is for a confidence of 0, which is in no bin.
        let mut bins = [(0_u64, 0.0); BINS + 1];
        for (n, &weight) in weights.iter().enumerate() {
            let times = f64::from(weight);
            let hits = if self.right[n] { u64::from(weight) } else { 0 };
            right += hits;
            loss += times * self.loss[n];
            brier += times * self.brier[n];
            let bin = &mut bins[self.bin[n]];
            bin.0 += hits;
            bin.1 += times * self.confidence[n];
        }
        let samples = weights.len() as f64;
        let gaps: f64 = bins[..BINS].iter().map(|(hits, confidence)| (confidence - *hits as f64).abs()).sum();
        [right as f64 / samples, loss / samples, brier / samples, gaps / samples]
    }
}

/// The bin of the reliability diagram, or [`BINS`] for none.
fn bin_of(confidence: f64) -> usize {
    let confidence = confidence as f32;
    if confidence <= 0.0 {
        return BINS;
    }
    (1..BINS).filter(|&index| (ReliabilityDiagram::bounds(index).0 as f32) < confidence).count()
}

/// An out-of-distribution set beside the in-distribution one, from the strictest threshold on.
struct Detection {
    name: String,
    ids: Vec<u64>,
    /// Positions in `weights`, by ascending confidence, and whether the next one has another confidence.
    order: Vec<(usize, bool)>,
    /// Of the out-of-distribution examples, then of the in-distribution ones.
    weights: Vec<u32>,
}

impl Detection {
    fn new(id: &Examples, name: &str, predictions: &Predictions<'_>) -> Self {
        let mut rows = Vec::with_capacity(predictions.shape().samples);
        predictions.for_each_sample(|n, sample| {
            rows.push((predictions.ids()[n], sample.mean[argmax(sample.mean)]));
        });
        rows.sort_unstable_by_key(|row| row.0);
        let confidences = rows.iter().map(|row| row.1).chain(id.confidence.iter().copied());
        let mut sorted: Vec<(usize, f64)> = confidences.enumerate().collect();
        sorted.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
        let ends = |n: usize| sorted.get(n + 1).is_none_or(|next| next.1 != sorted[n].1);
        let order = sorted.iter().enumerate().map(|(n, (position, _))| (*position, ends(n))).collect();
        let weights = vec![0; sorted.len()];
        Self { name: name.to_owned(), ids: rows.into_iter().map(|row| row.0).collect(), order, weights }
    }

    fn draw(&mut self, id: &[u32], key: u64) {
        let (ood, rest) = self.weights.split_at_mut(self.ids.len());
        draw(ood, key);
        rest.copy_from_slice(id);
    }

    /// In the order of [`DETECTION`]; each as [`DetectionCurve`](crate::DetectionCurve) defines it.
    fn measure(&self) -> [f64; 3] {
        let positives = self.ids.len() as u64;
        let negatives = (self.order.len() - self.ids.len()) as u64;
        let (mut tp, mut fp) = (0_u64, 0_u64);
        let (mut tp_before, mut fp_before) = (0_u64, 0_u64);
        let (mut doubled, mut precision) = (0_u128, 0.0);
        let (mut nearest, mut false_alarms) = (u64::MAX, 0);
        for &(position, ends) in &self.order {
            let weight = u64::from(self.weights[position]);
            if position < self.ids.len() {
                tp += weight;
            } else {
                fp += weight;
            }
            if !ends || (tp == tp_before && fp == fp_before) {
                continue;
            }
            doubled += u128::from(fp - fp_before) * u128::from(tp_before + tp);
            // Twenty times the distance of the recall from 0.95; points after full recall do not count.
            let distance = (20 * tp).abs_diff(19 * positives);
            if distance <= nearest && tp_before < positives {
                (nearest, false_alarms) = (distance, fp);
            }
            if tp > tp_before {
                precision += (tp - tp_before) as f64 * (tp as f64 / (tp + fp) as f64);
            }
            (tp_before, fp_before) = (tp, fp);
        }
        let pairs = 2 * u128::from(positives) * u128::from(negatives);
        [doubled as f64 / pairs as f64, precision / positives as f64, false_alarms as f64 / negatives as f64]
    }
}

/// Draws as many examples as there are, with replacement, and counts how often each comes.
fn draw(weights: &mut [u32], key: u64) {
    weights.fill(0);
    let examples = weights.len() as u128;
    for counter in 0..weights.len() as u64 {
        // The upper half of a product maps 64 bits to an index with a bias below 1e-14.
        let index = (u128::from(mix(key.wrapping_add(counter))) * examples) >> 64;
        weights[index as usize] += 1;
    }
}

/// The output function of SplitMix64.
///
/// Source: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests;
