//! The words between an agent and the trainer processes that it starts: one JSON object a line.
//!
//! A trainer reads [`Command`]s on standard input and writes [`Report`]s on standard output; its log goes to
//! standard error. The end of standard input means that the agent is gone: the trainer leaves at once,
//! so that no process outlives the agent that accounts for its slot.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::result::MetricRow;
use crate::spec::{RunPolicy, TrialSpec};
use crate::{AttemptId, FailureCause, TrialKey};

/// What one rank is started with; the file named by the trainer's only argument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Attempt that the rank belongs to. Prefix of every key in the rendezvous store.
    pub attempt: AttemptId,
    /// What to compute.
    pub spec: TrialSpec,
    /// How to run it.
    pub policy: RunPolicy,
    /// This process's rank.
    pub rank: u32,
    /// Ranks in all.
    pub world_size: u32,
    /// Host name or address at which this rank's peers reach it.
    pub host: String,
    /// Folder for everything that the rank writes. Its own, and empty.
    pub work_dir: PathBuf,
    /// Folder that holds data sets in their official layout.
    pub data_dir: PathBuf,
    /// Threads for one operation.
    pub threads: u32,
    /// Checkpoints to go on from, newest first; each was verified when it was fetched. The first that loads is used.
    pub restore: Vec<PathBuf>,
    /// Final checkpoints of the trials that an evaluation needs, in the order of its networks.
    pub networks: Vec<NetworkFile>,
    /// As [`Command::Lease`], from the rank's first moment on. `None` for a rank without an agent, which never stands still
    /// by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until_ns: Option<u64>,
    /// Where the rank's tensors live.
    #[serde(default)]
    pub device: Device,
    /// Share of the device's memory that the rank may take, above 0 and at most 1. `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_memory_fraction: Option<f64>,
    /// Whether another rank of the attempt has the same device, as can be where several slots share one.
    #[serde(default)]
    pub shares_device: bool,
}

/// Kind of device of a rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    /// The processor.
    #[default]
    #[serde(rename = "cpu")]
    Cpu,
    /// The only GPU that the process sees: its `CUDA_VISIBLE_DEVICES` names no other.
    #[serde(rename = "cuda:0")]
    Cuda,
}

/// Final checkpoint of a train trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFile {
    /// The train trial.
    pub trial: TrialKey,
    /// Its checkpoint.
    pub path: PathBuf,
}

/// From agent to trainer.
///
/// A trainer that was started with `--warm` is sent [`Command::Launch`] first, and what belongs to that launch after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Run this launch. Sent to a warm trainer that said [`Report::Ready`], and to no other.
    Launch {
        /// The launch file.
        path: PathBuf,
        /// Where the process's standard error goes until the rank has ended.
        log: PathBuf,
    },
    /// Where rank 0 hosts the rendezvous store. Sent to every rank but 0, once.
    Rendezvous {
        /// `host:port`.
        address: String,
    },
    /// Write a checkpoint after the current step.
    Checkpoint,
    /// Write a checkpoint after the current step, then end with [`Report::Yielded`].
    Yield,
    /// Stand still (SIGSTOP) at this time, unless a later one is told before: the agent's lease may be over then, and the
    /// agent frozen.
    Lease {
        /// Nanoseconds of the machine's `CLOCK_BOOTTIME`.
        until_ns: u64,
    },
}

/// From trainer to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// A warm trainer waits for a launch: for its first, or for the next, after one that came to its end without a
    /// failure. Nothing that follows it belongs to the launch before.
    Ready,
    /// Rank 0 hosts the rendezvous store here. Only with more than one rank.
    Rendezvous {
        /// `host:port`.
        address: String,
    },
    /// Where training stands. From rank 0, at most a few times a second.
    Progress {
        /// Steps done.
        step: u64,
        /// Steps in all.
        total_steps: u64,
        /// Loss of the last step that was read back.
        loss: Option<f64>,
        /// Steps per second since the last report.
        steps_per_second: Option<f64>,
    },
    /// Measured values. From rank 0.
    Metrics {
        /// Rows.
        rows: Vec<MetricRow>,
    },
    /// A checkpoint file is complete and synced. From rank 0.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// The file. The agent deletes it when it is stored.
        path: PathBuf,
        /// Mean negative log-likelihood of held-out images, of a trial that keeps its best checkpoint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        score: Option<f64>,
    },
    /// A file for the trial's users is complete. From rank 0.
    Artifact {
        /// Name within the trial.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// Something that the user should know, for example a collapsed posterior.
    Warning {
        /// One sentence.
        message: String,
    },
    /// A checkpoint named in [`Launch::restore`] was not usable; the next one is tried.
    CheckpointRefused {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The rank ends because it was asked to, before the trial is done. The last report of a rank that yields; that of
    /// rank 0 comes after its checkpoint.
    Yielded {
        /// Steps done.
        step: u64,
    },
    /// The rank cannot go on. The last report of a rank that fails.
    Failed {
        /// Why.
        cause: FailureCause,
    },
    /// The trial's scores and costs. The last report of rank 0 when it succeeds.
    Done {
        /// Values by name.
        metrics: std::collections::BTreeMap<String, f64>,
    },
}

/// Exit statuses of `credence-trainer`. A cause that was reported on standard output is more exact.
pub mod exit {
    /// The rank did what it was asked.
    pub const SUCCESS: i32 = 0;
    /// A cause was reported on standard output.
    pub const FAILED: i32 = 1;
    /// The launch file is missing or not understood.
    pub const USAGE: i32 = 2;
    /// The agent went away.
    pub const AGENT_LOST: i32 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_of_a_rank_is_written_as_in_pytorch() {
        assert_eq!(serde_json::to_string(&Device::Cuda).unwrap(), r#""cuda:0""#);
        assert_eq!(serde_json::to_string(&Device::default()).unwrap(), r#""cpu""#);
    }
}
