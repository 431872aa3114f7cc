//! `cargo xtask bench --gpu`: images a second of training in each precision, and what memory it takes.
//!
//! On a machine without a GPU it measures the CPU. The first quarter of the steps is left out: caches fill, and cuDNN tries its
//! algorithms.

use std::env;
use std::time::Instant;

use common::report::{Launch, Report};
use common::spec::{DatasetName, ModelSpec, Precision, TrainMethod, TrainSpec, TrialSpec};

use crate::support::{Rank, launch, train_spec};

/// Folder of data sets: with it CIFAR-10 is trained on, without it the bundled digits.
const DATA: &str = "CREDENCE_BENCH_DATA";
const MODEL: &str = "CREDENCE_BENCH_MODEL";
const BATCH: &str = "CREDENCE_BENCH_BATCH";
const EPOCHS: &str = "CREDENCE_BENCH_EPOCHS";

fn number(name: &str, default: u32) -> u32 {
    env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn spec(precision: Precision) -> TrainSpec {
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.data.held_out = Vec::new();
    (spec.data.train_limit, spec.data.test_limit) = (None, None);
    if env::var_os(DATA).is_some() {
        spec.data.set = DatasetName::Cifar10;
    }
    if let Ok(model) = env::var(MODEL) {
        spec.model = model.parse::<ModelSpec>().unwrap_or_else(|error| panic!("{MODEL}: {error}"));
    }
    spec.recipe.batch_size = number(BATCH, 128);
    spec.recipe.epochs = number(EPOCHS, 4);
    spec.recipe.precision = precision;
    spec
}

/// Images a second of the last three quarters, and the most memory in GiB.
fn measure(launch: &Launch, batch: u32) -> (f64, Option<f64>) {
    let mut rank = Rank::start(launch);
    let progress = |report: &Report| match report {
        Report::Progress { step, total_steps, .. } => Some((*step, *total_steps)),
        _ => None,
    };
    let (first, total) = rank.wait_for(|report| progress(report).filter(|(step, total)| 4 * step >= *total));
    let started = Instant::now();
    rank.wait_for(|report| progress(report).filter(|(step, _)| *step == total));
    let seconds = started.elapsed().as_secs_f64();
    let ended = rank.end();
    let peak = ended.done().get("peak_device_bytes").map(|bytes| bytes / f64::from(1 << 30));
    ((total - first) as f64 * f64::from(batch) / seconds, peak)
}

#[test]
#[ignore = "prints times: `cargo xtask bench --gpu`"]
fn images_a_second_in_each_precision() {
    let folder = tempfile::tempdir().unwrap();
    eprintln!("precision  channels-last  images/s    GPU memory");
    for (name, precision) in Precision::ALL {
        for channels_last in [false, true] {
            let spec = spec(precision);
            let batch = spec.recipe.batch_size;
            let mut launch =
                launch(TrialSpec::Train(spec), &folder.path().join(format!("{name}-{channels_last}")));
            launch.policy.channels_last = channels_last;
            // A progress report waits for the device, as a user's trial does; determinism would cost what is measured.
            (launch.policy.deterministic, launch.policy.metrics_steps) = (false, 1_000);
            if let Some(data) = env::var_os(DATA) {
                launch.data_dir = data.into();
            }
            let (rate, peak) = measure(&launch, batch);
            let peak = peak.map_or_else(|| "-".to_owned(), |gib| format!("{gib:.2} GiB"));
            eprintln!("{name:<9}  {channels_last:<13}  {rate:>8.0}  {peak:>12}");
        }
    }
}
