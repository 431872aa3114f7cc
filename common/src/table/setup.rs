//! What a cell computes, as far as a published figure has to agree with it.

use serde::{Deserialize, Serialize};

use crate::spec::{EvaluateSpec, Precision, Predictor, SnapshotPlace, TrainMethod};

/// Data set, network, method and recipe of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Data set.
    pub data: String,
    /// Whether it is the whole official data set: no class held out, no limit, no subset.
    pub extent: Extent,
    /// Network.
    pub model: String,
    /// Kind of method, as in a grid file.
    pub method: String,
    /// Networks of an ensemble; 1 for all other methods.
    pub networks: usize,
    /// Members that a prediction averages beyond its networks: of one network, or dropout samples; `None` for one.
    pub members: Option<u64>,
    /// Out-of-distribution sets.
    pub ood: Vec<String>,
    /// Training in one line.
    pub recipe: String,
}

/// How much of the official data set is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// All of it.
    Whole,
    /// Less of it, or fewer classes.
    Part,
}

impl Setup {
    /// Reads it off a specification; `None` for one without networks.
    pub fn of(spec: &EvaluateSpec) -> Option<Self> {
        let train = spec.networks.first()?;
        let data = &train.data;
        let whole = data.held_out.is_empty()
            && data.train_limit.is_none()
            && data.test_limit.is_none()
            && !data.allow_subset;
        let networks = spec.networks.len();
        let kind = kind(&train.method);
        let (method, members) = match &spec.predictor {
            Predictor::McDropout { samples } => ("mc-dropout".to_owned(), Some(u64::from(*samples))),
            Predictor::LastLayerLaplace(_) => ("laplace".to_owned(), None),
            Predictor::Tradi { samples, .. } | Predictor::Swag { samples, .. } => {
                (kind.to_owned(), Some(u64::from(*samples)))
            }
            Predictor::Snapshots { count } => (kind.to_owned(), Some(u64::from(*count))),
            Predictor::Direct { .. } if networks > 1 && train.method == TrainMethod::Deterministic => {
                ("deep-ensemble".to_owned(), None)
            }
            Predictor::Direct { .. } if networks > 1 => (format!("ensemble of {kind}"), None),
            Predictor::Direct { .. } => {
                let members = u64::from(train.method.members());
                (kind.to_owned(), (members > 1).then_some(members))
            }
        };
        Some(Self {
            data: data.set.to_string(),
            extent: if whole { Extent::Whole } else { Extent::Part },
            model: train.model.to_string(),
            method,
            networks,
            members,
            ood: spec.ood.iter().map(ToString::to_string).collect(),
            recipe: recipe(train),
        })
    }
}

/// As in a grid file.
fn kind(method: &TrainMethod) -> &'static str {
    match method {
        TrainMethod::Deterministic => "deterministic",
        TrainMethod::Dropout(_) => "dropout",
        TrainMethod::BatchEnsemble(_) => "batch-ensemble",
        TrainMethod::LpBnn(_) => "lp-bnn",
        TrainMethod::RankOne(_) => "rank-1-bnn",
        TrainMethod::Mimo(_) => "mimo",
        TrainMethod::Packed(_) => "packed-ensemble",
        TrainMethod::Masksembles(_) => "masksembles",
        TrainMethod::Evidential(_) => "evidential",
        TrainMethod::Duq(_) => "duq",
        TrainMethod::Sngp(_) => "sngp",
        TrainMethod::Tradi(_) => "tradi",
        TrainMethod::Swag(_) => "swag",
        TrainMethod::Snapshots(settings) => match settings.place {
            SnapshotPlace::CycleEnds => "snapshot-ensemble",
            SnapshotPlace::LastEpochs => "checkpoint-ensemble",
        },
    }
}

/// `15 epochs, batch 32, lr 0.1, crop and flip`, and the precision where it is not single.
fn recipe(train: &crate::spec::TrainSpec) -> String {
    let recipe = &train.recipe;
    let names: Vec<String> = recipe
        .augmentation
        .iter()
        .map(|change| {
            serde_json::to_value(change).unwrap_or_default()["kind"].as_str().unwrap_or_default().to_owned()
        })
        .collect();
    let augmentation = if names.is_empty() { "no augmentation".to_owned() } else { names.join(" and ") };
    let precision = match recipe.precision {
        Precision::Fp32 => String::new(),
        other => format!(", {}", other.name()),
    };
    format!(
        "{} epochs, batch {}, lr {}, {augmentation}{precision}",
        recipe.epochs, recipe.batch_size, recipe.lr
    )
}
