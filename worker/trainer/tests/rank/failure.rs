//! Every end has a name: a reported cause, or an exit status.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::FailureCause;
use common::report::{Launch, Report, exit};
use common::spec::{
    Augmentation, DatasetName, DropoutSettings, ModelSpec, NUMERICS, TrainMethod, TrialSpec,
    WideResNetVariant,
};

use crate::support::{Rank, launch, lp_bnn, run, run_gang, train_spec};

#[test]
fn a_loss_that_is_not_finite_is_reported_with_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.lr = 1e30;
    spec.recipe.warmup_epochs = 0.0;
    spec.recipe.clip_norm = None;
    let mut launch = launch(TrialSpec::Train(spec), folder.path());
    // The first step is finite: its weights are the initial ones. That it is not read back until the tenth
    // must not change which step is named.
    for metrics_steps in [1, 10] {
        launch.policy.metrics_steps = metrics_steps;
        let ended = run(&launch);
        assert_eq!(*ended.cause(), FailureCause::NonFiniteLoss { step: 2 });
        assert!(ended.checkpoints().is_empty(), "a checkpoint of NaNs is no checkpoint");
        assert!(ended.warnings()[0].contains("clip_norm"));
    }
}

#[test]
fn both_ranks_name_the_same_step_of_a_loss_that_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.lr = 1e30;
    spec.recipe.warmup_epochs = 0.0;
    spec.recipe.clip_norm = None;
    spec.world_size = 2;
    for ended in run_gang(&launch(TrialSpec::Train(spec), folder.path())) {
        assert_eq!(*ended.cause(), FailureCause::NonFiniteLoss { step: 2 });
    }
}

#[test]
fn a_rank_whose_agent_is_gone_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(lp_bnn());
    spec.recipe.epochs = 1_000_000;
    let mut rank = Rank::start(&launch(TrialSpec::Train(spec), folder.path()));
    rank.wait_for(|report| matches!(report, Report::Metrics { .. }).then_some(()));
    rank.lose_agent();
    let lost = Instant::now();
    let ended = rank.end();
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    assert_eq!(ended.status.code(), Some(exit::AGENT_LOST), "{}", ended.stderr);
}

/// The agent may die while a rank waits to be told where the others are.
#[test]
fn a_rank_that_waits_for_the_rendezvous_leaves_with_its_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.world_size = 2;
    let mut launch = launch(TrialSpec::Train(spec), folder.path());
    launch.rank = 1;
    let mut rank = Rank::start(&launch);
    rank.lose_agent();
    assert_eq!(rank.end().status.code(), Some(exit::AGENT_LOST));
}

/// One step would need gigabytes; the program and libtorch need half of what is allowed. tch panics when
/// libtorch has no memory, so this is the way of a panic too.
#[test]
fn a_lack_of_memory_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.model = ModelSpec::WideResNet { depth: 28, widen: 4, variant: WideResNetVariant::Authors };
    spec.data.train_limit = None;
    spec.data.held_out = Vec::new();
    spec.recipe.batch_size = 1_297;
    let ended = Rank::start_within(&launch(TrialSpec::Train(spec), folder.path()), 800 << 20).end();
    assert_eq!(*ended.cause(), FailureCause::OutOfMemory);
    let [message] = ended.warnings()[..] else { panic!("{:?}", ended.warnings()) };
    assert!(message.contains("can't allocate memory") && !message.contains("frame #"), "{message}");
}

fn rejected(change: impl FnOnce(&mut Launch)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut launch = launch(TrialSpec::Train(train_spec(TrainMethod::Deterministic)), folder.path());
    change(&mut launch);
    match run(&launch).cause() {
        FailureCause::SpecRejected { message } => message.clone(),
        other => panic!("{other}"),
    }
}

fn with_spec(change: impl FnOnce(&mut common::spec::TrainSpec)) -> String {
    rejected(|launch| {
        if let TrialSpec::Train(spec) = &mut launch.spec {
            change(spec);
        }
    })
}

#[test]
fn a_specification_that_makes_no_sense_is_rejected_in_words() {
    assert!(with_spec(|spec| spec.numerics = NUMERICS + 1).contains("numerics"));
    assert!(with_spec(|spec| spec.recipe.epochs = 0).contains("epochs"));
    assert!(with_spec(|spec| spec.recipe.batch_size = 101).contains("100 images"));
    assert!(with_spec(|spec| spec.data.held_out = vec![10]).contains("held out"));
    assert!(with_spec(|spec| spec.data.train_limit = Some(0)).contains("limit"));
    assert!(
        with_spec(|spec| spec.method =
            TrainMethod::Dropout(DropoutSettings { rate: 1.0, ..DropoutSettings::default() }))
        .contains("dropout")
    );
    let two_flips = vec![Augmentation::Flip, Augmentation::Flip];
    assert!(with_spec(|spec| spec.recipe.augmentation = two_flips).contains("augmentations"));
    assert!(rejected(|launch| launch.world_size = 2).contains("2 were launched"));
}

#[test]
fn a_data_set_that_is_not_there_is_missing_and_not_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.data.set = DatasetName::Cifar10;
    let ended = run(&launch(TrialSpec::Train(spec), folder.path()));
    let FailureCause::DataMissing { message } = ended.cause() else { panic!("{}", ended.cause()) };
    assert!(message.contains("cifar-10-batches-bin") && message.contains("no data"), "{message}");
}

#[test]
fn a_checkpoint_of_another_trial_is_incompatible() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    let first = launch(TrialSpec::Train(spec.clone()), &folder.path().join("first"));
    let restore = vec![run(&first).final_checkpoint()];
    spec.seed += 1;
    let other = launch(TrialSpec::Train(spec), &folder.path().join("other"));
    let ended = run(&Launch { restore, ..other });
    let FailureCause::CheckpointIncompatible { message } = ended.cause() else { panic!("{}", ended.cause()) };
    assert!(message.contains(&first.spec.key().to_string()), "{message}");
}

/// The folder of the rank vanishes under it: the checkpoint on the way is a warning, the last one an error.
#[test]
fn a_final_checkpoint_that_cannot_be_written_fails_the_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let work_dir = folder.path().join("work");
    let mut launch = launch(TrialSpec::Train(train_spec(TrainMethod::Deterministic)), &work_dir);
    launch.policy.checkpoint_steps = Some(1);
    let mut rank = Rank::start(&launch);
    rank.wait_for(|report| matches!(report, Report::Progress { .. }).then_some(()));
    fs::rename(&work_dir, folder.path().join("gone")).unwrap();
    let ended = rank.end();
    assert_eq!(*ended.cause(), FailureCause::TrainerExit { code: 1 });
    assert!(ended.warnings().iter().any(|message| message.contains("checkpoint-00000018")));
}

fn call(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_credence-trainer"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn wrong_usage_has_a_status_of_its_own_and_reports_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("launch.json");
    fs::write(&file, r#"{"attempt":1}"#).unwrap();
    for arguments in [&[][..], &["--loud"], &["a", "b"], &["no such file"], &[file.to_str().unwrap()]] {
        let (status, stdout, stderr) = call(arguments);
        assert_eq!((status, stdout.as_str()), (Some(exit::USAGE), ""), "{arguments:?}");
        assert!(stderr.starts_with("credence-trainer: "), "{stderr}");
    }
}

#[test]
fn help_and_version_are_given_without_a_launch() {
    let (status, stdout, _) = call(&["--version"]);
    assert_eq!(status, Some(exit::SUCCESS));
    assert!(stdout.contains(env!("CARGO_PKG_VERSION")) && stdout.contains("numerics"));
    let (status, stdout, _) = call(&["--help"]);
    assert_eq!(status, Some(exit::SUCCESS));
    assert!(stdout.contains("LAUNCH.json"));
}

#[test]
fn every_line_of_the_log_names_attempt_trial_and_rank() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 1;
    let launch = launch(TrialSpec::Train(spec), folder.path());
    let key = launch.spec.key().0.short();
    let text = Rank::start(&launch).end().stderr;
    let json = Rank::start_with(&launch, &[("CREDENCE_LOG_FORMAT", "json")]).end().stderr;
    assert!(text.lines().count() >= 3, "{text}");
    for line in text.lines() {
        assert!(line.contains("attempt=a1") && line.contains("rank=0") && line.contains(&key), "{line}");
    }
    for line in json.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["span"]["attempt"], "a1", "{line}");
    }
}
