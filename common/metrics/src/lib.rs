//! Metrics of probabilistic classifiers, from stored probabilities to numbers in a table.
//!
//! This crate decides what every reported figure *means*: one definition of each metric, computed in
//! `f64`, in one place, for the trainer (at the end of an evaluation), for the command line (which
//! recomputes a table from stored predictions) and for statistics over seeds.
//!
//! It deliberately does no I/O, knows no tensors and holds no hidden randomness: the same predictions give the
//! same figures, to the last bit, wherever they are computed.
//!
//! | file | holds |
//! |---|---|
//! | [`predictions`](Predictions), [`values`](Values) | validated probabilities and logits `[J, N, K]`, ids, labels |
//! | [`classification`](accuracy) | accuracy, negative log-likelihood, Brier score |
//! | [`calibration`](ReliabilityDiagram) | reliability diagrams; expected, maximum and class-wise calibration error |
//! | [`adaptive`](AdaptiveDiagram) | the same over bins of equal mass |
//! | [`temperature`](Temperature) | temperature scaling, fitted on held-out predictions |
//! | [`selective`](RiskCoverage) | risk-coverage curve, its area, coverage at a risk |
//! | [`detection`](DetectionCurve) | AUROC, AUPR, FPR95 |
//! | [`uncertainty`](Uncertainty) | entropies, mutual information, variation ratio, member variance |
//! | [`score`](OodScore) | which of them serves as out-of-distribution score |
//! | [`diversity`](Diversity), [`pair`](PairCounts) | how much the members differ |
//! | [`shift`](ShiftedSet) | corrupted test sets, and averages over them |
//! | [`metric`](Metric), [`name`](MetricName) | names, direction and format of each metric |
//! | [`evaluation`](Evaluation), [`report`](ClassificationReport) | all predictions of an evaluation; everything above, in order |
//! | [`summary`](Summary) | mean and standard deviation over seeds |
//! | [`paired`](PairedComparison) | two rows over the seeds that both have: difference, effect, p-value |
//! | [`bootstrap`](Bootstrap) | intervals over examples, by draws that a seed names |
//!
//! # Conventions
//!
//! `J` members, `N` samples, `K` classes. Probabilities are member-major: all samples of member 0 first.
//! The predictive distribution of an ensemble is the **mean of the members' probabilities**, the
//! predicted class its argmax (lowest index on ties), the confidence its maximum. Entropies are in nats.
//! In out-of-distribution detection the **positive class is out of distribution** and a higher score
//! means "more likely out of distribution"; the default score is minus the confidence. Logits are optional:
//! what needs them (energy, maximum logit) is absent without them.
//!
//! Samples that tie are never ordered by chance. A threshold takes them together or not at all (detection,
//! coverage); an area or a bin that would cut through them counts each as the mean of them all (AURC,
//! adaptive ECE).
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
//! | FPR95 | torch-uncertainty 0.13 and many others take the first operating point with recall of at least 0.95, torch-uncertainty with as few false positives as that recall allows | the nearest recall, as in the official code; compared as integers, on an exact tie the higher; with all its false positives |
//! | AUPR | torch-uncertainty: the same step-wise average precision; other tools integrate by trapezoids, which is optimistic | step-wise average precision |
//! | adaptive ECE | torch-uncertainty sorts tied confidences as it happens, and gives NaN for fewer samples than bins | tied samples share their rightness; empty bins are skipped |
//! | class-wise ECE | torch-uncertainty has bins `[lo, hi)`, and a sixteenth for a probability of 1 | bins `(lo, hi]`, the first one with 0 |
//! | AURC | torch-uncertainty integrates by trapezoids from coverage `1/N` on and divides by `1 − 1/N`; tied confidences as they happen | the mean of the `N` risks (Geifman et al. 2019), ties averaged over their orders |
//! | E-AURC | usually less the limit `r + (1 − r) ln(1 − r)` | less the best order's exact area |
//! | coverage at 5 % risk | torch-uncertainty: NaN where no coverage has so low a risk | 0 |
//! | NLL | torch-uncertainty: infinite where the true class has probability 0 | 27.6 nats, the floor |
//! | expected entropy | torch-uncertainty's criterion `entropy` is this one, not the entropy of the mean | both, by name |
//! | temperature | torch-uncertainty takes 100 steps of LBFGS at rate 0.1 on the inverse temperature, from 1 | the optimum, bounded |
//! | Brier | some libraries divide by `K` or by 2 | sum over classes, range 0 to 2 |
//! | variation ratio | torch-uncertainty's default is one minus the mean probability of the ensemble's class; its other form one minus the share of votes for that class | one minus the share of the modal vote |
//! | member variance | `torch.var` divides by `J − 1` | divides by `J` |
//!
//! These differences are proven, not remembered: `tests/agreement.rs` computes both sides of each on 2,000 random
//! predictions and compares with what the libraries give.
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
mod bootstrap;
mod calibration;
mod classification;
mod detection;
mod diversity;
mod evaluation;
mod metric;
mod name;
mod pair;
mod paired;
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
pub use bootstrap::{Bootstrap, BootstrapError, Interval, Resampled, difference_replicates, mean_replicates};
pub use calibration::{BINS, ReliabilityBin, ReliabilityDiagram, classwise_calibration_error};
pub use classification::{PROBABILITY_FLOOR, accuracy, brier_score, negative_log_likelihood};
pub use detection::{DetectionClass, DetectionCurve, DetectionError, DetectionPoint};
pub use diversity::{CosineError, Diversity, mean_pairwise_cosine};
pub use evaluation::Evaluation;
pub use metric::{DetectionMetrics, Direction, Metric, ShiftMetrics};
pub use name::{MetricName, MetricNameError};
pub use pair::{ErrorDiversity, PairCounts};
pub use paired::{PairedComparison, PairedError, holm};
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
