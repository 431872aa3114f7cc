//! Evidential networks, DUQ and SNGP against PyTorch: files of `make_golden_evidential.py`, `make_golden_duq.py` and
//! `make_golden_sngp.py`.

use common::spec::{
    DuqSettings, EvidenceActivation, EvidentialLoss, EvidentialSettings, SngpSettings, TrainMethod,
};

use super::super::{Epoch, Forward, Seen};
use super::*;
use crate::group::Group;
use crate::uq::{duq, evidential};

impl Case {
    fn of(name: &str, method: &TrainMethod) -> Self {
        Self::new(name, method, [6, 1, 8, 8], Kind::Double)
    }

    fn tensor(&self, name: &str) -> Tensor {
        let mut tensors = self.network.named_tensors().into_iter();
        tensors.find(|named| named.name == name).unwrap().tensor
    }

    fn set(&self, name: &str, values: &Tensor) {
        no_grad(|| self.tensor(name).copy_(values));
    }

    fn forward(&self, images: &Tensor) -> Forward {
        let forward = self.network.forward(images, Mode::Train);
        self.golden.assert_close("train.logits", &forward.logits, TOLERANCE);
        forward
    }

    fn after_step(&self, forward: &Forward) {
        let Self { images, labels: targets, .. } = self;
        let seen = Seen { images, targets, features: &forward.features, epoch: Epoch::Last };
        self.network.after_step(&seen, &Group::alone()).unwrap();
    }
}

#[test]
fn evidential_losses_match_pytorch() {
    let golden = Golden::load("evidential_losses");
    let labels = Tensor::arange(7, (Kind::Int64, device())).remainder(5);
    let scale = Tensor::arange_start(1, 8, (Kind::Double, device())).unsqueeze(1);
    for (activation, word) in [
        (EvidenceActivation::Relu, "relu"),
        (EvidenceActivation::Softplus, "softplus"),
        (EvidenceActivation::Exp, "exp"),
    ] {
        for (loss, name) in [
            (EvidentialLoss::SquaredError, "squared-error"),
            (EvidentialLoss::Log, "log"),
            (EvidentialLoss::Digamma, "digamma"),
        ] {
            let outputs = (fill("outputs", &[7, 5]) * &scale).set_requires_grad(true);
            let logits = evidential::log_concentration(&outputs, activation);
            let (data, kl) = evidential::terms(&logits, &labels, loss);
            (&data + &kl * 0.3).backward();
            let key = format!("{name}.{word}");
            golden.assert_close(&format!("{key}.terms"), &Tensor::stack(&[data, kl], 0), TOLERANCE);
            golden.assert_close(&format!("{key}.gradient"), &outputs.grad(), TOLERANCE);
        }
    }
}

#[test]
fn an_evidential_network_matches_pytorch() {
    let settings =
        EvidentialSettings { activation: EvidenceActivation::Softplus, ..EvidentialSettings::default() };
    let case = Case::of("wrn_evidential", &TrainMethod::Evidential(settings));
    let forward = case.forward(&case.images);
    let (data, kl) = evidential::terms(&forward.logits, &case.labels, EvidentialLoss::SquaredError);
    case.assert_step(&(data + kl * 0.3));
    case.assert_evaluation();
}

#[test]
fn duq_matches_pytorch_in_loss_penalty_gradients_and_centroids() {
    let settings = DuqSettings {
        embedding: Some(7),
        length_scale: 1.0,
        centroid_momentum: 0.9,
        ..DuqSettings::default()
    };
    let case = Case::of("wrn_duq", &TrainMethod::Duq(settings));
    case.set("duq.sums", &(10.0 * fill("duq.sums", &[7, 5])));
    case.set("duq.counts", &(10.0 + fill("duq.counts", &[5])));
    let images = case.images.copy().set_requires_grad(true);
    let forward = case.forward(&images);
    let data = duq::binary_cross_entropy(&forward.logits, &case.labels);
    let penalty = duq::gradient_penalty(&images, &forward.logits);
    case.golden.assert_close("terms", &Tensor::stack(&[&data, &penalty], 0), TOLERANCE);
    case.assert_step(&(data + penalty * 0.5));
    case.after_step(&forward);
    case.golden.assert_close("sums", &case.tensor("duq.sums"), TOLERANCE);
    case.golden.assert_close("counts", &case.tensor("duq.counts"), TOLERANCE);
    case.assert_evaluation();
}

#[test]
fn sngp_matches_pytorch_in_norms_features_precision_and_mean_field() {
    let settings = SngpSettings {
        spectral_bound: 1.5,
        features: 20,
        length_scale: 2.0,
        ridge: 1.5,
        ..SngpSettings::default()
    };
    let case = Case::of("wrn_sngp", &TrainMethod::Sngp(settings));
    let _ = no_grad(|| case.tensor("gp.precision").zero_());
    let forward = case.forward(&case.images);
    let loss = forward.logits.cross_entropy_loss::<&Tensor>(&case.labels, None, Reduction::Mean, -100, 0.0);
    case.assert_step(&loss);
    case.after_step(&forward);
    case.golden.assert_close("precision", &case.tensor("gp.precision"), TOLERANCE);
    let vectors = || -> BTreeMap<String, Tensor> {
        let tensors = case.network.named_tensors().into_iter();
        let vectors = tensors.filter(|named| named.name.ends_with(".u"));
        vectors.map(|named| (named.name, named.tensor.copy())).collect()
    };
    case.golden.assert_table("state", &vectors());
    let before = vectors();
    case.assert_evaluation();
    // An evaluation leaves no trace: what it computes does not depend on how many came before.
    assert_eq!(before, vectors());
    case.assert_evaluation();
}
