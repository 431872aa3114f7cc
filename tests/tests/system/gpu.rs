//! From a grid to its table by one worker whose slots share a device: both ranks of a gang are its, and one is killed.
//!
//! The same on a processor and, by `cargo xtask test --gpu`, on a GPU: there with NCCL between the ranks.

use serde_json::Value;
use system_tests::{Cluster, Grid, Lease};

use crate::trainer_loss::assert_went_on_from;

/// What the slots of the worker are parts of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Processor,
    Gpu,
}

impl Device {
    fn name(self) -> &'static str {
        match self {
            Self::Processor => "cpu",
            Self::Gpu => "cuda",
        }
    }
}

fn grid(device: Device) -> Grid {
    Grid::new("gang-of-two")
        .method("kind = \"batch-ensemble\"\nlabel = \"BatchEnsemble\"\nmembers = 2\nslots = 2")
        .recipe("epochs = 40\nlr = 0.05\nclip-norm = 1.0")
        .run(&format!(
            "checkpoint-steps = 20\ncheckpoint-interval = \"none\"\nmetrics-steps = 10\nmax-failures = 100\n\
             requires = {{ device = \"{}\" }}",
            device.name()
        ))
}

fn a_killed_rank_of_a_gang_is_replaced_and_the_table_is_full(device: Device) {
    let mut cluster = Cluster::with_cores(Lease::Long, 2);
    match device {
        Device::Processor => cluster.add_worker("alpha", 2),
        Device::Gpu => cluster.add_worker_on_a_gpu("alpha", 2),
    }
    cluster.wait_connected("alpha");
    let grid = grid(device);
    cluster.submit(&grid);
    let train = cluster.experiment(grid.name()).trial(&["train"]).id.clone();
    let first = cluster.wait_checkpoint(&train, 60).history[0].id.clone();
    cluster.kill_trainer(&first, 1);

    cluster.finish(grid.name());
    let ended = cluster.trial(&train);
    assert_eq!((ended.slots, ended.attempts, ended.failures), (2, 2, 1), "{ended:#?}");
    for attempt in &ended.history {
        assert_eq!(attempt.workers, ["alpha×2"], "{ended:#?}");
    }
    let last = &ended.history[1].id;
    assert_went_on_from(&cluster, &train, last, 60);
    assert_full(&cluster, grid.name(), device);
    if device == Device::Gpu {
        // What the worker was configured to let NCCL log is kept with the rank.
        let log = cluster.run(&["logs", &train, "--attempt", last]).ok();
        assert!(log.contains("NCCL INFO"), "{log}");
    }
    cluster.stop();
}

/// One row, whose values are all there, with the memory of a GPU if there was one.
fn assert_full(cluster: &Cluster, name: &str, device: Device) {
    let table = cluster.run(&["table", name, "--format", "json"]).ok();
    let table: Value = serde_json::from_str(&table).unwrap();
    let row = &table["groups"][0]["rows"][0];
    assert_eq!(
        (row["method"].as_str(), &row["tally"]["done"]),
        (Some("BatchEnsemble"), &1.into()),
        "{table:#}"
    );
    let values = row["values"].as_array().unwrap();
    for value in values {
        assert!(value["mean"].as_f64().is_some_and(f64::is_finite), "{value}");
    }
    let shown = |name: &str| values.iter().any(|value| value["name"] == name);
    assert!(shown("accuracy"), "{row}");
    assert_eq!(shown("peak_device_bytes"), device == Device::Gpu, "{row}");
}

#[test]
fn on_a_processor_a_killed_rank_of_a_gang_is_replaced_and_the_table_is_full() {
    a_killed_rank_of_a_gang_is_replaced_and_the_table_is_full(Device::Processor);
}

#[test]
#[ignore = "needs a GPU: `cargo xtask test --gpu`"]
fn on_a_gpu_a_killed_rank_of_a_gang_is_replaced_and_the_table_is_full() {
    a_killed_rank_of_a_gang_is_replaced_and_the_table_is_full(Device::Gpu);
}
