//! Examples in memory: bytes of images as in the file, or real features, with labels and ids, checked once when they
//! are put together.
//!
//! No scaling: that is the [`Batcher`](crate::Batcher)'s.

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

/// Labelled examples of one shape: images, or points with real features, whose shape is `[C, 1, 1]`.
///
/// Shapes, for `N` images: pixels `[N, C, H, W]` row-major, labels `[N]`, ids `[N]`.
/// Units: pixels from 0 to [`max_value`](Self::max_value); features as the data set defines them.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    shape: Shape,
    classes: usize,
    values: Values,
    labels: Vec<u8>,
    ids: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq)]
enum Values {
    Bytes { max_value: u8, pixels: Vec<u8> },
    Reals(Vec<f32>),
}

/// One example, `[C, H, W]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Example<'a> {
    /// Pixels of an image.
    Bytes(&'a [u8]),
    /// Real features.
    Reals(&'a [f32]),
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
    /// A feature is infinite or no number.
    #[error("feature {index} is not finite")]
    NotFinite {
        /// Index among all features.
        index: usize,
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
        if let Some(at) = pixels.iter().position(|&pixel| pixel > max_value) {
            return Err(ImagesError::Pixel { index: at / shape.pixels(), found: pixels[at], max_value });
        }
        Self::checked(shape, classes, pixels.len(), labels, ids)
            .map(|images| Self { values: Values::Bytes { max_value, pixels }, ..images })
    }

    /// Puts points with real features together; `features` is `[N, C]`, and the shape of a point `[C, 1, 1]`.
    ///
    /// # Errors
    ///
    /// [`ImagesError`] when the parts do not fit each other.
    pub fn of_features(
        channels: usize,
        classes: usize,
        features: Vec<f32>,
        labels: Vec<u8>,
        ids: Vec<u32>,
    ) -> Result<Self, ImagesError> {
        if let Some(index) = features.iter().position(|feature| !feature.is_finite()) {
            return Err(ImagesError::NotFinite { index });
        }
        let shape = Shape { channels, height: 1, width: 1 };
        Self::checked(shape, classes, features.len(), labels, ids)
            .map(|images| Self { values: Values::Reals(features), ..images })
    }

    /// Examples without values, for which `found` values are there.
    fn checked(
        shape: Shape,
        classes: usize,
        found: usize,
        labels: Vec<u8>,
        ids: Vec<u32>,
    ) -> Result<Self, ImagesError> {
        let images = labels.len();
        let expected = images * shape.pixels();
        if found != expected {
            return Err(ImagesError::Pixels { found, expected, images, shape });
        }
        if ids.len() != images {
            return Err(ImagesError::Ids { ids: ids.len(), images });
        }
        if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
            return Err(ImagesError::Label { index, label: labels[index], classes });
        }
        Ok(Self { shape, classes, values: Values::Reals(Vec::new()), labels, ids })
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

    /// The pixel value that stands for full intensity; none of real features.
    pub fn max_value(&self) -> Option<u8> {
        match &self.values {
            Values::Bytes { max_value, .. } => Some(*max_value),
            Values::Reals(_) => None,
        }
    }

    /// All pixels, `[N, C, H, W]`; empty for real features.
    pub fn pixels(&self) -> &[u8] {
        match &self.values {
            Values::Bytes { pixels, .. } => pixels,
            Values::Reals(_) => &[],
        }
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

    /// One example.
    ///
    /// # Panics
    ///
    /// When there is no such example.
    pub fn example(&self, index: usize) -> Example<'_> {
        let size = self.shape.pixels();
        let range = index * size..(index + 1) * size;
        match &self.values {
            Values::Bytes { pixels, .. } => Example::Bytes(&pixels[range]),
            Values::Reals(features) => Example::Reals(&features[range]),
        }
    }

    /// Pixels of one image, `[C, H, W]`.
    ///
    /// # Panics
    ///
    /// When there is no such image, or it has real features.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.shape.pixels();
        &self.pixels()[index * size..(index + 1) * size]
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
        let size = self.shape.pixels();
        let values = match &self.values {
            Values::Bytes { max_value, pixels } => {
                Values::Bytes { max_value: *max_value, pixels: gather(pixels, size, indices) }
            }
            Values::Reals(features) => Values::Reals(gather(features, size, indices)),
        };
        Self {
            shape: self.shape,
            classes: self.classes,
            values,
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            ids: indices.iter().map(|&index| self.ids[index]).collect(),
        }
    }

    /// The same labels and ids with other pixels, `[N, C, H, W]` of the shape given, from 0 to 255.
    ///
    /// # Panics
    ///
    /// When the number of pixels is not that of the images.
    #[must_use]
    pub fn with_pixels(&self, shape: Shape, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), self.len() * shape.pixels(), "pixels of {} images of {shape}", self.len());
        Self {
            shape,
            classes: self.classes,
            values: Values::Bytes { max_value: u8::MAX, pixels },
            labels: self.labels.clone(),
            ids: self.ids.clone(),
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

fn gather<T: Copy>(values: &[T], size: usize, indices: &[usize]) -> Vec<T> {
    let mut gathered = Vec::with_capacity(indices.len() * size);
    for &index in indices {
        gathered.extend_from_slice(&values[index * size..(index + 1) * size]);
    }
    gathered
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

    #[test]
    fn real_features_are_selected_like_pixels_and_have_to_be_finite() {
        let points = Images::of_features(2, 2, vec![0.5, 1.0, -2.0, 3.0], vec![0, 1], vec![4, 5]).unwrap();
        assert_eq!(points.shape(), Shape { channels: 2, height: 1, width: 1 });
        assert_eq!(points.select(&[1]).example(0), Example::Reals(&[-2.0, 3.0]));
        assert_eq!((points.max_value(), points.pixels().len()), (None, 0));
        let wrong = Images::of_features(2, 2, vec![0.5, f32::NAN], vec![0], vec![4]);
        assert_eq!(wrong, Err(ImagesError::NotFinite { index: 1 }));
        let wrong = Images::of_features(2, 2, vec![0.5], vec![0], vec![4]);
        assert!(matches!(wrong, Err(ImagesError::Pixels { expected: 2, .. })));
    }
}
