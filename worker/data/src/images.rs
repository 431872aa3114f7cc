//! Images in memory: bytes as in the file, with labels and ids, checked once when they are put together.
//!
//! No scaling and no conversion to floats: that is the [`Batcher`](crate::Batcher)'s.

use std::fmt;

/// Channels, height and width of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Number of channels.
    pub channels: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Shape {
    /// Number of pixels of one channel.
    pub fn plane(self) -> usize {
        self.height * self.width
    }

    /// Number of values of one image.
    pub fn pixels(self) -> usize {
        self.channels * self.plane()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}×{}", self.channels, self.height, self.width)
    }
}

/// Labelled images of one shape.
///
/// Shapes, for `N` images: pixels `[N, C, H, W]` row-major, labels `[N]`, ids `[N]`.
/// Units: pixels from 0 to [`max_value`](Self::max_value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    shape: Shape,
    classes: usize,
    max_value: u8,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    ids: Vec<u32>,
}

/// Why parts do not make [`Images`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImagesError {
    /// The number of pixels is not that of the labels' images.
    #[error("{found} pixels for {images} images of {shape}, {expected} are needed")]
    Pixels {
        /// Pixels given.
        found: usize,
        /// Pixels needed.
        expected: usize,
        /// Number of labels.
        images: usize,
        /// Shape of an image.
        shape: Shape,
    },
    /// Labels and ids differ in number.
    #[error("{ids} ids for {images} images")]
    Ids {
        /// Number of ids.
        ids: usize,
        /// Number of labels.
        images: usize,
    },
    /// A label is not below the number of classes.
    #[error("image {index} has label {label}, there are {classes} classes")]
    Label {
        /// Index of the image.
        index: usize,
        /// Its label.
        label: u8,
        /// Number of classes.
        classes: usize,
    },
    /// A pixel is above the largest value.
    #[error("image {index} has a pixel of {found}, the largest value is {max_value}")]
    Pixel {
        /// Index of the image.
        index: usize,
        /// The pixel.
        found: u8,
        /// The largest value allowed.
        max_value: u8,
    },
}

impl Images {
    /// Puts images together from their parts.
    ///
    /// `ids` name each image within its official file (see [`ids`](Self::ids)).
    ///
    /// # Errors
    ///
    /// [`ImagesError`] when the parts do not fit each other.
    pub fn new(
        shape: Shape,
        classes: usize,
        max_value: u8,
        pixels: Vec<u8>,
        labels: Vec<u8>,
        ids: Vec<u32>,
    ) -> Result<Self, ImagesError> {
        let images = labels.len();
        let expected = images * shape.pixels();
        if pixels.len() != expected {
            return Err(ImagesError::Pixels { found: pixels.len(), expected, images, shape });
        }
        if ids.len() != images {
            return Err(ImagesError::Ids { ids: ids.len(), images });
        }
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return Err(ImagesError::Label { index, label: labels[index], classes });
        }
        if let Some(at) = pixels.iter().position(|&pixel| pixel > max_value) {
            return Err(ImagesError::Pixel { index: at / shape.pixels(), found: pixels[at], max_value });
        }
        Ok(Self { shape, classes, max_value, pixels, labels, ids })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape of every image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Number of classes; labels are below it.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The pixel value that stands for full intensity.
    pub fn max_value(&self) -> u8 {
        self.max_value
    }

    /// All pixels, `[N, C, H, W]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All labels, `[N]`.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The position of each image in its official file, `[N]`.
    ///
    /// An id survives every selection of images, so that predictions can be traced to an image and the draws of
    /// its augmentation do not depend on what else was selected. Training and test images are numbered
    /// separately, but for the digits, which come from one file.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Pixels of one image, `[C, H, W]`.
    ///
    /// # Panics
    ///
    /// When there is no such image.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.shape.pixels();
        &self.pixels[index * size..(index + 1) * size]
    }

    /// Number of images of each class.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        for &label in &self.labels {
            counts[usize::from(label)] += 1;
        }
        counts
    }

    /// The images at `indices`, in that order, with their ids.
    ///
    /// # Panics
    ///
    /// When there is no such image.
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * self.shape.pixels());
        for &index in indices {
            pixels.extend_from_slice(self.image(index));
        }
        Self {
            shape: self.shape,
            classes: self.classes,
            max_value: self.max_value,
            pixels,
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            ids: indices.iter().map(|&index| self.ids[index]).collect(),
        }
    }

    /// The same images with other labels, which the caller has made to be below `classes`.
    pub(crate) fn relabelled(mut self, classes: usize, new: impl Fn(u8) -> u8) -> Self {
        for label in &mut self.labels {
            *label = new(*label);
        }
        self.classes = classes;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { channels: 1, height: 1, width: 2 };

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let new = |pixels: &[u8], labels: &[u8], ids: &[u32]| {
            Images::new(SHAPE, 3, 16, pixels.to_vec(), labels.to_vec(), ids.to_vec())
        };
        assert!(new(&[0, 1, 2, 16], &[0, 2], &[5, 6]).is_ok());
        assert!(matches!(new(&[0, 1, 2], &[0, 2], &[5, 6]), Err(ImagesError::Pixels { expected: 4, .. })));
        assert!(matches!(new(&[0, 1, 2, 3], &[0, 2], &[5]), Err(ImagesError::Ids { ids: 1, images: 2 })));
        assert!(matches!(new(&[0, 1, 2, 3], &[0, 3], &[5, 6]), Err(ImagesError::Label { index: 1, .. })));
        assert!(matches!(new(&[0, 1, 17, 3], &[0, 2], &[5, 6]), Err(ImagesError::Pixel { index: 1, .. })));
    }

    #[test]
    fn a_selection_keeps_pixels_labels_and_ids_together() {
        let images =
            Images::new(SHAPE, 3, 255, vec![1, 2, 3, 4, 5, 6], vec![0, 1, 2], vec![7, 8, 9]).unwrap();
        let picked = images.select(&[2, 0]);
        assert_eq!(picked.pixels(), [5, 6, 1, 2]);
        assert_eq!(picked.labels(), [2, 0]);
        assert_eq!(picked.ids(), [9, 7]);
        assert_eq!(picked.class_counts(), [1, 0, 1]);
    }
}
