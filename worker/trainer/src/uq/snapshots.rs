//! Snapshot and checkpoint ensembles: one network as it was at several moments of its training.
//!
//! Sources: Huang et al., *Snapshot ensembles: train 1, get M for free*, ICLR 2017; Chen, Lundberg, Lee, *Checkpoint
//! ensembles*, 2017.

use common::spec::{SnapshotPlace, SnapshotSettings};
use tch::{Kind, Tensor};

use crate::model::{ModelError, NamedTensor, Role};
use crate::train::{Position, part_end};

const STEPS: &str = "snapshots.steps";

/// A kept tensor.
struct Copy {
    name: String,
    tensor: Tensor,
    role: Role,
}

/// The networks that are kept.
pub(crate) struct SnapshotTracker {
    /// Steps after which they are taken, ascending.
    moments: Vec<u64>,
    kept: Vec<Vec<Copy>>,
    /// Moments of those that were taken; 0 of those to come.
    taken: Tensor,
}

impl SnapshotTracker {
    /// # Errors
    ///
    /// [`ModelError::TooShort`] when training has fewer steps, or epochs, than networks are kept.
    pub(crate) fn new(
        settings: &SnapshotSettings,
        network: &[NamedTensor],
        length: Position,
    ) -> Result<Self, ModelError> {
        let moments = moments(settings, length)?;
        let zeros = |named: &NamedTensor| {
            let tensor = named.tensor.detach().f_zeros_like()?;
            Ok(Copy { name: named.name.clone(), tensor, role: named.role })
        };
        let kept = moments.iter().map(|_| network.iter().map(zeros).collect());
        let kept = kept.collect::<Result<Vec<Vec<Copy>>, ModelError>>()?;
        let device = network.first().map_or(tch::Device::Cpu, |named| named.tensor.device());
        let taken = Tensor::f_zeros([moments.len() as i64], (Kind::Int64, device))?;
        Ok(Self { moments, kept, taken })
    }

    /// Keeps the network after the step number `done`, counted from 0, when it is one of those.
    pub(crate) fn after_step(&mut self, network: &[NamedTensor], done: u64) {
        let Ok(index) = self.moments.binary_search(&(done + 1)) else { return };
        let _no_grad = tch::no_grad_guard();
        for (copy, named) in self.kept[index].iter_mut().zip(network) {
            copy.tensor.copy_(&named.tensor);
        }
        let _ = self.taken.get(index as i64).fill_((done + 1).cast_signed());
    }

    pub(crate) fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let copies = self.kept.iter().enumerate().flat_map(|(index, network)| {
            network.iter().map(move |copy| (copy_name(index as u64, &copy.name), copy.tensor.shallow_clone()))
        });
        copies.chain([(STEPS.to_owned(), self.taken.shallow_clone())]).collect()
    }

    /// All that must be the same on every rank.
    pub(crate) fn learned(&self) -> Vec<Tensor> {
        let learned = |copy: &Copy| match copy.role {
            Role::Weight { .. } | Role::Frozen | Role::State => Some(copy.tensor.shallow_clone()),
            Role::Buffer => None,
        };
        self.kept.iter().flatten().filter_map(learned).chain([self.taken.shallow_clone()]).collect()
    }
}

fn copy_name(index: u64, name: &str) -> String {
    format!("snapshots.{index}/{name}")
}

fn moments(settings: &SnapshotSettings, length: Position) -> Result<Vec<u64>, ModelError> {
    let count = u64::from(settings.count);
    let (have, unit, way_out) = match settings.place {
        SnapshotPlace::CycleEnds => {
            (length.total_steps, "steps", "train for longer, or keep fewer `networks`")
        }
        SnapshotPlace::LastEpochs => (
            length.total_steps / length.steps_per_epoch.max(1),
            "epochs",
            "raise `epochs`, or keep fewer `networks`",
        ),
    };
    if count > have {
        let what = format!("it has {have} {unit} for {count} networks at the ends of {unit}: {way_out}");
        return Err(ModelError::TooShort { what });
    }
    Ok((0..count)
        .map(|index| match settings.place {
            SnapshotPlace::CycleEnds => part_end(length.total_steps, count, index),
            SnapshotPlace::LastEpochs => (have - count + index + 1) * length.steps_per_epoch,
        })
        .collect())
}

/// The kept networks of a checkpoint that prediction uses.
pub(crate) struct Snapshots {
    networks: Vec<Vec<Tensor>>,
    targets: Vec<Tensor>,
}

impl Snapshots {
    /// The last `count` of those `kept`; `stored` finds what the tracker kept.
    pub(crate) fn new<E>(
        network: &[NamedTensor],
        kept: u32,
        count: u32,
        stored: impl Fn(&str) -> Result<Tensor, E>,
    ) -> Result<Self, E> {
        let last = u64::from(kept.saturating_sub(count))..u64::from(kept);
        let networks = last.map(|index| {
            network.iter().map(|named| stored(&copy_name(index, &named.name))).collect::<Result<Vec<_>, E>>()
        });
        Ok(Self {
            networks: networks.collect::<Result<_, E>>()?,
            targets: network.iter().map(|named| named.tensor.shallow_clone()).collect(),
        })
    }

    /// How many.
    pub(crate) fn len(&self) -> i64 {
        self.networks.len() as i64
    }

    /// Makes the network the kept one number `index`, oldest first.
    pub(crate) fn place(&self, index: usize) {
        let _no_grad = tch::no_grad_guard();
        for (target, kept) in self.targets.iter().zip(&self.networks[index]) {
            target.shallow_clone().copy_(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(total_steps: u64, steps_per_epoch: u64) -> Position {
        Position { done: 0, steps_per_epoch, total_steps, train_images: 1 }
    }

    fn settings(count: u32, place: SnapshotPlace) -> SnapshotSettings {
        SnapshotSettings { count, place }
    }

    #[test]
    fn snapshots_are_taken_at_the_ends_of_cycles_and_of_the_last_epochs() {
        let cycles =
            |count, total| moments(&settings(count, SnapshotPlace::CycleEnds), length(total, 3)).unwrap();
        assert_eq!(cycles(4, 12), [3, 6, 9, 12]);
        assert_eq!(cycles(4, 10), [2, 5, 7, 10]);
        assert_eq!(cycles(3, 3), [1, 2, 3]);
        let epochs = moments(&settings(3, SnapshotPlace::LastEpochs), length(35, 7)).unwrap();
        assert_eq!(epochs, [21, 28, 35]);
    }

    #[test]
    fn fewer_steps_or_epochs_than_networks_are_refused() {
        for (place, total) in [(SnapshotPlace::CycleEnds, 3), (SnapshotPlace::LastEpochs, 39)] {
            let refused = moments(&settings(4, place), length(total, 10));
            assert!(matches!(refused, Err(ModelError::TooShort { .. })), "{place:?}");
        }
    }

    #[test]
    fn the_last_kept_networks_are_put_back_oldest_first() {
        let mut network = vec![
            NamedTensor { name: "w".to_owned(), tensor: Tensor::from_slice(&[0.0f32]), role: Role::Frozen },
            NamedTensor {
                name: "bn.running_mean".to_owned(),
                tensor: Tensor::from_slice(&[0.0f32]),
                role: Role::Buffer,
            },
        ];
        let mut tracker =
            SnapshotTracker::new(&settings(3, SnapshotPlace::CycleEnds), &network, length(6, 2)).unwrap();
        for done in 0..6 {
            for named in &mut network {
                let _ = named.tensor.fill_(done as f64 + 1.0);
            }
            tracker.after_step(&network, done);
        }
        let kept = tracker.named_tensors();
        assert_eq!(kept.last().unwrap().1, Tensor::from_slice(&[2i64, 4, 6]));
        assert_eq!(tracker.learned().len(), 3 + 1, "running statistics are each rank's own");
        let stored = |name: &str| -> Result<Tensor, std::convert::Infallible> {
            Ok(kept.iter().find(|(other, _)| other == name).unwrap().1.shallow_clone())
        };
        let Ok(snapshots) = Snapshots::new(&network, 3, 2, stored);
        assert_eq!(snapshots.len(), 2);
        for (index, expected) in [(0, 4.0), (1, 6.0)] {
            snapshots.place(index);
            assert!(network.iter().all(|named| named.tensor.double_value(&[0]) == expected));
        }
    }
}
