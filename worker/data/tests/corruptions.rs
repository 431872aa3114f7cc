//! Corrupted images against those of the libraries that CIFAR-10-C was made with.
//!
//! `fixtures/corruptions.gz`: `fixtures/make_golden_corruptions.py`, which names their versions.

#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::io::Read;
use std::num::NonZeroUsize;

use datasets::{Corruption, Images, Severity, Shape, corrupt};
use flate2::read::GzDecoder;

/// Side, channels, severities and image id, as in the script.
const BLOCKS: [(usize, usize, &[u32], u32); 3] =
    [(16, 3, &[1, 2, 3, 4, 5], 5), (32, 3, &[3], 70_000), (28, 1, &[4], 11)];

/// Largest difference of a value, and how many of a thousand values may differ at all.
///
/// On the machine that this was written on all are equal to the bit. Results are rounded down to bytes, so that
/// elsewhere a last bit of `exp`, `ln` or `sin` may cost a grey level where the exact result is a whole number. What is
/// computed in whole numbers alone has to be equal everywhere.
fn tolerance(corruption: Corruption) -> (u8, usize) {
    if matches!(corruption, Corruption::JpegCompression | Corruption::Pixelate) { (0, 0) } else { (1, 2) }
}

/// Bytes of the fixture, one after the other.
struct Golden(Vec<u8>);

impl Golden {
    fn read() -> Self {
        let file = include_bytes!("../fixtures/corruptions.gz");
        let mut bytes = Vec::new();
        GzDecoder::new(&file[..]).read_to_end(&mut bytes).unwrap();
        bytes.reverse();
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.0.pop().unwrap()).collect()
    }
}

/// `[H, W, C]` to `[C, H, W]`.
fn planes(interleaved: &[u8], channels: usize) -> Vec<u8> {
    (0..channels)
        .flat_map(|c| interleaved.iter().skip(c).step_by(channels).copied().collect::<Vec<_>>())
        .collect()
}

#[test]
fn corrupted_images_are_those_of_the_official_script() {
    let mut golden = Golden::read();
    let mut wrong = Vec::new();
    for (side, channels, severities, id) in BLOCKS {
        let size = side * side * channels;
        let shape = Shape { channels, height: side, width: side };
        let image = planes(&golden.take(size), channels);
        let images = Images::new(shape, 10, 255, image, vec![0], vec![id]).unwrap();
        for corruption in Corruption::ALL {
            let colour = matches!(corruption, Corruption::Spatter | Corruption::Saturate);
            if corruption == Corruption::Frost || (channels == 1 && colour) {
                continue;
            }
            let (mut largest, mut differing) = (0, 0);
            for &severity in severities {
                let expected = planes(&golden.take(size), channels);
                let found = corrupt(&images, corruption, Severity::new(severity).unwrap(), NonZeroUsize::MIN)
                    .unwrap();
                let differences = found.pixels().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
                let here = differences.clone().max().unwrap();
                largest = largest.max(here);
                differing += differences.filter(|difference| *difference > 0).count();
            }
            let (allowed, in_thousand) = tolerance(corruption);
            let values = size * severities.len();
            eprintln!("{side:2} {corruption:18} largest {largest:3}, {differing} of {values} differ");
            if largest > allowed || differing * 1_000 > in_thousand * values {
                wrong.push(format!("{corruption} at side {side}: {largest}, {differing} of {values}"));
            }
        }
    }
    assert!(golden.0.is_empty(), "{} bytes of the fixture are left", golden.0.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
