//! Fewer pixels, and compression.

use super::{Picture, Severity, jpeg};
use crate::resize::{Filter, Raster};
use crate::rng::Stream;

/// Makes the picture smaller and large again, by Pillow's box filter.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a side of a picture, rounded down"
)]
pub(super) fn pixelate(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let part = severity.of([0.95, 0.9, 0.85, 0.75, 0.65]);
    let side = picture.side;
    let small = (side as f64 * part) as usize;
    let raster =
        Raster { width: side, height: side, channels: picture.channels, bytes: picture.bytes.clone() };
    let large = raster.resized(small, small, Filter::Box).resized(side, side, Filter::Box);
    Picture { bytes: large.bytes, ..*picture }
}

/// JPEG with the standard tables and colours at half resolution, as Pillow writes it by default.
pub(super) fn jpeg_compression(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let quality = severity.of([80, 65, 58, 50, 40]);
    let raster = Raster {
        width: picture.side,
        height: picture.side,
        channels: picture.channels,
        bytes: picture.bytes.clone(),
    };
    Picture { bytes: jpeg::compressed(&raster, quality).bytes, ..*picture }
}
