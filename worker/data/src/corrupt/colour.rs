//! Brightness and saturation in the colour space HSV, and contrast.

use super::{Picture, Severity};
use crate::rng::Stream;

/// Adds to the value of HSV; of a grey image, to the grey.
pub(super) fn brightness(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let added = severity.of([0.05, 0.1, 0.15, 0.2, 0.3]);
    in_hsv(picture, |[h, s, v]| [h, s, (v + added).clamp(0.0, 1.0)])
}

/// Changes the saturation of HSV.
pub(super) fn saturate(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let (factor, added) = severity.of([(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)]);
    in_hsv(picture, |[h, s, v]| [h, (s * factor + added).clamp(0.0, 1.0), v])
}

/// Draws values towards the mean of their channel.
pub(super) fn contrast(picture: &Picture, severity: Severity, _: &mut Stream) -> Picture {
    let factor = severity.of([0.75, 0.5, 0.4, 0.3, 0.15]);
    let values = picture.unit();
    let pixels = (picture.side * picture.side) as f64;
    let means: Vec<f64> = (0..picture.channels)
        .map(|channel| values.iter().skip(channel).step_by(picture.channels).sum::<f64>() / pixels)
        .collect();
    let means = means.iter().cycle();
    picture.with_unit(values.iter().zip(means).map(|(value, mean)| (value - mean) * factor + mean))
}

fn in_hsv(picture: &Picture, change: impl Fn([f64; 3]) -> [f64; 3]) -> Picture {
    let values = picture.unit();
    if picture.channels == 1 {
        return picture.with_unit(values.into_iter().map(|grey| change([0.0, 0.0, grey])[2]));
    }
    let pixels = values.chunks_exact(3);
    picture.with_unit(pixels.flat_map(|pixel| to_rgb(change(to_hsv([pixel[0], pixel[1], pixel[2]])))))
}

/// As scikit-image computes it; of several largest channels the last one decides the hue.
fn to_hsv([red, green, blue]: [f64; 3]) -> [f64; 3] {
    let value = red.max(green).max(blue);
    let spread = value - red.min(green).min(blue);
    if spread == 0.0 {
        return [0.0, 0.0, value];
    }
    let sixths = if blue == value {
        4.0 + (red - green) / spread
    } else if green == value {
        2.0 + (blue - red) / spread
    } else {
        (green - blue) / spread
    };
    [(sixths / 6.0).rem_euclid(1.0), spread / value, value]
}

fn to_rgb([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    let sector = (hue * 6.0).floor();
    let part = hue * 6.0 - sector;
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - part * saturation);
    let rising = value * (1.0 - (1.0 - part) * saturation);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 6")]
    match sector as u8 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}
