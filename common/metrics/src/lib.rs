//! Metrics of probabilistic classifiers, from stored probabilities to numbers in a table.
//!
//! This crate decides what every reported figure *means*: one definition of each metric, computed in
//! `f64`, in one place, for the trainer (at the end of an evaluation), for the command line (which
//! recomputes a table from stored predictions) and for statistics over seeds.
//!
//! It deliberately does no I/O, knows no tensors and holds no randomness: the same predictions give the
//! same figures, to the last bit, wherever they are computed.
//!
//! | file | holds |
//! |---|---|
//! | [`predictions`](Predictions) | validated probabilities `[J, N, K]`, ids, labels |
//! | [`classification`](accuracy) | accuracy, negative log-likelihood, Brier score |
//! | [`calibration`](ReliabilityDiagram) | reliability diagram, expected calibration error |
//! | [`detection`](DetectionCurve) | AUROC, AUPR, FPR95 |
//! | [`uncertainty`](Uncertainty) | entropies, mutual information, variation ratio, member variance |
//! | [`score`](OodScore) | which of them serves as out-of-distribution score |
//! | [`diversity`](Diversity), [`pair`](PairCounts) | how much the members differ |
//! | [`name`](Metric) | names, direction and format of each metric |
//! | [`report`](ClassificationReport) | everything above, in order |
//! | [`summary`](Summary) | mean and standard deviation over seeds |
//!
//! # Conventions
//!
//! `J` members, `N` samples, `K` classes. Probabilities are member-major: all samples of member 0 first.
//! The predictive distribution of an ensemble is the **mean of the members' probabilities**, the
//! predicted class its argmax (lowest index on ties), the confidence its maximum. Entropies are in nats.
//! In out-of-distribution detection the **positive class is out of distribution** and a higher score
//! means "more likely out of distribution"; the default score is minus the confidence.
//!
//! # Where other implementations differ
//!
//! The definitions are those of the official LP-BNN evaluation code, which takes AUROC and AUPR from
//! scikit-learn. Figures of other libraries can differ in these places:
//!
//! | metric | there | here |
//! |---|---|---|
//! | ECE | torchmetrics (hence torch-uncertainty) has bins `[lo, hi)`, and a confidence of exactly 1 gets a sixteenth bin of its own | bins `(lo, hi]`; 1 belongs to the last of the 15 |
//! | ECE | `torch.linspace` puts some boundaries one unit in the last place beside `i/15`, depending on the machine | `i/15` rounded once to `f32` |
//! | FPR95 | torch-uncertainty takes the same operating point (recall nearest to 0.95), but compares recalls in `f32`, the official code in `f64`: rounding decides exact ties, which a multiple of ten positives can have | compared as integers; on an exact tie the higher recall |
//! | FPR95 | many libraries take the first operating point with recall of at least 0.95 | the nearest one |
//! | AUPR | torch-uncertainty: the same step-wise average precision; other tools integrate by trapezoids, which is optimistic | step-wise average precision |
//! | Brier | some libraries divide by `K` or by 2 | sum over classes, range 0 to 2 |
//! | variation ratio | torch-uncertainty's default is one minus the mean probability of the ensemble's class | one minus the share of the modal vote |
//! | member variance | `torch.var` divides by `J − 1` | divides by `J` |
//!
//! # Example
//!
//! ```
//! use metrics::{ClassificationReport, Evaluation, Predictions, Shape};
//!
//! // Two members, two samples, three classes.
//! let shape = Shape { members: 2, samples: 2, classes: 3 };
//! let probabilities: &[f32] = &[
//!     0.8, 0.1, 0.1, /**/ 0.2, 0.5, 0.3, // member 0
//!     0.6, 0.3, 0.1, /**/ 0.4, 0.3, 0.3, // member 1
//! ];
//! let id = Predictions::new(shape, probabilities, vec![10, 11])?.with_labels(vec![0, 1])?;
//! let report = ClassificationReport::compute(&Evaluation::new(&id))?;
//! assert_eq!(report.value("accuracy"), Some(1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adaptive;
mod calibration;
mod classification;
mod detection;
mod diversity;
mod evaluation;
mod metric;
mod name;
mod pair;
mod predictions;
mod report;
mod score;
mod selective;
mod shift;
mod summary;
mod temperature;
mod uncertainty;
mod values;

pub use adaptive::AdaptiveDiagram;
pub use calibration::{BINS, ReliabilityBin, ReliabilityDiagram, classwise_calibration_error};
pub use classification::{PROBABILITY_FLOOR, accuracy, brier_score, negative_log_likelihood};
pub use detection::{DetectionClass, DetectionCurve, DetectionError};
pub use diversity::{CosineError, Diversity, mean_pairwise_cosine};
pub use evaluation::Evaluation;
pub use metric::{DetectionMetrics, Direction, Metric, ShiftMetrics};
pub use name::{MetricName, MetricNameError};
pub use pair::{ErrorDiversity, PairCounts};
pub use predictions::{LabelledPredictions, Predictions, PredictionsError, ROW_SUM_TOLERANCE, Shape};
pub use report::{ClassificationReport, ReportError};
pub use score::OodScore;
pub use selective::{RiskCoverage, RiskCoveragePoint};
pub use shift::{
    EXTRA_CORRUPTIONS, MAIN_CORRUPTIONS, SEVERITIES, Scope, ShiftName, ShiftNameError, ShiftedSet,
};
pub use summary::{Summary, SummaryError};
pub use temperature::{TEMPERATURES, Temperature, TemperatureFit};
pub use uncertainty::Uncertainty;
pub use values::Values;
