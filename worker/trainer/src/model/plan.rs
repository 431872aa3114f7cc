//! What a method changes in a network: which layers get members, how rows meet them, which normalisation, which head.

use common::spec::{
    BatchEnsembleSettings, BatchMode, DropoutPlace, DropoutSettings, DropoutUnit, DuqSettings,
    EvidenceActivation, EvidentialSettings, LpBnnSettings, MasksemblesSettings, MimoSettings, NormMode,
    PackedSettings, RankOneSettings, SngpSettings, TrainMethod,
};

use super::ModelError;
use super::style::Style;
use crate::uq::masksembles::MASK_SCALES;
use crate::uq::mimo::Mixing;
use crate::uq::spectral::Bound;

/// Momentum of batch normalisation: the weight of the newest batch's statistics.
const MOMENTUM: f64 = 0.1;

/// The authors' WideResNets have this in the last normalisation, except in LP-BNN; that of rank-1 BNN is not theirs.
const LAST_MOMENTUM: f64 = 0.9;

/// What becomes of the layers.
#[derive(Clone, Debug)]
pub(crate) enum Conversion {
    /// Nothing.
    Ordinary,
    BatchEnsemble(BatchEnsembleSettings),
    /// Every layer, with decoded vectors.
    LpBnn(LpBnnSettings),
    RankOne(RankOneSettings),
    Masksembles {
        scale: f64,
    },
    Packed(PackedSettings),
    /// Hidden layers have a bounded spectral norm.
    Spectral(Bound),
}

/// What stands on the features.
#[derive(Clone, Debug)]
pub(crate) enum HeadPlan {
    Linear,
    Evidential(EvidenceActivation),
    Duq(DuqSettings),
    GaussianProcess(SngpSettings),
}

/// Dropout of a network; a rate of 0 for none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DropoutPlan {
    pub(crate) rate: f64,
    pub(crate) place: DropoutPlace,
    pub(crate) unit: DropoutUnit,
}

/// Method and conventions of a model, as the construction of a network needs them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Predictions of a forward pass.
    pub(crate) members: i64,
    /// Rows of activations that an example has: as many as members, or 1 where the members share rows.
    pub(crate) rows: i64,
    /// Images that stand side by side in the channels of an input.
    pub(crate) images: i64,
    /// How a training batch becomes such inputs.
    pub(crate) mixing: Option<Mixing>,
    /// How often each image stands in a training batch, without mixing.
    pub(crate) repetitions: i64,
    pub(crate) batch: BatchMode,
    pub(crate) norm: NormMode,
    pub(crate) conversion: Conversion,
    pub(crate) head: HeadPlan,
    pub(crate) dropout: DropoutPlan,
    pub(crate) momentum: f64,
    pub(crate) last_momentum: f64,
    /// Of the model.
    pub(crate) style: Style,
}

impl Plan {
    pub(crate) fn of(method: &TrainMethod) -> Result<Self, ModelError> {
        match method {
            TrainMethod::Deterministic
            | TrainMethod::Tradi(_)
            | TrainMethod::Swag(_)
            | TrainMethod::Snapshots(_) => Ok(Self::single()),
            TrainMethod::Dropout(settings) => Self::dropout(settings),
            TrainMethod::BatchEnsemble(settings) => Self::batch_ensemble(settings),
            TrainMethod::LpBnn(settings) => Self::lp_bnn(settings),
            TrainMethod::RankOne(settings) => Self::rank_one(settings),
            TrainMethod::Mimo(settings) => Self::mimo(settings),
            TrainMethod::Packed(settings) => Self::packed(settings),
            TrainMethod::Masksembles(settings) => Self::masksembles(settings),
            TrainMethod::Evidential(settings) => Self::evidential(settings),
            TrainMethod::Duq(settings) => Self::duq(settings),
            TrainMethod::Sngp(settings) => Self::sngp(settings),
        }
    }

    fn single() -> Self {
        Self {
            members: 1,
            rows: 1,
            images: 1,
            mixing: None,
            repetitions: 1,
            batch: BatchMode::Repeat,
            norm: NormMode::Shared,
            conversion: Conversion::Ordinary,
            head: HeadPlan::Linear,
            dropout: DropoutPlan { rate: 0.0, place: DropoutPlace::Residual, unit: DropoutUnit::Element },
            momentum: MOMENTUM,
            last_momentum: LAST_MOMENTUM,
            style: Style::PyTorch,
        }
    }

    fn dropout(settings: &DropoutSettings) -> Result<Self, ModelError> {
        let &DropoutSettings { rate, place, unit, repetitions } = settings;
        if !(0.0..1.0).contains(&rate) {
            return Err(ModelError::DropoutRate(rate));
        }
        let repetitions = i64::from(repetitions.max(1));
        Ok(Self { dropout: DropoutPlan { rate, place, unit }, repetitions, ..Self::single() })
    }

    /// Members with rows of their own.
    fn ensemble(
        count: u32,
        batch: BatchMode,
        norm: NormMode,
        conversion: Conversion,
    ) -> Result<Self, ModelError> {
        let members = members(count)?;
        Ok(Self { members, rows: members, batch, norm, conversion, ..Self::single() })
    }

    fn batch_ensemble(settings: &BatchEnsembleSettings) -> Result<Self, ModelError> {
        non_negative("scale-std", settings.scale_std)?;
        let conversion = Conversion::BatchEnsemble(settings.clone());
        Self::ensemble(settings.members, settings.batch, settings.norm, conversion)
    }

    fn lp_bnn(settings: &LpBnnSettings) -> Result<Self, ModelError> {
        check_latent(settings)?;
        let conversion = Conversion::LpBnn(settings.clone());
        let plan = Self::ensemble(settings.members, settings.batch, settings.norm, conversion)?;
        Ok(Self { last_momentum: MOMENTUM, ..plan })
    }

    fn rank_one(settings: &RankOneSettings) -> Result<Self, ModelError> {
        check_rank_one(settings)?;
        let conversion = Conversion::RankOne(settings.clone());
        let plan = Self::ensemble(settings.members, settings.batch, settings.norm, conversion)?;
        Ok(Self { last_momentum: MOMENTUM, ..plan })
    }

    fn masksembles(settings: &MasksemblesSettings) -> Result<Self, ModelError> {
        if !MASK_SCALES.contains(&settings.scale) {
            return Err(ModelError::MaskScale(settings.scale));
        }
        let conversion = Conversion::Masksembles { scale: settings.scale };
        Self::ensemble(settings.members, settings.batch, NormMode::Shared, conversion)
    }

    fn mimo(settings: &MimoSettings) -> Result<Self, ModelError> {
        let members = members(settings.members)?;
        let mixing = Mixing::new(settings)?;
        Ok(Self { members, images: members, mixing: Some(mixing), ..Self::single() })
    }

    fn packed(settings: &PackedSettings) -> Result<Self, ModelError> {
        let members = members(settings.members)?;
        if settings.alpha == 0 || settings.gamma == 0 {
            return Err(ModelError::Packing);
        }
        Ok(Self { members, conversion: Conversion::Packed(settings.clone()), ..Self::single() })
    }

    fn evidential(settings: &EvidentialSettings) -> Result<Self, ModelError> {
        non_negative("annealing-epochs", settings.annealing_epochs)?;
        Ok(Self { head: HeadPlan::Evidential(settings.activation), ..Self::single() })
    }

    fn duq(settings: &DuqSettings) -> Result<Self, ModelError> {
        positive("length-scale", settings.length_scale)?;
        non_negative("gradient-penalty", settings.gradient_penalty)?;
        if settings.embedding == Some(0) {
            return Err(ModelError::NotPositive { setting: "embedding", value: 0.0 });
        }
        if !(0.0..1.0).contains(&settings.centroid_momentum) {
            return Err(ModelError::Momentum(settings.centroid_momentum));
        }
        Ok(Self { head: HeadPlan::Duq(settings.clone()), ..Self::single() })
    }

    fn sngp(settings: &SngpSettings) -> Result<Self, ModelError> {
        positive("spectral-bound", settings.spectral_bound)?;
        positive("length-scale", settings.length_scale)?;
        positive("ridge", settings.ridge)?;
        non_negative("mean-field-factor", settings.mean_field_factor)?;
        for (setting, count) in
            [("features", settings.features), ("power-iterations", settings.power_iterations)]
        {
            positive(setting, f64::from(count))?;
        }
        let bound = Bound { norm: settings.spectral_bound, iterations: settings.power_iterations };
        let head = HeadPlan::GaussianProcess(settings.clone());
        Ok(Self { conversion: Conversion::Spectral(bound), head, ..Self::single() })
    }
}

fn members(count: u32) -> Result<i64, ModelError> {
    if count == 0 { Err(ModelError::Members) } else { Ok(i64::from(count)) }
}

fn non_negative(setting: &'static str, value: f64) -> Result<f64, ModelError> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(ModelError::Negative { setting, value }) }
}

fn positive(setting: &'static str, value: f64) -> Result<f64, ModelError> {
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(ModelError::NotPositive { setting, value }) }
}

fn check_latent(settings: &LpBnnSettings) -> Result<(), ModelError> {
    if settings.latent == 0 {
        return Err(ModelError::LatentSize);
    }
    non_negative("std-factor", settings.std_factor)?;
    non_negative("code-std", settings.code_std)?;
    non_negative("scale-std", settings.scale_std)?;
    non_negative("kl-weight", settings.kl_weight)?;
    non_negative("reconstruction-weight", settings.reconstruction_weight)?;
    Ok(())
}

fn check_rank_one(settings: &RankOneSettings) -> Result<(), ModelError> {
    non_negative("kl-weight", settings.kl_weight)?;
    non_negative("kl-annealing", settings.kl_annealing)?;
    if non_negative("prior-std", settings.prior_std)? == 0.0 {
        return Err(ModelError::PriorStd);
    }
    if !(0.0..1.0).contains(&settings.initial_dropout_rate) {
        return Err(ModelError::DropoutRate(settings.initial_dropout_rate));
    }
    Ok(())
}
