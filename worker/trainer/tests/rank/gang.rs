//! Several ranks: one model, one global batch.

use common::report::Report;
use common::spec::{TrainMethod, TrialSpec};
use common::{AttemptId, FailureCause};
use safetensors::SafeTensors;
use tch::{Kind, Tensor};
use trainer::data;
use trainer::model::{Mode, Network, Role};

use crate::support::{Rank, gang, launch, lp_bnn, run, run_gang, start_gang, train_spec};

#[test]
fn ranks_agree_on_the_weights_and_only_rank_0_reports() {
    for world_size in [2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = train_spec(lp_bnn());
        spec.world_size = world_size;
        let ended = run_gang(&launch(TrialSpec::Train(spec), folder.path()));
        assert_eq!(ended.len(), world_size as usize);
        // The digests of all ranks were compared before the first said that it is done.
        ended[0].done();
        for other in &ended[1..] {
            assert!(other.status.success(), "{}", other.stderr);
            assert!(other.reports.is_empty(), "{:?}", other.reports);
        }
        assert!(matches!(ended[0].reports[0], Report::Rendezvous { .. }));
    }
}

/// The images of a step and the mean loss do not depend on the number of ranks. What does is batch
/// normalisation: its statistics are over 16 images instead of 32, which moves the loss of this network by
/// a few percent. The first step starts from the same weights, so it is the one that can be compared.
#[test]
fn one_rank_and_two_have_nearly_the_same_first_loss() {
    let folder = tempfile::tempdir().unwrap();
    let first_loss = |world_size: u32| {
        let mut spec = train_spec(TrainMethod::Deterministic);
        spec.world_size = world_size;
        let launch = launch(TrialSpec::Train(spec), &folder.path().join(world_size.to_string()));
        run_gang(&launch)[0].values("loss")[0]
    };
    let (one, two) = (first_loss(1), first_loss(2));
    assert!((one - two).abs() < 0.05 * one, "{one} and {two}");
}

/// What two ranks compute is computed again in one process: forward and backward of each half batch, the
/// mean of the gradients, one step of gradient descent.
#[test]
fn a_step_of_two_ranks_is_the_step_of_the_mean_gradient() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.world_size = 2;
    spec.data.train_limit = Some(32);
    spec.recipe.epochs = 1;
    spec.recipe.clip_norm = None;
    spec.recipe.momentum = 0.0;
    spec.recipe.nesterov = false;
    spec.recipe.weight_decay = 0.0;
    let ended = run_gang(&launch(TrialSpec::Train(spec.clone()), folder.path()));
    let stored = std::fs::read(ended[0].checkpoints().pop().unwrap().1).unwrap();
    let stored = SafeTensors::deserialize(&stored).unwrap();

    let classes = i64::from(spec.data.classes());
    let device = tch::Device::Cpu;
    let network = Network::new(&spec.model, &spec.method, [1, 8, 8], classes, spec.seed, device).unwrap();
    let batcher = data::training(&spec, folder.path()).unwrap();
    let order = datasets::epoch_order(spec.seed, 0, 32);
    let mut losses = Vec::new();
    for half in order.chunks(16) {
        let mut batch = datasets::Batch::default();
        batcher.fill(half, 0, &mut batch);
        let (images, labels) =
            data::tensors(&batch, batcher.shape(), common::spec::Task::Classification, device);
        let forward = network.forward(&images, Mode::Train);
        losses.push(forward.logits.cross_entropy_for_logits(&labels));
    }
    let loss: Tensor = Tensor::stack(&losses, 0).mean(Kind::Float);
    loss.backward();
    assert!((loss.double_value(&[]) - ended[0].values("loss")[0]).abs() < 1e-6);

    let _no_grad = tch::no_grad_guard();
    for named in network.named_tensors() {
        let Role::Weight { .. } = named.role else { continue };
        let expected = &named.tensor - named.tensor.grad() * spec.recipe.lr;
        let view = stored.tensor(&format!("model/{}", named.name)).unwrap();
        let found = Tensor::from_data_size(view.data(), &expected.size(), Kind::Float);
        // Two halves added in another order: a few units in the last place of numbers below 10.
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference < 2e-6, "{}: {difference}", named.name);
    }
}

#[test]
fn a_rank_that_loses_its_peer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.world_size = 2;
    spec.recipe.epochs = 1_000_000;
    let mut ranks = start_gang(&launch(TrialSpec::Train(spec), folder.path()));
    ranks[0].wait_for(|report| matches!(report, Report::Metrics { .. }).then_some(()));
    ranks.pop().unwrap().kill();
    let ended = ranks.pop().unwrap().end();
    assert_eq!(*ended.cause(), FailureCause::CollectiveFailed { rank: 0 });
    assert!(!ended.warnings().is_empty(), "the cause has no words, so a warning has them");
}

/// A batch that does not divide, told before any rank waits for another.
#[test]
fn a_batch_that_cannot_be_divided_is_refused_by_each_rank() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.world_size = 3;
    let launch = launch(TrialSpec::Train(spec), folder.path());
    for rank in gang(&launch) {
        let cause = run(&rank).cause().clone();
        assert!(
            matches!(&cause, FailureCause::SpecRejected { message } if message.contains("32")),
            "{cause}"
        );
    }
}

/// Ranks of two attempts share a store by mistake: they must not meet.
#[test]
fn a_rank_of_another_attempt_does_not_join() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.world_size = 2;
    let mut launches = gang(&launch(TrialSpec::Train(spec), folder.path()));
    launches[1].attempt = AttemptId(2);
    let mut ranks: Vec<Rank> = launches.iter().map(Rank::start).collect();
    let address = ranks[0].wait_for(|report| match report {
        Report::Rendezvous { address } => Some(address.clone()),
        _ => None,
    });
    ranks[1].command(&common::report::Command::Rendezvous { address });
    std::thread::sleep(std::time::Duration::from_secs(2));
    for rank in ranks {
        let ended = rank.kill();
        assert!(!ended.stderr.contains("process group joined"), "{}", ended.stderr);
    }
}
