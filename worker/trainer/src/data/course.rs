//! The batches of a training, in the order of its steps: what a rank sees when, and where its pixels are made.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use common::spec::Task;
use datasets::{Batch, Batcher, Draft, Shape, Sharding, epoch_order};
use tch::{Device, Tensor};

use super::resident::Resident;
use super::tensors;

/// Batches that are prepared ahead of the step that needs them.
const AHEAD: usize = 4;

/// Which images a rank sees in which step.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Seed of the trial.
    pub seed: u64,
    /// The rank's share of each global batch.
    pub sharding: Sharding,
    /// Images to train on.
    pub images: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps in all.
    pub total_steps: u64,
}

/// Where the pixels of training batches are made.
pub enum Pixels {
    /// On the host, and sent for each step.
    Sent(Shape, Task),
    /// On the device, which has all images.
    Resident(Resident),
}

impl Pixels {
    /// On the device where that is a GPU and the images take a small part of its memory, else on the host.
    pub fn of(batcher: &Batcher, task: Task, device: Device) -> Self {
        let resident = match device {
            Device::Cuda(_) => Resident::where_it_fits(batcher, device),
            Device::Cpu | Device::Mps | Device::Vulkan => None,
        };
        resident.map_or(Self::Sent(batcher.shape(), task), Self::Resident)
    }

    /// Inputs and targets of a batch on the device, as [`tensors`].
    pub fn tensors(&self, batch: &Prepared, device: Device) -> (Tensor, Tensor) {
        match (self, batch) {
            (Self::Sent(shape, task), Prepared::Batch(batch)) => tensors(batch, *shape, *task, device),
            (Self::Resident(images), Prepared::Draft(draft)) => images.tensors(draft),
            (Self::Sent(..), Prepared::Draft(_)) | (Self::Resident(_), Prepared::Batch(_)) => {
                unreachable!("the prefetch prepares what this asked it for")
            }
        }
    }

    /// What the prefetch prepares for it.
    pub fn preparation(&self) -> Preparation {
        match self {
            Self::Sent(..) => Preparation::Batches,
            Self::Resident(_) => Preparation::Drafts,
        }
    }
}

/// What is made ahead of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Pixels.
    Batches,
    /// The draws alone.
    Drafts,
}

/// A batch as far as it is made ahead of its step.
#[derive(Debug, PartialEq)]
pub enum Prepared {
    /// With its pixels.
    Batch(Batch),
    /// What they are made of.
    Draft(Draft),
}

impl Prepared {
    /// Ids of the images.
    pub fn ids(&self) -> &[u32] {
        match self {
            Self::Batch(batch) => &batch.ids,
            Self::Draft(draft) => &draft.ids,
        }
    }
}

/// Prepares the batches of coming steps on a thread of its own.
pub struct Prefetch {
    batches: Receiver<Prepared>,
}

impl Prefetch {
    /// Starts with the batch of the step after `done` steps.
    pub fn start(batcher: Batcher, course: Course, done: u64, preparation: Preparation) -> Self {
        let (sender, batches) = mpsc::sync_channel(AHEAD);
        let span = tracing::Span::current();
        thread::spawn(move || span.in_scope(|| prepare(&batcher, course, done, preparation, &sender)));
        Self { batches }
    }
}

/// The batch of each step, until the last.
impl Iterator for Prefetch {
    type Item = Prepared;

    fn next(&mut self) -> Option<Prepared> {
        self.batches.recv().ok()
    }
}

fn prepare(
    batcher: &Batcher,
    course: Course,
    done: u64,
    preparation: Preparation,
    sender: &SyncSender<Prepared>,
) {
    let steps = course.steps_per_epoch;
    let mut from = done % steps;
    for epoch in done / steps..course.total_steps / steps {
        let order = epoch_order(course.seed, epoch, batcher.images().len());
        for indices in course.sharding.batches(&order).skip(from as usize) {
            let prepared = match preparation {
                Preparation::Batches => {
                    let mut batch = Batch::default();
                    batcher.fill(indices, epoch, &mut batch);
                    Prepared::Batch(batch)
                }
                Preparation::Drafts => Prepared::Draft(batcher.draft(indices, epoch)),
            };
            if sender.send(prepared).is_err() {
                return;
            }
        }
        from = 0;
    }
}
