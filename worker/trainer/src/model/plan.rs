//! What a method changes in a network: which layers get members, how rows meet them, which normalisation.

use common::spec::{BatchMode, LpBnnSettings, NormMode, TrainMethod};

use super::ModelError;

/// Momentum of batch normalisation: the weight of the newest batch's statistics.
const MOMENTUM: f64 = 0.1;

/// The authors' networks have this in the last normalisation, except in LP-BNN.
const LAST_MOMENTUM: f64 = 0.9;

/// Which layers get member-wise scales.
#[derive(Clone, Debug)]
pub(crate) enum Conversion {
    /// None.
    Ordinary,
    /// BatchEnsemble.
    BatchEnsemble { scale_std: f64, shortcuts: bool },
    /// Every layer, with decoded input-side vectors.
    LpBnn(LpBnnSettings),
}

/// A method, as the construction of a network needs it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: i64,
    pub(crate) batch: BatchMode,
    pub(crate) norm: NormMode,
    pub(crate) conversion: Conversion,
    /// Rate of the dropout in residual blocks; 0 for none.
    pub(crate) dropout: f64,
    pub(crate) momentum: f64,
    pub(crate) last_momentum: f64,
}

impl Plan {
    pub(crate) fn of(method: &TrainMethod) -> Result<Self, ModelError> {
        let single = Self {
            members: 1,
            batch: BatchMode::Repeat,
            norm: NormMode::Shared,
            conversion: Conversion::Ordinary,
            dropout: 0.0,
            momentum: MOMENTUM,
            last_momentum: LAST_MOMENTUM,
        };
        match method {
            TrainMethod::Deterministic => Ok(single),
            TrainMethod::Dropout { rate } => {
                if !(0.0..1.0).contains(rate) {
                    return Err(ModelError::DropoutRate(*rate));
                }
                Ok(Self { dropout: *rate, ..single })
            }
            TrainMethod::BatchEnsemble(settings) => Ok(Self {
                members: members(settings.members)?,
                batch: settings.batch,
                norm: settings.norm,
                conversion: Conversion::BatchEnsemble {
                    scale_std: deviation("scale-std", settings.scale_std)?,
                    shortcuts: settings.convert_shortcuts,
                },
                ..single
            }),
            TrainMethod::LpBnn(settings) => {
                check_latent(settings)?;
                Ok(Self {
                    members: members(settings.members)?,
                    batch: settings.batch,
                    norm: settings.norm,
                    conversion: Conversion::LpBnn(settings.clone()),
                    last_momentum: MOMENTUM,
                    ..single
                })
            }
        }
    }
}

fn members(count: u32) -> Result<i64, ModelError> {
    if count == 0 { Err(ModelError::Members) } else { Ok(i64::from(count)) }
}

fn deviation(setting: &'static str, value: f64) -> Result<f64, ModelError> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(ModelError::Negative { setting, value }) }
}

fn check_latent(settings: &LpBnnSettings) -> Result<(), ModelError> {
    if settings.latent == 0 {
        return Err(ModelError::LatentSize);
    }
    deviation("std-factor", settings.std_factor)?;
    deviation("code-std", settings.code_std)?;
    deviation("scale-std", settings.scale_std)?;
    deviation("kl-weight", settings.kl_weight)?;
    deviation("reconstruction-weight", settings.reconstruction_weight)?;
    Ok(())
}
