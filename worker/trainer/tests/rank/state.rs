//! State that a step leaves beside the weights, and what two ranks make of it.
//!
//! One step of two ranks is computed again in one process, half batch by half batch.

use common::spec::{DuqSettings, TrainMethod, TrainSpec, TrialSpec};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};
use trainer::data;
use trainer::model::{Forward, Mode, Network, Role};

use crate::support::{launch, run_gang, sngp, train_spec};

/// A trial of two ranks and one step, of 16 images each.
fn one_step(method: TrainMethod) -> TrainSpec {
    let mut spec = train_spec(method);
    spec.world_size = 2;
    spec.data.train_limit = Some(32);
    spec.recipe.epochs = 1;
    spec.recipe.clip_norm = None;
    spec.recipe.momentum = 0.0;
    spec.recipe.nesterov = false;
    spec.recipe.weight_decay = 0.0;
    spec
}

/// What a rank computes before its gradients meet those of the other.
struct Half {
    network: Network,
    images: Tensor,
    labels: Tensor,
    forward: Forward,
}

impl Half {
    fn tensor(&self, name: &str) -> Tensor {
        let mut tensors = self.network.named_tensors().into_iter();
        tensors.find(|named| named.name == name).unwrap().tensor.detach()
    }
}

fn halves(spec: &TrainSpec) -> Vec<Half> {
    let classes = i64::from(spec.data.classes());
    let batcher = data::training(spec, std::path::Path::new("none")).unwrap();
    let order = datasets::epoch_order(spec.seed, 0, 32);
    let half = |ids: &[u32]| {
        let network =
            Network::new(&spec.model, &spec.method, [1, 8, 8], classes, spec.seed, Device::Cpu).unwrap();
        let mut batch = datasets::Batch::default();
        batcher.fill(ids, 0, &mut batch);
        let (images, labels) =
            data::tensors(&batch, batcher.shape(), common::spec::Task::Classification, Device::Cpu);
        let images = images.set_requires_grad(true);
        let forward = network.forward(&images, Mode::Train);
        Half { network, images, labels, forward }
    };
    order.chunks(16).map(half).collect()
}

/// What the trial left, by name.
struct Stored(Vec<u8>);

impl Stored {
    /// Trains with both ranks, which compare their weights and their state before they are done.
    fn of(spec: &TrainSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ended = run_gang(&launch(TrialSpec::Train(spec.clone()), folder.path()));
        assert!(ended[1].status.success(), "{}", ended[1].stderr);
        Self(std::fs::read(ended[0].final_checkpoint()).unwrap())
    }

    fn tensor(&self, name: &str, like: &Tensor) -> Tensor {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(&format!("model/{name}")).unwrap();
        Tensor::from_data_size(view.data(), &like.size(), like.kind())
    }

    fn assert_close(&self, name: &str, expected: &Tensor, tolerance: f64) {
        let difference = (self.tensor(name, expected) - expected).abs().max().double_value(&[]);
        assert!(difference < tolerance, "{name}: {difference}");
    }
}

/// Weights after the step of the mean of the halves' gradients.
fn assert_mean_step(spec: &TrainSpec, stored: &Stored, halves: &[Half]) {
    let _no_grad = tch::no_grad_guard();
    for named in halves[0].network.named_tensors() {
        let Role::Weight { .. } = named.role else { continue };
        let gradient = |half: &Half| {
            let tensors = half.network.named_tensors();
            tensors.into_iter().find(|other| other.name == named.name).unwrap().tensor.grad()
        };
        let mean = (gradient(&halves[0]) + gradient(&halves[1])) / 2.0;
        // Sums in another order: a few units in the last place, which the gradient of a gradient amplifies.
        stored.assert_close(&named.name, &(&named.tensor - mean * spec.recipe.lr), 2e-5);
    }
}

#[test]
fn two_ranks_of_duq_make_the_step_of_the_mean_gradient_and_share_centroids() {
    let spec = one_step(TrainMethod::Duq(DuqSettings::default()));
    let stored = Stored::of(&spec);
    let halves = halves(&spec);
    let mut counts = 0.999 * halves[0].tensor("duq.counts");
    for half in &halves {
        let y = half.labels.one_hot(8).to_kind(Kind::Float);
        let k = half.forward.logits.exp();
        let loss = k.binary_cross_entropy::<&Tensor>(&y, None, tch::Reduction::Mean);
        let gradients = Tensor::run_backward(&[k.sum(Kind::Float)], &[&half.images], true, true);
        let norms =
            gradients[0].flatten(1, -1).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let penalty: Tensor = (norms.sqrt() - 1.0).square();
        (loss + penalty.mean(Kind::Float) * 0.5).backward();
        counts += 0.001 * y.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    }
    stored.assert_close("duq.counts", &counts, 1e-5);
    let before = halves[0].tensor("duq.sums");
    assert_ne!(stored.tensor("duq.sums", &before), before);
    assert_mean_step(&spec, &stored, &halves);
}

#[test]
fn two_ranks_of_sngp_share_singular_vectors_and_add_up_the_images_of_both() {
    let spec = one_step(sngp());
    let stored = Stored::of(&spec);
    let halves = halves(&spec);
    let mut precision = Tensor::zeros([96, 96], (Kind::Double, Device::Cpu));
    for half in &halves {
        half.forward.logits.cross_entropy_for_logits(&half.labels).backward();
        let features = half.forward.features.detach() / 5.0;
        let phi = features.linear(&half.tensor("gp.frequencies"), Some(&half.tensor("gp.phases"))).cos();
        let phi = phi.to_kind(Kind::Double);
        precision += phi.tr().matmul(&phi);
    }
    stored.assert_close("gp.precision", &precision, 1e-4);
    let vectors: Vec<_> = halves[0].network.named_tensors();
    let vectors: Vec<_> = vectors.iter().filter(|named| named.name.ends_with(".u")).collect();
    assert_eq!(vectors.len(), 9, "the stem, six convolutions and two shortcuts");
    for named in vectors {
        assert_eq!(named.role, Role::State);
        stored.assert_close(&named.name, &named.tensor, 1e-6);
    }
    assert_mean_step(&spec, &stored, &halves);
}
