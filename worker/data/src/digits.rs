//! The bundled digits and their division into training and test images.
//!
//! The file (see `digits/README.md`) is the test part of the UCI data set, which its owners do not divide further.
//! Our division: 500 of the 1,797 images are test images, stratified by class (each class in proportion, by largest
//! remainder); within a class those images are taken whose id, the position in the file, draws the smallest 64-bit
//! number from the stream (seed 0, purpose "digits test", id) of [`rng`](crate::rng). It is fixed for good: results
//! of different versions are compared on the same images. The writers are not named in the file, so that a writer
//! may occur in both parts.

use std::path::Path;

use crate::error::{DataError, Flaw, Position, Problem};
use crate::images::Images;
use crate::load::consecutive_ids;
use crate::name::{DatasetName, Split};
use crate::partition::stratified;
use crate::rng::Purpose;
use crate::source;

static FILE: &[u8] = include_bytes!("../digits/digits.csv.gz");
const FIELDS: usize = 65;

pub(crate) fn load(split: Split) -> Result<Images, DataError> {
    let images = parse(FILE).map_err(|flaw| flaw.of(Path::new("digits.csv.gz (bundled)")))?;
    let test_images = DatasetName::Digits.official_len(Split::Test);
    let (test, train) = stratified(&images, test_images, Purpose::DIGITS_TEST);
    Ok(match split {
        Split::Train => images.select(&train),
        Split::Test => images.select(&test),
    })
}

fn parse(file: &[u8]) -> Result<Images, Flaw> {
    const LIMIT: u64 = 1 << 20;
    let name = DatasetName::Digits;
    let text = source::gunzip(file, LIMIT)?;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let mut offset = 0;
    for (line, number) in text.split_inclusive(|&byte| byte == b'\n').zip(1_u64..) {
        let fields = fields(line).filter(|fields| {
            let (label, pixels) = (fields[FIELDS - 1], &fields[..FIELDS - 1]);
            usize::from(label) < name.classes() && pixels.iter().all(|&pixel| pixel <= name.max_value())
        });
        let Some(fields) = fields else {
            let position = Position::Inflated { part: 0, offset };
            return Err(Flaw::at(position, Problem::Line { line: number, fields: FIELDS as u64 }));
        };
        pixels.extend_from_slice(&fields[..FIELDS - 1]);
        labels.push(fields[FIELDS - 1]);
        offset += line.len() as u64;
    }
    let ids = consecutive_ids(labels.len());
    Ok(Images::new(name.shape(), name.classes(), name.max_value(), pixels, labels, ids)
        .expect("every line was checked"))
}

fn fields(line: &[u8]) -> Option<[u8; FIELDS]> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let fields: Vec<u8> = line.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use sha2::{Digest, Sha256};

    use super::*;

    fn compressed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// The digest that `digits/README.md` names.
    #[test]
    fn the_bundled_file_is_the_one_that_its_readme_names() {
        let digest: String = Sha256::digest(FILE).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("../digits/README.md").contains(&digest));
    }

    #[test]
    fn the_parts_have_their_official_sizes_and_are_stratified() {
        let (train, test) = (load(Split::Train).unwrap(), load(Split::Test).unwrap());
        assert_eq!((train.len(), test.len()), (1_297, 500));
        assert_eq!(parse(FILE).unwrap().class_counts(), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let counts = test.class_counts();
        assert!(counts.iter().all(|&count| (48..=51).contains(&count)), "{counts:?}");
    }

    #[test]
    fn no_test_image_is_in_training_by_id_or_by_content() {
        let (train, test) = (load(Split::Train).unwrap(), load(Split::Test).unwrap());
        let mut ids: Vec<_> = train.ids().iter().chain(test.ids()).copied().collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..1_797), "every image is in one part");
        let training: HashSet<_> = (0..train.len()).map(|index| train.image(index)).collect();
        assert_eq!(training.len(), train.len(), "the file has no duplicates");
        assert!((0..test.len()).all(|index| !training.contains(test.image(index))));
    }

    #[test]
    fn the_normalisation_constants_are_those_of_the_training_images() {
        let train = load(Split::Train).unwrap();
        let n = train.pixels().len() as f64;
        let scaled = || train.pixels().iter().map(|&pixel| f64::from(pixel) / 16.0);
        let mean = scaled().sum::<f64>() / n;
        let std = (scaled().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
        let constants = DatasetName::Digits.normalization();
        assert!((mean - f64::from(constants.mean[0])).abs() < 5e-5, "mean {mean}");
        assert!((std - f64::from(constants.std[0])).abs() < 5e-5, "std {std}");
    }

    #[test]
    fn a_line_that_is_no_image_is_named_with_its_place() {
        let good = format!("{}7\n", "16,".repeat(64));
        let problem = |line: &str| parse(&compressed(&format!("{good}{line}"))).unwrap_err();
        for bad in [
            format!("{}10\n", "0,".repeat(64)),
            format!("{}17,7\n", "0,".repeat(63)),
            format!("{}7\n", "0,".repeat(63)),
            format!("{}7\n", "0,".repeat(65)),
            format!("{}x\n", "0,".repeat(64)),
        ] {
            let flaw = problem(&bad);
            assert_eq!(flaw.problem, Problem::Line { line: 2, fields: 65 }, "{bad}");
            assert_eq!(flaw.position, Position::Inflated { part: 0, offset: good.len() as u64 });
        }
        assert_eq!(parse(&compressed(&good)).unwrap().labels(), [7]);
    }
}
