//! What may be claimed of differences between rows: comparisons with a chosen row, and marks.
//!
//! # The rule of the marks
//!
//! A mark says: *not distinguishable from the best row of its column, while some other row is*. In a column that varies
//! with the seed ([`Noise::Seeds`]), among the rows of one data set and model:
//!
//! 1. A row takes part when all its seeds have the value (a mean over the lucky half is not comparable), and they are at
//!    least three. With fewer there is nothing to judge noise by, and nothing is claimed.
//! 2. The best row is the one with the best mean. Every other row is compared with it by the paired t-test, two-sided, over
//!    the seeds that both have, Holm-corrected for the rows that are compared. Below [`LEVEL`] it is worse.
//! 3. When a row is worse, the best row and all rows that are not worse are marked, together. When none is, nothing is.
//!
//! The best row was picked because it is best, which flatters it; Holm's correction pays for part of that. A row
//! whose differences do not vary at all has no p-value and so is not called worse.
//!
//! A count that does not vary ([`Noise::Nothing`], parameters) keeps a plain mark of the best. A time
//! ([`Noise::Machines`]) has none: its spread over seeds says nothing of another machine, load or number of ranks.

use metrics::{PairedComparison, holm};
use serde::{Deserialize, Serialize};

use super::{Bounds, Column, Noise, Row};

/// Significance level of the marks.
pub const LEVEL: f64 = 0.05;

/// Fewest seeds by which a row is judged.
const LEAST_SEEDS: usize = 3;

/// A row less the row that it is compared with, on the seeds that both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Seeds that both have.
    pub pairs: usize,
    /// Mean of the differences.
    pub difference: f64,
    /// Sample standard deviation of the differences; `None` for one pair.
    pub sd: Option<f64>,
    /// Cohen's d_z; `None` where nothing is tested.
    pub effect: Option<f64>,
    /// Two-sided p-value of the paired t-test; `None` for one pair, for differences that do not vary, for counts and times.
    pub p: Option<f64>,
    /// `p` with Holm's correction for the rows compared in the column.
    pub p_holm: Option<f64>,
    /// Two-sided p-value of the exact Wilcoxon signed-rank test, uncorrected; `None` where nothing is tested.
    pub p_wilcoxon: Option<f64>,
    /// Bootstrap interval of the difference over examples, if it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Bounds>,
}

/// What was found of the marks of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// No two rows could be compared, or no value is better than another.
    NotCompared,
    /// Two rows could, but not two with at least three seeds.
    TooFewSeeds,
    /// No row is worse than the best by more than seed noise.
    Indistinct,
    /// The marked rows are distinguishable from the others.
    Marked,
    /// The marked rows have the best count.
    Exact,
}

/// Compares every row with `reference`, in every column.
pub(super) fn with_reference(rows: &mut [Row], columns: &[Column], reference: &str) {
    let Some(reference) = rows.iter().find(|row| row.method == reference).cloned() else { return };
    for (index, column) in columns.iter().enumerate() {
        let name = column.name();
        for row in rows.iter_mut().filter(|row| row.method != reference.method) {
            row.values[index].comparison = comparison(row, &reference, &name, column.noise());
        }
        let tested: Vec<(usize, f64)> = (rows.iter().enumerate())
            .filter_map(|(position, row)| Some((position, row.values[index].comparison.as_ref()?.p?)))
            .collect();
        let corrected = holm(&tested.iter().map(|(_, p)| *p).collect::<Vec<_>>());
        for ((position, _), p) in tested.into_iter().zip(corrected) {
            if let Some(comparison) = &mut rows[position].values[index].comparison {
                comparison.p_holm = Some(p);
            }
        }
    }
}

fn comparison(row: &Row, reference: &Row, name: &str, noise: Noise) -> Option<Comparison> {
    let found = paired(row, reference, name)?;
    let tested = match noise {
        Noise::Seeds => Some(found),
        Noise::Nothing | Noise::Machines => None,
    };
    Some(Comparison {
        pairs: found.pairs,
        difference: found.mean,
        sd: found.standard_deviation,
        effect: tested.and_then(|found| found.effect),
        p: tested.and_then(|found| found.p_value),
        p_holm: None,
        p_wilcoxon: tested.and_then(|found| found.signed_rank_p_value),
        interval: None,
    })
}

/// Over the seeds of which both have the value; `None` without any.
fn paired(left: &Row, right: &Row, name: &str) -> Option<PairedComparison> {
    let pairs = left.seeds.iter().filter_map(|seed| {
        let other = right.seeds.iter().find(|other| other.seed == seed.seed)?;
        Some((seed.value(name)?, other.value(name)?))
    });
    let (left, right): (Vec<f64>, Vec<f64>) = pairs.unzip();
    PairedComparison::new(&left, &right).ok()
}

/// Marks a column of rows that can be compared with each other, by the rule above.
pub(super) fn mark(rows: &mut [Row], index: usize, column: &Column) -> Verdict {
    let complete = |row: &Row| row.values[index].mean.filter(|_| row.values[index].n == row.values[index].of);
    let all: Vec<(usize, f64)> =
        (rows.iter().enumerate()).filter_map(|(row, values)| Some((row, complete(values)?))).collect();
    let best_of = |rows: &[(usize, f64)]| {
        let best = column.direction().best(rows.iter().map(|(_, mean)| *mean))?;
        rows.iter().find(|(_, mean)| *mean == best).copied()
    };
    if all.len() < 2 || best_of(&all).is_none() {
        return Verdict::NotCompared;
    }
    match column.noise() {
        Noise::Machines => Verdict::NotCompared,
        Noise::Nothing => {
            let best = best_of(&all).map(|(_, mean)| column.show(mean, None));
            for (row, mean) in all {
                rows[row].values[index].best = Some(column.show(mean, None)) == best;
            }
            Verdict::Exact
        }
        Noise::Seeds => {
            let judged: Vec<(usize, f64)> =
                all.into_iter().filter(|(row, _)| rows[*row].values[index].n >= LEAST_SEEDS).collect();
            let Some((best, _)) = best_of(&judged).filter(|_| judged.len() > 1) else {
                return Verdict::TooFewSeeds;
            };
            let worse = worse(rows, best, &judged, &column.name());
            if worse.is_empty() {
                return Verdict::Indistinct;
            }
            for (row, _) in judged {
                rows[row].values[index].best = !worse.contains(&row);
            }
            Verdict::Marked
        }
    }
}

/// The rows that are worse than the best one by more than seed noise.
fn worse(rows: &[Row], best: usize, judged: &[(usize, f64)], name: &str) -> Vec<usize> {
    let tested: Vec<(usize, f64)> = judged
        .iter()
        .filter(|(row, _)| *row != best)
        .filter_map(|(row, _)| {
            let found = paired(&rows[*row], &rows[best], name).filter(|found| found.pairs >= LEAST_SEEDS)?;
            Some((*row, found.p_value?))
        })
        .collect();
    let corrected = holm(&tested.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    let pairs = tested.into_iter().zip(corrected);
    pairs.filter(|(_, p)| *p < LEVEL).map(|((row, _), _)| row).collect()
}
