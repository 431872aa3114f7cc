//! Where a train trial goes on from: the newest checkpoint that is whole, or the beginning.
//!
//! Rank 0 alone reads checkpoints and sends what it read to the others, so that all start from the same bits
//! even when the ranks were given different files.

use std::path::PathBuf;

use common::TrialKey;
use common::report::{Launch, Report};
use common::spec::NUMERICS;
use tch::{Device, Tensor};

use super::Sgd;
use super::scaler::GradScaler;
use super::tracker::Tracker;
use crate::agent::Reporter;
use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::error::{TrainerError, chain};
use crate::group::Group;
use crate::model::Network;

/// State of a trial that is not in its tensors.
pub struct Start {
    /// Steps done.
    pub step: u64,
    /// Time that they took; known to rank 0 only, 0 elsewhere.
    pub train_seconds: f64,
    /// As in the checkpoint's header; known to rank 0 only.
    pub final_loss: Option<f64>,
    /// As in the checkpoint's header; known to rank 0 only.
    pub peak_before: Option<u64>,
}

/// What is restored.
pub struct State<'a> {
    /// Network.
    pub network: &'a Network,
    /// Optimizer.
    pub optimizer: &'a mut Sgd,
    /// What the method remembers.
    pub tracker: &'a Tracker,
    /// Scale of the loss, in half precision.
    pub scaler: Option<&'a GradScaler>,
    /// Of the rank.
    pub device: Device,
}

/// Restores the state of training on all ranks. A collective.
///
/// # Errors
///
/// A checkpoint of another trial ends the attempt; one that is damaged is reported and the next is tried.
pub fn restore(
    launch: &Launch,
    key: TrialKey,
    State { network, optimizer, tracker, scaler, device }: State<'_>,
    group: &Group,
    reporter: &Reporter,
) -> Result<Start, TrainerError> {
    let tensors = network.named_tensors();
    let tracked = tracker.named_tensors();
    let scale = scaler.map(GradScaler::named_tensors).unwrap_or_default();
    let mut start = Start { step: 0, train_seconds: 0.0, final_loss: None, peak_before: None };
    if group.is_first()
        && let Some(checkpoint) = newest_whole(&launch.restore, reporter)?
    {
        checkpoint.belongs_to(key, NUMERICS)?;
        checkpoint.restore_network(&tensors)?;
        checkpoint.restore_momentum(optimizer);
        checkpoint.restore_tracker(&tracked)?;
        checkpoint.restore_scaler(&scale)?;
        let header = checkpoint.header();
        warn_if_computed_elsewhere(&header.computed_on, &computed_on(launch, device), reporter);
        start = Start {
            step: header.step,
            train_seconds: header.train_seconds,
            final_loss: header.final_loss,
            peak_before: header.peak_device_bytes,
        };
        tracing::info!(step = start.step, "restored a checkpoint");
    }
    let momentum = i64::from(optimizer.momentum().next().is_some());
    let state = Tensor::from_slice(&[start.step.cast_signed(), momentum]);
    group.broadcast([&state])?;
    start.step = state.int64_value(&[0]).cast_unsigned();
    if state.int64_value(&[1]) != 0 && !group.is_first() {
        optimizer.allocate_momentum();
    }
    group.broadcast(tensors.iter().map(|named| &named.tensor))?;
    group.broadcast(optimizer.momentum().map(|(_, buffer)| buffer))?;
    group.broadcast(tracked.iter().map(|(_, tensor)| tensor))?;
    group.broadcast(scale.iter().map(|(_, tensor)| tensor))?;
    Ok(start)
}

/// The first checkpoint that is whole. Each that is not is reported.
fn newest_whole(paths: &[PathBuf], reporter: &Reporter) -> Result<Option<Checkpoint>, CheckpointError> {
    for path in paths {
        match checkpoint::read(path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error @ CheckpointError::Incompatible { .. }) => return Err(error),
            Err(
                error @ (CheckpointError::Unreadable(_)
                | CheckpointError::NoHeader { .. }
                | CheckpointError::Damaged { .. }),
            ) => {
                let message = chain(&error);
                tracing::warn!(path = %path.display(), message, "checkpoint refused");
                reporter.send(&Report::CheckpointRefused { path: path.clone(), message });
            }
        }
    }
    Ok(None)
}

/// What a run's bits depend on beside its specification.
pub fn computed_on(launch: &Launch, device: Device) -> String {
    format!("{device:?}, {} threads", launch.threads)
}

fn warn_if_computed_elsewhere(before: &str, now: &str, reporter: &Reporter) {
    if before != now {
        let message = format!(
            "the trial goes on with {now}, its checkpoint was computed with {before}: \
             the result may differ in the last bits from one that was never interrupted"
        );
        reporter.send(&Report::Warning { message });
    }
}
