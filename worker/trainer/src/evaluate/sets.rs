//! The images that an evaluation predicts, and what is kept of the predictions.

use std::fmt;

use datasets::{Batcher, Example};
use metrics::Shape;
use tch::{Device, Kind, Tensor};

/// What a set of images is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// The test images of the classes that the networks know.
    Test,
    /// Training images that no network was fitted to; a temperature is.
    HeldOut,
    /// Images that no class explains.
    OutOfDistribution(String),
    /// The test images, corrupted.
    Shifted {
        /// As in the official files, such as `gaussian_noise`.
        corruption: String,
        /// 1 to 5.
        severity: u32,
    },
}

impl SetKind {
    /// Whether every member's predictions are kept, or only their mean: corrupted test sets are many.
    fn keeps_members(&self) -> bool {
        match self {
            Self::Test | Self::HeldOut | Self::OutOfDistribution(_) => true,
            Self::Shifted { .. } => false,
        }
    }
}

/// Prefix of the set's tensors in the artifact.
impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test => f.write_str("id"),
            Self::HeldOut => f.write_str("held_out"),
            Self::OutOfDistribution(name) => write!(f, "ood/{name}"),
            Self::Shifted { corruption, severity } => write!(f, "shift/{corruption}.{severity}"),
        }
    }
}

/// Images and what has been predicted of them so far.
pub struct ImageSet {
    /// What they are for.
    pub kind: SetKind,
    /// The images.
    pub batcher: Batcher,
    /// Where predictions are made.
    pub device: Device,
    /// Number of the set in the evaluation, by which its draws are seeded.
    pub number: u64,
    kept: Vec<Members>,
    /// Sum of the members' probabilities in double precision, and how many they are.
    sum: Option<(Tensor, u64)>,
}

/// Predictions on the host, `[J, N, K]` each.
pub struct Members {
    /// Softmax of each member, or the mean of several draws'.
    pub probabilities: Tensor,
    /// What the softmax was taken of, or their mean.
    pub logits: Tensor,
}

/// Predictions of a set of images, as they are stored.
///
/// Shapes: probabilities and logits `[J, N, K]`, labels and ids `[N]`.
pub struct Predicted {
    /// What the images are for.
    pub kind: SetKind,
    /// J, N, K.
    pub shape: Shape,
    /// Member-major.
    pub probabilities: Vec<f32>,
    /// Of the same members; absent where only the mean of the members is kept.
    pub logits: Option<Vec<f32>>,
    /// Numbered as the networks' outputs, but for out-of-distribution sets: as in the data set.
    pub labels: Vec<i64>,
    /// Positions in the official file.
    pub ids: Vec<u64>,
    /// `[N, C]`, of examples with real features; empty for images.
    pub features: Vec<f32>,
}

impl ImageSet {
    /// Images of which nothing has been predicted.
    pub fn new(kind: SetKind, number: u64, batcher: Batcher, device: Device) -> Self {
        Self { kind, batcher, device, number, kept: Vec::new(), sum: None }
    }

    /// Number of images.
    pub fn len(&self) -> u64 {
        self.batcher.images().len() as u64
    }

    /// Adds the predictions of a network.
    pub fn add(&mut self, members: Members) {
        if self.kind.keeps_members() {
            self.kept.push(members);
            return;
        }
        let count = members.probabilities.size()[0].unsigned_abs();
        let sum = members.probabilities.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        self.sum = Some(match self.sum.take() {
            Some((total, before)) => (total + sum, before + count),
            None => (sum, count),
        });
    }

    /// Puts the predictions of all networks together.
    pub fn finish(self) -> Predicted {
        let images = self.batcher.images();
        let (probabilities, logits) = match self.sum {
            Some((sum, count)) => ((sum / count as f64).to_kind(Kind::Float).unsqueeze(0), None),
            None => {
                let all = |part: fn(&Members) -> &Tensor| {
                    Tensor::cat(&self.kept.iter().map(part).collect::<Vec<_>>(), 0)
                };
                (all(|members| &members.probabilities), Some(all(|members| &members.logits)))
            }
        };
        let [members, samples, classes] = [0, 1, 2].map(|axis| probabilities.size()[axis] as usize);
        Predicted {
            kind: self.kind,
            shape: Shape { members, samples, classes },
            probabilities: host(&probabilities),
            logits: logits.map(|logits| host(&logits)),
            labels: images.labels().iter().map(|&label| i64::from(label)).collect(),
            ids: images.ids().iter().map(|&id| u64::from(id)).collect(),
            features: (0..images.len()).flat_map(|index| reals(images.example(index))).copied().collect(),
        }
    }
}

fn reals(example: Example<'_>) -> &[f32] {
    match example {
        Example::Reals(features) => features,
        Example::Bytes(_) => &[],
    }
}

fn host(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut values, tensor.numel());
    values
}
