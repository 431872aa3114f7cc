//! Checkpoints that earlier builds wrote still load, under the names that their trials had.
//!
//! `fixtures/checkpoint-v1-*.safetensors` were written by `write_the_fixtures` at version 0.1.0, format 1. They are never
//! written again: a new format gets files of its own beside them.

use std::fs;
use std::path::{Path, PathBuf};

use common::report::{Launch, Report};
use common::spec::{
    LpBnnPreset, LpBnnSettings, MlpNorm, ModelSpec, SwagSettings, TrainMethod, TrainSpec, TrialSpec,
};

use crate::support::{launch, run, train_spec};

/// Step of the checkpoints, of 18.
const STEP: u64 = 11;

fn trials() -> [(&'static str, TrainSpec); 2] {
    let small = |method| TrainSpec {
        model: ModelSpec::Mlp { layers: 1, width: 8, norm: MlpNorm::Batch },
        ..train_spec(method)
    };
    let lp_bnn = LpBnnSettings { members: 2, latent: 4, ..LpBnnPreset::Official.settings() };
    // What SWAG collects is state beside the network and the optimizer.
    let swag = SwagSettings { start: 0.2, rank: 2, ..SwagSettings::default() };
    [("lp-bnn", small(TrainMethod::LpBnn(lp_bnn))), ("swag", small(TrainMethod::Swag(swag)))]
}

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(format!("checkpoint-v1-{name}.safetensors"))
}

#[test]
#[ignore = "writes the files that the other test reads"]
fn write_the_fixtures() {
    for (name, spec) in trials() {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = launch(TrialSpec::Train(spec), folder.path());
        launch.policy.checkpoint_steps = Some(STEP);
        let (_, written) = run(&launch).checkpoints().into_iter().find(|&(step, _)| step == STEP).unwrap();
        fs::copy(written, fixture(name)).unwrap();
    }
}

#[test]
fn a_checkpoint_of_format_1_goes_on_where_it_stopped() {
    for (name, spec) in trials() {
        let key = TrialSpec::Train(spec.clone()).key();
        let stored = trainer::checkpoint::read(&fixture(name)).unwrap();
        assert_eq!(stored.header().trial, key, "{name}: the trial has another name now");

        let folder = tempfile::tempdir().unwrap();
        let launch = Launch { restore: vec![fixture(name)], ..launch(TrialSpec::Train(spec), folder.path()) };
        let ended = run(&launch);
        let first = ended.reports.iter().find_map(|report| match report {
            Report::Progress { step, .. } => Some(*step),
            _ => None,
        });
        assert_eq!(first, Some(STEP), "{name}: {:?}", ended.reports);
        assert!(ended.done()["loss"].is_finite());
        let refused = |report: &Report| matches!(report, Report::CheckpointRefused { .. });
        assert!(!ended.reports.iter().any(refused), "{name}: {:?}", ended.reports);
    }
}
