//! Everything that a train trial needs to go on, in one file.
//!
//! Decides what a checkpoint holds and when one is refused. When one is written is the training loop's
//! decision, where it is kept the agent's.

mod file;
mod saver;

use std::collections::HashMap;
use std::path::PathBuf;

use common::{Digest, TrialKey};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::model::NamedTensor;
use crate::storage::{HostTensor, StorageError};
use crate::train::Sgd;

pub use file::{read, write};
pub use saver::Saver;

/// Version of the file's layout. A reader takes no other.
pub const FORMAT: u32 = 1;

/// What a checkpoint says about itself. Stored as JSON under the key `checkpoint` of the file's metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// The train trial.
    pub trial: TrialKey,
    /// Version of the trainer's arithmetic.
    pub numerics: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// Steps done of the epoch after them. With the trial's seed this is the position in the data.
    pub step_in_epoch: u64,
    /// Wall-clock time spent in training, over all attempts, without what was lost after their last checkpoints.
    pub train_seconds: f64,
    /// Device and number of threads: where another one computes, last bits may differ.
    pub computed_on: String,
    /// Loss of the trial's last step. Absent until it is done.
    pub final_loss: Option<f64>,
    /// Most bytes that rank 0 had of its GPU at one time, over all attempts. Absent for a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_device_bytes: Option<u64>,
}

/// A checkpoint in memory, on its way to the disk.
pub struct Snapshot {
    header: Header,
    tensors: Vec<HostTensor>,
    score: Option<f64>,
}

impl Snapshot {
    /// Copies network, optimizer, what the method tracks and the scale of the loss to the host. Training may go on when it returns.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when a tensor cannot be copied.
    pub fn take(
        header: Header,
        network: &[NamedTensor],
        optimizer: &Sgd,
        tracked: &[(String, Tensor)],
        scaler: &[(String, Tensor)],
    ) -> Result<Self, StorageError> {
        let model = network.iter().map(|named| (model_key(&named.name), &named.tensor));
        let momentum = optimizer.momentum().map(|(name, buffer)| (momentum_key(name), buffer));
        let tracked = tracked.iter().map(|(name, tensor)| (tracker_key(name), tensor));
        let scaler = scaler.iter().map(|(name, tensor)| (scaler_key(name), tensor));
        let all = model.chain(momentum).chain(tracked).chain(scaler);
        let tensors = all.map(|(name, tensor)| HostTensor::copy_of(name, tensor));
        Ok(Self { header, tensors: tensors.collect::<Result<_, _>>()?, score: None })
    }

    /// The same, with its score, which is reported beside the file and not written into it.
    pub fn scored(self, score: Option<f64>) -> Self {
        Self { score, ..self }
    }

    /// Its score, if it has one.
    pub fn score(&self) -> Option<f64> {
        self.score
    }

    /// Optimizer steps done.
    pub fn step(&self) -> u64 {
        self.header.step
    }
}

fn model_key(name: &str) -> String {
    format!("model/{name}")
}

fn momentum_key(name: &str) -> String {
    format!("momentum/{name}")
}

fn scaler_key(name: &str) -> String {
    format!("scaler/{name}")
}

fn tracker_key(name: &str) -> String {
    format!("tracker/{name}")
}

/// A checkpoint that was read and is whole.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    header: Header,
    tensors: HashMap<String, Tensor>,
}

/// Why a file is no checkpoint to go on from.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be read, or is not a whole file.
    #[error(transparent)]
    Unreadable(#[from] StorageError),
    /// It lacks what each checkpoint says about itself.
    #[error("`{}` is not a checkpoint", path.display())]
    NoHeader {
        /// Which file.
        path: PathBuf,
    },
    /// Its bytes are not those that were written.
    #[error("`{}` is damaged: its content has digest {found}, its header says {expected}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Digest when it was written.
        expected: Digest,
        /// Digest now.
        found: Digest,
    },
    /// It is whole, but belongs to something else.
    #[error("`{}` does not belong here: {difference}", path.display())]
    Incompatible {
        /// Which file.
        path: PathBuf,
        /// What differs.
        difference: Difference,
    },
}

/// What makes a whole checkpoint useless here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Another layout of the file.
    #[error("it has format {found}, this trainer reads {FORMAT}")]
    Format {
        /// That of the file.
        found: u32,
    },
    /// Another trial.
    #[error("it is of trial {found}, not {expected}")]
    Trial {
        /// The trial that it is for.
        found: TrialKey,
        /// The trial that is run.
        expected: TrialKey,
    },
    /// Another version of the trainer's arithmetic.
    #[error("it was computed with numerics {found}, not {expected}")]
    Numerics {
        /// Of the file.
        found: u32,
        /// Of this trainer.
        expected: u32,
    },
    /// Training was not at its end.
    #[error("it was written after step {step}, before the end of training")]
    Unfinished {
        /// Steps done.
        step: u64,
    },
    /// A tensor of the network is not in it.
    #[error("it has no tensor `{name}`")]
    Missing {
        /// Which.
        name: String,
    },
    /// A tensor of another shape or kind.
    #[error("tensor `{name}` is {found}, the network's is {expected}")]
    Shape {
        /// Which.
        name: String,
        /// In the file.
        found: String,
        /// In the network.
        expected: String,
    },
}

impl Checkpoint {
    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks that it is a checkpoint of `trial`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Incompatible`] when it is not.
    pub fn belongs_to(&self, trial: TrialKey, numerics: u32) -> Result<(), CheckpointError> {
        let header = &self.header;
        if header.trial != trial {
            return Err(self.incompatible(Difference::Trial { found: header.trial, expected: trial }));
        }
        if header.numerics != numerics {
            let difference = Difference::Numerics { found: header.numerics, expected: numerics };
            return Err(self.incompatible(difference));
        }
        Ok(())
    }

    /// Checks that training was at its end.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Incompatible`] when it was not.
    pub fn is_final(&self) -> Result<(), CheckpointError> {
        match self.header.final_loss {
            Some(_) => Ok(()),
            None => Err(self.incompatible(Difference::Unfinished { step: self.header.step })),
        }
    }

    /// Overwrites the tensors of `network` with those stored.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Incompatible`] when one is missing or has another shape; the network is then
    /// partly overwritten and must not be used.
    pub fn restore_network(&self, network: &[NamedTensor]) -> Result<(), CheckpointError> {
        network.iter().try_for_each(|named| self.overwrite(&model_key(&named.name), &named.tensor))
    }

    /// Overwrites what a method tracked.
    ///
    /// # Errors
    ///
    /// As [`restore_network`](Self::restore_network).
    pub fn restore_tracker(&self, tracked: &[(String, Tensor)]) -> Result<(), CheckpointError> {
        tracked.iter().try_for_each(|(name, tensor)| self.overwrite(&tracker_key(name), tensor))
    }

    /// Overwrites the scale of the loss.
    ///
    /// # Errors
    ///
    /// As [`restore_network`](Self::restore_network).
    pub fn restore_scaler(&self, scaler: &[(String, Tensor)]) -> Result<(), CheckpointError> {
        scaler.iter().try_for_each(|(name, tensor)| self.overwrite(&scaler_key(name), tensor))
    }

    /// What a method tracked under this name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Incompatible`] when there is nothing.
    pub fn tracked(&self, name: &str) -> Result<&Tensor, CheckpointError> {
        let missing = || self.incompatible(Difference::Missing { name: tracker_key(name) });
        self.tensors.get(&tracker_key(name)).ok_or_else(missing)
    }

    fn overwrite(&self, key: &str, tensor: &Tensor) -> Result<(), CheckpointError> {
        let Some(stored) = self.tensors.get(key) else {
            return Err(self.incompatible(Difference::Missing { name: key.to_owned() }));
        };
        if (stored.size(), stored.kind()) != (tensor.size(), tensor.kind()) {
            return Err(self.incompatible(Difference::Shape {
                name: key.to_owned(),
                found: describe(stored),
                expected: describe(tensor),
            }));
        }
        let _no_grad = tch::no_grad_guard();
        tensor.shallow_clone().copy_(stored);
        Ok(())
    }

    /// Sets the optimizer's momentum to that stored.
    pub fn restore_momentum(&self, optimizer: &mut Sgd) {
        optimizer.restore_momentum(|name| {
            let stored = self.tensors.get(&momentum_key(name))?;
            Some(stored.copy())
        });
    }

    fn incompatible(&self, difference: Difference) -> CheckpointError {
        CheckpointError::Incompatible { path: self.path.clone(), difference }
    }
}

fn describe(tensor: &Tensor) -> String {
    format!("{:?} of {:?}", tensor.kind(), tensor.size())
}
