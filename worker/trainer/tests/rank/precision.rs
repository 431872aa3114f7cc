//! Precision, determinism, memory layout and devices of whole trials, as far as a CPU can show them.

use std::fs;
use std::path::Path;

use common::FailureCause;
use common::report::{Device, Launch, Report};
use common::spec::{
    DuqSettings, Precision, RankOneSettings, TradiSettings, TrainMethod, TrainSpec, TrialSpec,
};

use crate::resume::spec_survives_kills;
use crate::support::{
    Ended, Rank, assert_same_tensors, batch_ensemble, launch, lp_bnn, run, run_gang, sngp, tensors,
    train_spec,
};

fn spec_in(precision: Precision, method: TrainMethod) -> TrainSpec {
    let mut spec = train_spec(method);
    spec.recipe.precision = precision;
    spec
}

fn train(spec: TrainSpec, folder: &Path) -> Ended {
    run(&launch(TrialSpec::Train(spec), folder))
}

#[test]
fn half_precision_trains_to_nearly_the_loss_of_single_precision_with_weights_of_single_precision() {
    let folder = tempfile::tempdir().unwrap();
    for (name, method) in [("plain", TrainMethod::Deterministic), ("be", batch_ensemble()), ("sngp", sngp())]
    {
        let of = |precision: Precision| {
            train(
                spec_in(precision, method.clone()),
                &folder.path().join(format!("{name}-{}", precision.name())),
            )
        };
        let single = of(Precision::Fp32);
        for precision in [Precision::Bf16, Precision::Fp16] {
            let half = of(precision);
            let (loss, expected) = (half.done()["loss"], single.done()["loss"]);
            assert!(
                (loss - expected).abs() < 0.05 * expected,
                "{name}, {precision:?}: {loss} beside {expected}"
            );
            assert_ne!(loss, expected, "{name}, {precision:?}: it computed in single precision");
            let stored = tensors(&half.final_checkpoint());
            let kinds = stored.iter().filter(|(name, _)| name.starts_with("model/"));
            assert!(
                kinds.map(|(_, tensor)| tensor.0.as_str()).all(|kind| matches!(kind, "F32" | "F64" | "I64"))
            );
            let scaled = stored.keys().any(|name| name == "scaler/scale");
            assert_eq!(scaled, precision == Precision::Fp16);
        }
    }
}

/// On a CPU there is nothing to round.
#[test]
fn tf32_on_a_cpu_is_single_precision_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let of = |precision: Precision| {
        let spec = spec_in(precision, TrainMethod::Deterministic);
        train(spec, &folder.path().join(precision.name())).final_checkpoint()
    };
    assert_same_tensors(&of(Precision::Fp32), &of(Precision::Tf32));
}

#[test]
fn a_trial_in_half_precision_that_was_killed_ends_with_the_same_bits() {
    spec_survives_kills(spec_in(Precision::Bf16, lp_bnn()), &[2, 8]);
    // The scale of the loss goes on too: the checkpoints hold it, and the rows that are compared name it.
    spec_survives_kills(spec_in(Precision::Fp16, batch_ensemble()), &[2, 8]);
}

#[test]
fn the_scale_of_the_loss_and_the_steps_that_it_cost_are_reported_in_fp16_alone() {
    let folder = tempfile::tempdir().unwrap();
    let half = train(spec_in(Precision::Fp16, lp_bnn()), folder.path());
    let (scale, skipped) = (half.values("loss_scale"), half.values("skipped_steps"));
    assert_eq!((scale.len(), skipped.len()), (18, 18));
    // Too few steps for it to grow.
    for (scale, skipped) in scale.iter().zip(&skipped) {
        assert_eq!(*scale, 65_536.0 / 2f64.powf(*skipped));
    }
    let single = train(spec_in(Precision::Fp32, lp_bnn()), &folder.path().join("single"));
    assert!(single.values("loss_scale").is_empty() && single.values("skipped_steps").is_empty());
}

#[test]
fn two_ranks_in_half_precision_have_the_same_weights_and_scale() {
    let folder = tempfile::tempdir().unwrap();
    for precision in [Precision::Bf16, Precision::Fp16] {
        let mut spec = spec_in(precision, batch_ensemble());
        spec.world_size = 2;
        // A trial whose ranks end with different weights fails.
        for ended in run_gang(&launch(TrialSpec::Train(spec), &folder.path().join(precision.name()))) {
            assert!(ended.status.success(), "{}", ended.stderr);
        }
    }
}

#[test]
fn methods_that_read_gradients_are_refused_in_fp16_and_train_in_bf16() {
    let folder = tempfile::tempdir().unwrap();
    for method in [TrainMethod::Tradi(TradiSettings::default()), TrainMethod::Duq(DuqSettings::default())] {
        let refused = train(spec_in(Precision::Fp16, method.clone()), &folder.path().join("fp16"));
        let FailureCause::SpecRejected { message } = refused.cause() else { panic!("{:?}", refused.cause()) };
        assert!(message.contains("use `bf16`"), "{message}");
        train(spec_in(Precision::Bf16, method), &folder.path().join("bf16")).done();
    }
}

#[test]
fn with_deterministic_algorithms_every_method_trains_to_the_bits_that_a_cpu_gives_anyway() {
    let folder = tempfile::tempdir().unwrap();
    let methods = [
        TrainMethod::Deterministic,
        lp_bnn(),
        sngp(),
        TrainMethod::Duq(DuqSettings::default()),
        TrainMethod::RankOne(RankOneSettings::default()),
        TrainMethod::Tradi(TradiSettings::default()),
    ];
    for (index, method) in methods.into_iter().enumerate() {
        let usual = launch(TrialSpec::Train(train_spec(method)), &folder.path().join(format!("{index}")));
        let mut deterministic = Launch { work_dir: folder.path().join(format!("{index}d")), ..usual.clone() };
        deterministic.policy.deterministic = true;
        assert_same_tensors(&run(&usual).final_checkpoint(), &run(&deterministic).final_checkpoint());
    }
}

#[test]
fn a_trial_with_channels_last_differs_by_roundings_alone_and_goes_on_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(batch_ensemble());
    spec.world_size = 2;
    let usual = launch(TrialSpec::Train(spec), &folder.path().join("usual"));
    let mut changed = Launch { work_dir: folder.path().join("changed"), ..usual.clone() };
    changed.policy.channels_last = true;
    changed.policy.checkpoint_steps = Some(9);
    let expected = run_gang(&usual).swap_remove(0);
    let found = run_gang(&changed).swap_remove(0);
    let (loss, wanted) = (found.done()["loss"], expected.done()["loss"]);
    assert!((loss - wanted).abs() < 1e-3 * wanted, "{loss} beside {wanted}");
    // A checkpoint says nothing of memory.
    let shapes = |ended: &Ended| {
        let all = tensors(&ended.final_checkpoint());
        let mut shapes: Vec<_> =
            all.into_iter().map(|(name, (kind, shape, _))| (name, kind, shape)).collect();
        shapes.sort();
        shapes
    };
    assert_eq!(shapes(&found), shapes(&expected));
    let middle = found.checkpoints()[0].1.clone();
    let resumed = Launch { work_dir: folder.path().join("resumed"), restore: vec![middle], ..usual };
    let resumed = run_gang(&resumed).swap_remove(0).done()["loss"];
    assert!((resumed - wanted).abs() < 1e-3 * wanted, "{resumed} beside {wanted}");
}

#[test]
fn a_rank_that_is_to_compute_on_a_gpu_and_cannot_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let spec = TrialSpec::Train(train_spec(TrainMethod::Deterministic));
    let launch = Launch { device: Device::Cuda, ..launch(spec, &folder.path().join("work")) };
    let environment = [(common::cuda::VARIABLE, empty.to_str().unwrap())];
    let ended = Rank::start_with(&launch, &environment).end();
    let FailureCause::LaunchFailed { message } = ended.cause() else { panic!("{:?}", ended.cause()) };
    assert!(message.contains("libtorch_cuda.so") && message.contains("empty"), "{message}");
}

/// libtorch has looked for devices by then, and would not look again.
#[test]
fn a_warm_rank_that_was_started_for_the_cpu_refuses_a_gpu_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut warm = Rank::warm();
    let spec = TrialSpec::Train(train_spec(TrainMethod::Deterministic));
    warm.run_warm(&Launch { device: Device::Cuda, ..launch(spec, folder.path()) });
    let ended = warm.end();
    let FailureCause::LaunchFailed { message } = ended.cause() else { panic!("{:?}", ended.cause()) };
    assert!(message.contains("started for the CPU"), "{message}");
}

/// With CREDENCE_CUDA_LIBTORCH of a PyTorch for CUDA, on a machine without a GPU.
#[test]
#[ignore = "needs an installed PyTorch for CUDA, and no GPU"]
fn a_rank_with_an_installed_pytorch_and_no_gpu_says_that_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let spec = TrialSpec::Train(train_spec(TrainMethod::Deterministic));
    let ended = run(&Launch { device: Device::Cuda, ..launch(spec, folder.path()) });
    let FailureCause::LaunchFailed { message } = ended.cause() else { panic!("{:?}", ended.cause()) };
    assert!(message.contains("no GPU can be used"), "{message}");
    assert!(ended.stderr.contains("loading CUDA"), "{}", ended.stderr);
    eprintln!("{message}");
    // A warm one has loaded CUDA before it computed, without a GPU's being touched.
    let mut warm = Rank::warm();
    let folder = folder.path().join("warm");
    let spec = TrialSpec::Train(train_spec(TrainMethod::Deterministic));
    let log = warm.run_warm(&Launch { device: Device::Cuda, ..launch(spec, &folder) });
    let ended = warm.end();
    let FailureCause::LaunchFailed { message } = ended.cause() else { panic!("{:?}", ended.cause()) };
    assert!(message.contains("no GPU can be used"), "{message}");
    assert!(
        ended.stderr.contains("loading CUDA") && !fs::read_to_string(log).unwrap().contains("loading CUDA")
    );
}

/// NCCL prints its log there, and would tear reports.
#[test]
fn what_libraries_print_on_standard_output_goes_to_the_log() {
    let mut warm = Rank::warm();
    let target = |fd: u32| fs::read_link(format!("/proc/{}/fd/{fd}", warm.pid())).unwrap();
    assert_eq!(target(1), target(2));
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 1_000;
    let log = warm.run_warm(&launch(TrialSpec::Train(spec), folder.path()));
    warm.wait_for(|report| matches!(report, Report::Metrics { .. }).then_some(()));
    let target = |fd: u32| fs::read_link(format!("/proc/{}/fd/{fd}", warm.pid())).unwrap();
    assert_eq!((target(1), target(2)), (log.clone(), log));
    warm.kill();
}
