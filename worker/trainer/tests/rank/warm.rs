//! Processes that are started before their launch is known, and run several.

use std::fs;
use std::path::Path;

use common::report::{Launch, Report, exit};
use common::spec::{
    Augmentation, DropoutSettings, EVALUATION_NUMERICS, EvaluateSpec, MimoSettings, Predictor, Schedule,
    TrainMethod, TrainSpec, TrialSpec,
};
use common::{AttemptId, FailureCause};

use crate::support::{
    Rank, assert_same_tensors, gang, launch, lp_bnn, network_files, run, run_gang, sngp, train_spec,
};

/// Trials that differ in everything that a process could keep: method, batch size, seed, optimizer, schedule.
fn trials() -> Vec<TrainSpec> {
    let dropout = TrainMethod::Dropout(DropoutSettings { rate: 0.3, ..DropoutSettings::default() });
    let mut sgd = train_spec(dropout);
    sgd.recipe.momentum = 0.0;
    sgd.recipe.nesterov = false;
    sgd.recipe.schedule = Schedule::Constant;
    sgd.recipe.batch_size = 20;
    sgd.seed = 9;
    let mut last_epoch = train_spec(sngp());
    last_epoch.recipe.augmentation = vec![Augmentation::Flip];
    vec![
        train_spec(lp_bnn()),
        sgd,
        last_epoch,
        train_spec(TrainMethod::Mimo(MimoSettings::default())),
        train_spec(lp_bnn()),
    ]
}

fn evaluation(of: &TrainSpec, path: &Path, folder: &Path) -> Launch {
    let spec = EvaluateSpec {
        networks: vec![of.clone()],
        predictor: Predictor::Direct { samples_per_member: 2 },
        ood: Vec::new(),
        shift: None,
        batch_size: 50,
        seed: 3,
        numerics: EVALUATION_NUMERICS,
    };
    let networks = network_files(std::slice::from_ref(of), &[path.to_owned()]);
    Launch { networks, ..launch(TrialSpec::Evaluate(spec), folder) }
}

#[test]
fn trials_in_a_row_in_one_process_leave_the_bits_of_trials_in_processes_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut warm = Rank::warm();
    for (index, spec) in trials().into_iter().enumerate() {
        let fresh = launch(TrialSpec::Train(spec.clone()), &folder.path().join(format!("fresh{index}")));
        let again = Launch {
            attempt: AttemptId(10 + index as u64),
            work_dir: folder.path().join(format!("warm{index}")),
            ..fresh.clone()
        };
        let expected = run(&fresh);
        let log = warm.run_warm(&again);
        warm.ready();
        let found = warm.so_far();
        assert_same_tensors_of_any(&expected.final_checkpoint(), &found.final_checkpoint());
        assert_eq!(expected.rows(), found.rows(), "trial {index}");
        assert_own_log(&log, again.attempt, &format!("trial {index}"));

        let fresh =
            evaluation(&spec, &expected.final_checkpoint(), &folder.path().join(format!("scores{index}")));
        let again = Launch { work_dir: folder.path().join(format!("warm-scores{index}")), ..fresh.clone() };
        let expected = run(&fresh);
        warm.run_warm(&again);
        warm.ready();
        let timeless = |metrics: &std::collections::BTreeMap<String, f64>| -> Vec<(String, u64)> {
            let kept = metrics.iter().filter(|(name, _)| !name.ends_with("_seconds"));
            kept.map(|(name, value)| (name.clone(), value.to_bits())).collect()
        };
        assert_eq!(timeless(expected.done()), timeless(warm.so_far().done()), "trial {index}");
    }
}

/// As [`assert_same_tensors`], also for trials without momentum.
fn assert_same_tensors_of_any(left: &Path, right: &Path) {
    assert_eq!(crate::support::tensors(left), crate::support::tensors(right));
}

fn assert_own_log(log: &Path, attempt: AttemptId, what: &str) {
    let text = fs::read_to_string(log).unwrap();
    assert!(text.contains("training done"), "{what}: {text}");
    let others = text
        .lines()
        .filter(|line| line.contains("attempt=") && !line.contains(&format!("attempt={attempt}")));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new(), "{what}: lines of other attempts");
}

#[test]
fn gangs_in_a_row_of_the_same_processes_leave_the_bits_of_a_fresh_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = train_spec(lp_bnn());
    spec.world_size = 2;
    let whole = launch(TrialSpec::Train(spec), &folder.path().join("fresh"));
    let expected = run_gang(&whole).swap_remove(0);
    let mut ranks = [Rank::warm(), Rank::warm()];
    for round in 1..=3 {
        let work_dir = folder.path().join(round.to_string());
        let launches = gang(&Launch { attempt: AttemptId(round), work_dir, ..whole.clone() });
        for (rank, launch) in ranks.iter_mut().zip(&launches) {
            rank.run_warm(launch);
        }
        let address = ranks[0].wait_for(|report| match report {
            Report::Rendezvous { address } => Some(address.clone()),
            _ => None,
        });
        ranks[1].command(&common::report::Command::Rendezvous { address });
        ranks.iter_mut().for_each(Rank::ready);
        assert_same_tensors(&expected.final_checkpoint(), &ranks[0].so_far().final_checkpoint());
    }
}

#[test]
fn a_process_ends_with_the_trial_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let mut warm = Rank::warm();
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.recipe.epochs = 1;
    warm.run_warm(&launch(TrialSpec::Train(spec.clone()), &folder.path().join("good")));
    warm.ready();
    spec.recipe.lr = 1e30;
    spec.recipe.clip_norm = None;
    spec.recipe.warmup_epochs = 0.0;
    warm.run_warm(&launch(TrialSpec::Train(spec), &folder.path().join("bad")));
    let ended = warm.end();
    assert!(matches!(ended.cause(), FailureCause::NonFiniteLoss { .. }), "{:?}", ended.cause());
}

#[test]
fn an_idle_process_leaves_when_its_agent_does() {
    let mut warm = Rank::warm();
    warm.lose_agent();
    assert_eq!(warm.end().status.code(), Some(exit::AGENT_LOST));
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn memory_does_not_grow_from_trial_to_trial() {
    let folder = tempfile::tempdir().unwrap();
    let mut warm = Rank::warm();
    let mut spec = train_spec(lp_bnn());
    spec.recipe.epochs = 2;
    let mut resident = Vec::new();
    for round in 0..12 {
        warm.run_warm(&launch(TrialSpec::Train(spec.clone()), &folder.path().join(round.to_string())));
        warm.ready();
        resident.push(resident_kib(warm.pid()));
    }
    // The first trials fill the allocator's pools and the caches of kernels.
    let grown = resident[11].saturating_sub(resident[3]);
    assert!(grown < 16 * 1024, "resident memory after each trial, in KiB: {resident:?}");
}
