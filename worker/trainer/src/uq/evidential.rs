//! Evidential deep learning: the outputs of a network are evidence for a Dirichlet distribution over the classes.
//!
//! With evidence e ≥ 0 the distribution is Dir(α), α = e + 1, of strength S = Σ α. The network's logits are **ln α**:
//! their softmax is the mean α / S, and their log-sum-exp is ln S, so that the energy of the logits is the method's own
//! certainty (its uncertainty K / S is exp(ln K − ln S)).
//!
//! Source: Sensoy, Kaplan, Kandemir, *Evidential deep learning to quantify classification uncertainty*, NeurIPS 2018,
//! equations 3 to 5; `docs/methods/evidential.md` for the other programs.

use common::spec::{EvidenceActivation, EvidentialLoss, EvidentialSettings};
use tch::{Kind, Tensor};

/// Outputs are limited to ± this before the exponential.
const EXP_LIMIT: f64 = 10.0;

/// ln α of the outputs of a last layer.
pub(crate) fn log_concentration(outputs: &Tensor, activation: EvidenceActivation) -> Tensor {
    let evidence = match activation {
        EvidenceActivation::Relu => outputs.relu(),
        EvidenceActivation::Softplus => outputs.softplus(),
        EvidenceActivation::Exp => outputs.clamp(-EXP_LIMIT, EXP_LIMIT).exp(),
    };
    evidence.log1p()
}

/// Weight of the KL term in the epoch that begins after `epochs` of training: min(1, t / A), with whole epochs t
/// counted from 0. So the first epoch has no KL term.
pub(crate) fn annealing(settings: &EvidentialSettings, epochs: f64) -> f64 {
    if settings.annealing_epochs > 0.0 { (epochs.floor() / settings.annealing_epochs).min(1.0) } else { 1.0 }
}

/// Loss of the labels and KL(Dir(α̃) ‖ Dir(1)), α̃ = y + (1 − y) α, both means over the rows and unweighted.
///
/// Computed in double precision: the KL term is a difference of log-gammas that are far greater than itself.
///
/// Shapes: `logits` (ln α) `[B, K]`, `targets` `[B]`.
pub(crate) fn terms(logits: &Tensor, targets: &Tensor, loss: EvidentialLoss) -> (Tensor, Tensor) {
    let kind = logits.kind();
    let alpha = logits.to_kind(Kind::Double).exp();
    let classes = alpha.size()[1];
    let y = targets.one_hot(classes).to_kind(Kind::Double);
    let data = data_term(&alpha, &y, loss);
    let wrong = &y + (1.0 - &y) * &alpha;
    let kl = divergence_from_uniform(&wrong);
    (mean(&data, kind), mean(&kl, kind))
}

fn mean(rows: &Tensor, kind: Kind) -> Tensor {
    rows.mean(Kind::Double).to_kind(kind)
}

fn sum(rows: &Tensor) -> Tensor {
    rows.sum_dim_intlist([-1i64].as_slice(), true, Kind::Double)
}

/// Shapes: `alpha` and `y` are `[B, K]`; returns `[B, 1]`.
fn data_term(alpha: &Tensor, y: &Tensor, loss: EvidentialLoss) -> Tensor {
    let strength = sum(alpha);
    match loss {
        EvidentialLoss::SquaredError => {
            let mean = alpha / &strength;
            let error = (y - &mean).square();
            let variance = &mean * (1.0 - &mean) / (strength + 1.0);
            sum(&(error + variance))
        }
        EvidentialLoss::Log => sum(&(y * (strength.log() - alpha.log()))),
        EvidentialLoss::Digamma => sum(&(y * (strength.digamma() - alpha.digamma()))),
    }
}

/// KL(Dir(α) ‖ Dir(1)).
///
/// Shapes: `alpha` is `[B, K]`; returns `[B, 1]`.
fn divergence_from_uniform(alpha: &Tensor) -> Tensor {
    let classes = alpha.size()[1];
    let strength = sum(alpha);
    let uniform: f64 = (1..classes).map(|count| (count as f64).ln()).sum();
    strength.lgamma() - sum(&alpha.lgamma()) - uniform
        + sum(&((alpha - 1.0) * (alpha.digamma() - strength.digamma())))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn value(tensor: &Tensor) -> f64 {
        tensor.double_value(&[])
    }

    #[test]
    fn the_softmax_of_the_logits_is_the_mean_and_their_energy_the_strength() {
        let outputs = Tensor::from_slice(&[-3.0f64, 0.0, 0.5, 20.0]).view([1, 4]);
        let evidence = |activation| match activation {
            EvidenceActivation::Relu => vec![0.0, 0.0, 0.5, 20.0],
            EvidenceActivation::Softplus => [-3.0f64, 0.0, 0.5, 20.0].map(|x| x.exp().ln_1p()).to_vec(),
            EvidenceActivation::Exp => [-3.0f64, 0.0, 0.5, 10.0].map(f64::exp).to_vec(),
        };
        for activation in [EvidenceActivation::Relu, EvidenceActivation::Softplus, EvidenceActivation::Exp] {
            let logits = log_concentration(&outputs, activation);
            let alpha: Vec<f64> = evidence(activation).iter().map(|evidence| evidence + 1.0).collect();
            let strength: f64 = alpha.iter().sum();
            let probabilities = Vec::<f64>::try_from(logits.softmax(-1, Kind::Double).view(-1)).unwrap();
            for (found, alpha) in probabilities.iter().zip(&alpha) {
                assert!((found - alpha / strength).abs() < 1e-12, "{activation:?}");
            }
            let energy = logits.logsumexp([-1i64].as_slice(), false);
            assert!((energy.double_value(&[0]) - strength.ln()).abs() < 1e-12, "{activation:?}");
        }
    }

    #[test]
    fn without_evidence_for_wrong_classes_the_divergence_is_zero() {
        let labels = Tensor::from_slice(&[2i64]);
        for evidence in [0.0f64, 1.0, 1e4] {
            let logits = Tensor::from_slice(&[0.0, 0.0, evidence.ln_1p(), 0.0]).view([1, 4]);
            let (_, kl) = terms(&logits, &labels, EvidentialLoss::Log);
            assert!(value(&kl).abs() < 1e-12, "{evidence}");
        }
        let logits = Tensor::from_slice(&[0.1f64, 0.0, 3.0, 0.0]).view([1, 4]);
        assert!(value(&terms(&logits, &labels, EvidentialLoss::Log).1) > 1e-3);
    }

    #[test]
    fn losses_of_no_evidence_have_their_closed_forms() {
        let logits = Tensor::zeros([3, 5], (Kind::Float, Device::Cpu));
        let labels = Tensor::from_slice(&[0i64, 4, 2]);
        let loss = |loss| value(&terms(&logits, &labels, loss).0);
        // p = 1/5 everywhere, S = 5.
        let squared = 0.8 * 0.8 + 4.0 * 0.2 * 0.2 + 5.0 * 0.2 * 0.8 / 6.0;
        assert!((loss(EvidentialLoss::SquaredError) - squared).abs() < 1e-6);
        assert!((loss(EvidentialLoss::Log) - 5f64.ln()).abs() < 1e-6);
        // ψ(5) − ψ(1) is the fourth harmonic number.
        assert!((loss(EvidentialLoss::Digamma) - (1.0 + 0.5 + 1.0 / 3.0 + 0.25)).abs() < 1e-6);
    }

    #[test]
    fn the_weight_of_the_divergence_steps_up_with_each_epoch_from_zero() {
        let settings = EvidentialSettings::default();
        for (epochs, expected) in [(0.0, 0.0), (0.9, 0.0), (1.0, 0.1), (9.5, 0.9), (10.0, 1.0), (99.0, 1.0)] {
            assert_eq!(annealing(&settings, epochs), expected, "{epochs}");
        }
        assert_eq!(annealing(&EvidentialSettings { annealing_epochs: 0.0, ..settings }, 0.0), 1.0);
    }
}
