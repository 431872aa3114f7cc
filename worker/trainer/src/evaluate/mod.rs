//! An evaluate trial: predictions of trained networks on the test images and on out-of-distribution
//! images, stored and scored.
//!
//! Decides what is predicted and with which draws. What the scores mean is the business of the crate
//! `metrics`; it is given the very numbers that are stored, so anyone can compute them again.

mod artifact;
mod held_out;
mod posterior;
mod predict;
mod regression;
mod scores;
mod sets;
mod training;
mod variants;

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::beacon::Phase;
use common::report::{Launch, Report};
use common::spec::{
    Corruption, DataSpec, EVALUATION_NUMERICS, EvaluateSpec, NUMERICS, Predictor, Task, TrainSpec,
};
use common::table::PEAK_DEVICE_BYTES;
use datasets::Batcher;
use tch::Device;

pub use artifact::PREDICTIONS;
pub use held_out::HeldOut;
pub use posterior::POSTERIOR;

use crate::agent::Agent;
use crate::checkpoint::{self, Checkpoint};
use crate::data::{self, ShiftedTests};
use crate::device;
use crate::error::TrainerError;
use crate::model::Network;
use crate::storage::HostTensor;
use crate::train::Progress;
use predict::{Pass, Recorder};
use regression::Gaussians;
use sets::{ImageSet, Predicted, SetKind};
use training::TrainingImages;
use variants::{Origin, Variants};

/// Bytes of corrupted images that are held at once. Networks are rebuilt for each lot of them.
const LOT_BYTES: usize = 1 << 30;

/// Predicts and scores what `spec` asks for.
///
/// # Errors
///
/// [`TrainerError`] when the specification, the data or a network's checkpoint stops it.
pub fn run(launch: &Launch, spec: &EvaluateSpec, agent: &Agent, device: Device) -> Result<(), TrainerError> {
    let first = check(launch, spec)?;
    device::configure(launch, device, None)?;
    let mut evaluation = Evaluation::new(launch, spec, first, device)?;
    let unshifted = evaluation.unshifted_sets()?;
    let shift = Shift::open(launch, spec, &first.data)?;
    let total = evaluation.passes(&unshifted, shift.as_ref());
    let progress = Progress::new(agent.reporter.clone(), total, 0);
    let mut recorder = Recorder::new(progress, Rc::clone(&agent.beacon));

    let mut sets = evaluation.predict(unshifted, &mut recorder)?;
    for lot in shift.iter().flat_map(Shift::lots) {
        let shifted = recorder.during(Phase::Loading, || evaluation.shifted_sets(&lot))?;
        sets.extend(evaluation.predict(shifted, &mut recorder)?);
    }

    agent.beacon.enter(Phase::Finishing, total);
    let Evaluation { costs, seconds, posteriors, .. } = evaluation;
    let path = artifact::write(&launch.work_dir, launch, spec, &sets, costs.weight_cosine)?;
    agent.reporter.send(&Report::Artifact { name: PREDICTIONS.to_owned(), path });
    if !posteriors.is_empty() {
        let path = posterior::write(&launch.work_dir, launch, &posteriors)?;
        agent.reporter.send(&Report::Artifact { name: POSTERIOR.to_owned(), path });
    }

    let mut metrics = match data::task(spec) {
        Task::Classification => scores::of(&sets, costs.weight_cosine)?,
        Task::Regression => {
            let sets: Vec<_> = sets.iter().map(|set| Gaussians::of(set, &first.data)).collect();
            regression::scores(&sets)?
        }
    };
    metrics.extend([
        ("parameters".to_owned(), costs.parameters as f64),
        ("members".to_owned(), sets[0].shape.members as f64),
        ("train_seconds".to_owned(), costs.train_seconds),
        ("evaluate_seconds".to_owned(), seconds.as_secs_f64()),
    ]);
    metrics.extend(costs.peak_device_bytes.map(|bytes| (PEAK_DEVICE_BYTES.to_owned(), bytes as f64)));
    tracing::info!(seconds = seconds.as_secs_f64(), "evaluation done");
    agent.reporter.send(&Report::Done { metrics });
    Ok(())
}

/// What is known of the networks once all were loaded.
#[derive(Clone, Copy, Default)]
struct Costs {
    parameters: i64,
    train_seconds: f64,
    /// Of the network that needed most.
    peak_device_bytes: Option<u64>,
    /// Mean over the networks that have member-wise weights.
    weight_cosine: Option<f64>,
}

struct Evaluation<'a> {
    launch: &'a Launch,
    spec: &'a EvaluateSpec,
    data: &'a DataSpec,
    device: Device,
    /// Of predictors that pass over them.
    training_images: Option<TrainingImages>,
    costs: Costs,
    /// Posteriors over members' vectors, of networks that have one.
    posteriors: Vec<HostTensor>,
    /// Time of predicting.
    seconds: Duration,
    /// Sets made so far.
    sets: u64,
}

impl<'a> Evaluation<'a> {
    fn new(
        launch: &'a Launch,
        spec: &'a EvaluateSpec,
        first: &'a TrainSpec,
        device: Device,
    ) -> Result<Self, TrainerError> {
        let load = || TrainingImages::load(first, spec.seed, &launch.data_dir, device);
        Ok(Self {
            launch,
            spec,
            data: &first.data,
            device,
            training_images: (training::passes(&spec.predictor) > 0).then(load).transpose()?,
            costs: Costs::default(),
            posteriors: Vec::new(),
            seconds: Duration::ZERO,
            sets: 0,
        })
    }

    fn pass(&self) -> Pass<'a> {
        pass_of(self.spec)
    }

    fn set(&mut self, kind: SetKind, batcher: Batcher) -> ImageSet {
        self.sets += 1;
        ImageSet::new(kind, self.sets - 1, batcher, self.device)
    }

    /// The test set, then the out-of-distribution sets in the order of the specification, then what a temperature is
    /// fitted to.
    fn unshifted_sets(&mut self) -> Result<Vec<ImageSet>, TrainerError> {
        let folder = &self.launch.data_dir;
        let mut sets = vec![self.set(SetKind::Test, data::test(self.data, folder)?)];
        for &source in &self.spec.ood {
            let images = data::out_of_distribution(self.data, source, folder)?;
            sets.push(self.set(SetKind::OutOfDistribution(source.to_string()), images));
        }
        if let Some(images) = data::held_out_validation(self.data, folder)? {
            sets.push(self.set(SetKind::HeldOut, images));
        }
        Ok(sets)
    }

    fn shifted_sets(&mut self, lot: &Lot<'_>) -> Result<Vec<ImageSet>, TrainerError> {
        let mut sets = Vec::new();
        for &(corruption, severity) in lot.pairs {
            let batcher = lot.tests.batcher(corruption, severity)?;
            sets.push(self.set(SetKind::Shifted { corruption: corruption.to_string(), severity }, batcher));
        }
        Ok(sets)
    }

    /// Batches that will pass through the networks, by which progress is counted.
    fn passes(&self, sets: &[ImageSet], shift: Option<&Shift>) -> u64 {
        let pass = self.pass();
        let unshifted: u64 = sets.iter().map(|set| pass.batches(set.len())).sum();
        let shifted = shift.map_or(0, |shift| pass.batches(shift.len) * shift.pairs.len() as u64);
        let lots = 1 + shift.map_or(0, |shift| shift.lots().count() as u64);
        let preparation = self.training_images.as_ref().map_or(0, TrainingImages::batches)
            * training::passes(&self.spec.predictor)
            * lots;
        let predictions = (unshifted + shifted) * pass.draws() * Variants::count(&self.spec.predictor);
        (predictions + preparation) * self.spec.networks.len() as u64
    }

    /// Predicts `sets` with every network.
    fn predict(
        &mut self,
        mut sets: Vec<ImageSet>,
        recorder: &mut Recorder,
    ) -> Result<Vec<Predicted>, TrainerError> {
        let pass = self.pass();
        let variants = Variants::count(&self.spec.predictor);
        let mut costs = Costs::default();
        let mut cosines = Vec::new();
        self.posteriors.clear();
        for (index, network_spec) in self.spec.networks.iter().enumerate() {
            let checkpoint = open(self.launch, self.spec, index)?;
            let network = rebuild(network_spec, &checkpoint, self.device)?;
            costs.train_seconds += checkpoint.header().train_seconds;
            costs.peak_device_bytes = costs.peak_device_bytes.max(checkpoint.header().peak_device_bytes);
            cosines.extend(network.weight_cosine());
            self.posteriors.extend(posterior::tensors(&network, index, self.spec.networks.len())?);
            let started = Instant::now();
            let origin = Origin {
                spec: self.spec,
                index: index as u64,
                network: &network,
                images: self.training_images.as_ref(),
            };
            let networks = Variants::new(origin, &checkpoint, recorder)?;
            costs.parameters += networks.parameter_count();
            drop(checkpoint);
            for variant in 0..variants {
                networks.apply(variant, recorder);
                let number = index as u64 * variants + variant;
                pass.predict(number, &network, |forward| networks.logits(forward), &mut sets, recorder);
            }
            device::synchronize(self.device);
            self.seconds += started.elapsed();
        }
        costs.weight_cosine =
            (!cosines.is_empty()).then(|| cosines.iter().sum::<f64>() / cosines.len() as f64);
        // The same networks for each lot.
        self.costs = costs;
        Ok(sets.into_iter().map(ImageSet::finish).collect())
    }
}

/// The corrupted test images of an evaluation.
struct Shift {
    tests: ShiftedTests,
    pairs: Vec<(Corruption, u32)>,
    /// Images of each pair.
    len: u64,
    image_bytes: usize,
}

/// Corruptions whose images are held together.
struct Lot<'a> {
    tests: &'a ShiftedTests,
    pairs: &'a [(Corruption, u32)],
}

impl Shift {
    fn open(launch: &Launch, spec: &EvaluateSpec, data: &DataSpec) -> Result<Option<Self>, TrainerError> {
        let Some(shift) = &spec.shift else { return Ok(None) };
        let tests = ShiftedTests::open(data, shift, &launch.data_dir)?;
        let image_bytes = data::input_shape(data).iter().product::<i64>().unsigned_abs() as usize;
        let len = tests.image_count() as u64;
        Ok(Some(Self { tests, pairs: shift.pairs().collect(), len, image_bytes }))
    }

    fn lots(&self) -> impl Iterator<Item = Lot<'_>> {
        let set = (self.image_bytes * self.len as usize).max(1);
        let lots = self.pairs.chunks((LOT_BYTES / set).max(1));
        lots.map(|pairs| Lot { tests: &self.tests, pairs })
    }
}

fn pass_of(spec: &EvaluateSpec) -> Pass<'_> {
    Pass { predictor: &spec.predictor, task: data::task(spec), seed: spec.seed, batch_size: spec.batch_size }
}

/// Checks what does not need data, and returns the first network's specification.
fn check<'a>(launch: &Launch, spec: &'a EvaluateSpec) -> Result<&'a TrainSpec, TrainerError> {
    if let Some(found) = spec.networks.iter().map(|network| network.numerics).find(|&found| found != NUMERICS)
    {
        return Err(TrainerError::Numerics { found, expected: NUMERICS });
    }
    if spec.numerics != EVALUATION_NUMERICS {
        return Err(TrainerError::Numerics { found: spec.numerics, expected: EVALUATION_NUMERICS });
    }
    if launch.world_size != 1 {
        return Err(TrainerError::WorldSize { allowed: "1".to_owned(), found: launch.world_size });
    }
    let expected = launch.spec.needs();
    let found: Vec<_> = launch.networks.iter().map(|file| file.trial).collect();
    let Some(first) = spec.networks.first().filter(|_| expected == found) else {
        return Err(TrainerError::Networks { expected, found });
    };
    if spec.networks.iter().any(|other| other.data != first.data || other.model != first.model) {
        return Err(TrainerError::MixedEnsemble);
    }
    let pass = pass_of(spec);
    let samples = pass.draws().min(Variants::count(&spec.predictor));
    let features = match spec.predictor {
        Predictor::Tradi { features, .. } => u64::from(features),
        Predictor::Direct { .. }
        | Predictor::McDropout { .. }
        | Predictor::Swag { .. }
        | Predictor::Snapshots { .. }
        | Predictor::LastLayerLaplace(_) => 1,
    };
    for (what, count) in [
        ("the number of samples", samples),
        ("the number of random features", features),
        ("the batch size", spec.batch_size.into()),
    ] {
        if count == 0 {
            return Err(TrainerError::Zero { what });
        }
    }
    Ok(first)
}

fn open(launch: &Launch, spec: &EvaluateSpec, index: usize) -> Result<Checkpoint, TrainerError> {
    let file = &launch.networks[index];
    let checkpoint = checkpoint::read(&file.path)?;
    checkpoint.belongs_to(file.trial, spec.networks[index].numerics)?;
    checkpoint.is_final()?;
    Ok(checkpoint)
}

fn rebuild(spec: &TrainSpec, checkpoint: &Checkpoint, device: Device) -> Result<Network, TrainerError> {
    let classes = i64::from(spec.data.outputs());
    let input = data::input_shape(&spec.data);
    let network = Network::new(&spec.model, &spec.method, input, classes, spec.seed, device)?;
    checkpoint.restore_network(&network.named_tensors())?;
    Ok(network)
}
