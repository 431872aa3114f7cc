//! Training images that the device has all of, as bytes: for a step it is told the draws, and makes the batch.
//!
//! The same numbers as on the host, to the bit: pixels are moved and looked up in the host's own table, and nothing is computed
//! with them.

use c10d::cuda;
use datasets::{Batcher, Draft, Shape};
use tch::{Device, Kind, Tensor};

use super::sent;

/// Part of the free memory of a GPU that images may take.
const PART: u64 = 8;

/// Images on a device.
pub struct Resident {
    /// `[N, C, H, W]`, bytes.
    images: Tensor,
    /// `[C · 256]`.
    table: Tensor,
    shape: Shape,
    device: Device,
}

impl Resident {
    /// The images of `batcher` on `device`, if they are bytes and take a small part of its memory.
    pub fn where_it_fits(batcher: &Batcher, device: Device) -> Option<Self> {
        let Device::Cuda(index) = device else { return None };
        let free = cuda::memory(index).ok()?.free;
        let bytes = batcher.images().pixels().len() as u64;
        if bytes > free / PART {
            return None;
        }
        Self::new(batcher, device)
    }

    fn new(batcher: &Batcher, device: Device) -> Option<Self> {
        let table = batcher.table()?.as_flattened();
        let shape = batcher.shape();
        let axes =
            [batcher.images().len(), shape.channels, shape.height, shape.width].map(|axis| axis as i64);
        let images = Tensor::from_slice(batcher.images().pixels()).view(axes).to_device(device);
        Some(Self { images, table: Tensor::from_slice(table).to_device(device), shape, device })
    }

    /// Inputs and labels of a batch.
    ///
    /// Shapes: inputs `[B, C, H, W]`, labels `[B]`.
    pub fn tensors(&self, draft: &Draft) -> (Tensor, Tensor) {
        let _no_grad = tch::no_grad_guard();
        let [channels, height, width] =
            [self.shape.channels, self.shape.height, self.shape.width].map(|axis| axis as i64);
        // One copy to the device: positions, labels and changes side by side.
        let count = draft.positions.len() as i64;
        let packed = [&draft.positions[..], &draft.labels[..], &draft.changes[..]].concat();
        let packed = sent(&Tensor::from_slice(&packed), self.device);
        let positions = packed.narrow(0, 0, count).view([count, 1, 1, 1]);
        let labels = packed.narrow(0, count, count);
        let changes =
            packed.narrow(0, 2 * count, count * Draft::CHANGES as i64).view([count, Draft::CHANGES as i64]);
        let change = |index: i64| changes.select(1, index).unsqueeze(1);

        let along = |length: i64| Tensor::arange(length, (Kind::Int64, self.device)).unsqueeze(0);
        let (rows, columns) = (along(height), along(width));
        let source_rows = &rows + change(0);
        let mirrored = change(2).ne(0);
        let source_columns = (width - 1 - &columns).where_self(&mirrored, &columns) + change(1);
        let inside = |at: &Tensor, length: i64| at.ge(0).logical_and(&at.lt(length));
        let (rows_inside, columns_inside) = (inside(&source_rows, height), inside(&source_columns, width));

        let channel = Tensor::arange(channels, (Kind::Int64, self.device)).view([1, channels, 1, 1]);
        let at_rows = source_rows.clamp(0, height - 1).view([count, 1, height, 1]);
        let at_columns = source_columns.clamp(0, width - 1).view([count, 1, 1, width]);
        let place = ((positions * channels + &channel) * height + at_rows) * width + at_columns;
        let values = self.images.view([-1]).take(&place).to_kind(Kind::Int64);
        let visible =
            rows_inside.view([count, 1, height, 1]).logical_and(&columns_inside.view([count, 1, 1, width]));
        let values = values * visible.to_kind(Kind::Int64);
        let pixels = self.table.take(&(values + channel * 256));

        let within = |at: &Tensor, first: i64, end: i64| {
            at.ge_tensor(&change(first)).logical_and(&at.lt_tensor(&change(end)))
        };
        let hole = within(&rows, 3, 4)
            .view([count, 1, height, 1])
            .logical_and(&within(&columns, 5, 6).view([count, 1, 1, width]));
        (pixels.masked_fill(&hole, 0.0), labels)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datasets::{
        Augmentation, Batch, Completeness, Crop, Cutout, DataFolder, DatasetName, Flip, Images,
        Normalization, Split, load,
    };

    use super::*;

    /// Colours, and neither square nor as high as wide.
    fn colours() -> Arc<Images> {
        let shape = Shape { channels: 3, height: 5, width: 7 };
        let count = 20;
        let pixels = (0..count * shape.pixels()).map(|at| u8::try_from(at * 37 % 251).unwrap()).collect();
        let labels = (0..count).map(|at| u8::try_from(at % 4).unwrap()).collect();
        let ids = (0..u32::try_from(count).unwrap()).map(|id| 3 * id + 1).collect();
        Arc::new(Images::new(shape, 4, 255, pixels, labels, ids).unwrap())
    }

    fn digits() -> Arc<Images> {
        let folder = DataFolder::new("");
        Arc::new(load(DatasetName::Digits, Split::Train, &folder, Completeness::Official).unwrap())
    }

    #[test]
    fn a_batch_that_the_device_makes_is_the_hosts_to_the_bit() {
        let colour = Normalization { mean: &[0.49, 0.48, 0.44], std: &[0.2, 0.21, 0.22] };
        let sets = [(colours(), colour), (digits(), DatasetName::Digits.normalization())];
        let crop = Some(Crop { padding: 3 });
        let augmentations = [
            Augmentation::NONE,
            Augmentation { crop, ..Augmentation::NONE },
            Augmentation { flip: Flip::Horizontal, ..Augmentation::NONE },
            Augmentation { cutout: Some(Cutout { size: 4 }), ..Augmentation::NONE },
            Augmentation { crop, flip: Flip::Horizontal, cutout: Some(Cutout { size: 3 }) },
        ];
        for (images, normalization) in sets {
            for augmentation in augmentations {
                let batcher = Batcher::new(Arc::clone(&images), normalization, augmentation, 5).unwrap();
                let resident = Resident::new(&batcher, Device::Cpu).unwrap();
                for epoch in 0..4 {
                    let indices = [3, 0, 19, 7, 7, 12];
                    let mut batch = Batch::default();
                    batcher.fill(&indices, epoch, &mut batch);
                    let task = common::spec::Task::Classification;
                    let (expected, labels) =
                        super::super::tensors(&batch, batcher.shape(), task, Device::Cpu);
                    let draft = batcher.draft(&indices, epoch);
                    let (found, found_labels) = resident.tensors(&draft);
                    assert_eq!(found.kind(), Kind::Float);
                    // −0 is another number than 0 here.
                    assert!(
                        found.view_dtype(Kind::Int).equal(&expected.view_dtype(Kind::Int)),
                        "{augmentation:?}"
                    );
                    assert_eq!((found_labels, draft.ids), (labels, batch.ids));
                }
            }
        }
    }

    #[test]
    fn images_are_kept_on_gpus_alone() {
        let batcher =
            Batcher::new(digits(), DatasetName::Digits.normalization(), Augmentation::NONE, 0).unwrap();
        assert!(Resident::where_it_fits(&batcher, Device::Cpu).is_none());
    }
}
