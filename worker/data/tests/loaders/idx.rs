//! MNIST and Fashion-MNIST, plain and gzip.

use std::io::Write;

use datasets::{Completeness, DataError, DatasetName, Images, Position, Problem, Split};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::Folder;

const IMAGES: &str = "mnist/t10k-images-idx3-ubyte";
const LABELS: &str = "mnist/t10k-labels-idx1-ubyte";

fn images(count: u32) -> Vec<u8> {
    let pixels = (0..count * 784).map(|at| (at * 5 % 251).to_le_bytes()[0]);
    [2051, count, 28, 28].iter().flat_map(|word: &u32| word.to_be_bytes()).chain(pixels).collect()
}

fn labels(labels: &[u8]) -> Vec<u8> {
    let header = [2049, u32::try_from(labels.len()).unwrap()];
    header.iter().flat_map(|word: &u32| word.to_be_bytes()).chain(labels.iter().copied()).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn load(folder: &Folder) -> Result<Images, DataError> {
    folder.load(DatasetName::Mnist, Split::Test, Completeness::Subset)
}

/// What is wrong when `images` and `labels` are loaded.
fn flaw(images: &[u8], labels: &[u8]) -> (String, Position, Problem) {
    let folder = Folder::new();
    folder.write(IMAGES, images);
    folder.write(LABELS, labels);
    let error = load(&folder).unwrap_err();
    let DataError::Corrupt { path, position, problem } = error else { panic!("{error}") };
    (path.file_name().unwrap().to_str().unwrap().to_owned(), position, problem)
}

#[test]
fn plain_and_compressed_files_give_the_same_images() {
    let (plain, compressed) = (Folder::new(), Folder::new());
    plain.write(IMAGES, &images(3));
    plain.write(LABELS, &labels(&[7, 0, 9]));
    compressed.write(&format!("{IMAGES}.gz"), &gzip(&images(3)));
    compressed.write(&format!("{LABELS}.gz"), &gzip(&labels(&[7, 0, 9])));
    let read = load(&plain).unwrap();
    assert_eq!(read, load(&compressed).unwrap());
    assert_eq!(read.labels(), [7, 0, 9]);
    assert_eq!(read.ids(), [0, 1, 2]);
    assert_eq!(read.pixels(), &images(3)[16..]);
}

#[test]
fn fashion_mnist_has_its_own_folder_and_training_files() {
    let folder = Folder::new();
    folder.write("fashion-mnist/train-images-idx3-ubyte", &images(1));
    folder.write("fashion-mnist/train-labels-idx1-ubyte", &labels(&[4]));
    let read = folder.load(DatasetName::FashionMnist, Split::Train, Completeness::Subset).unwrap();
    assert_eq!(read.labels(), [4]);
    let error = folder.load(DatasetName::FashionMnist, Split::Train, Completeness::Official).unwrap_err();
    assert!(matches!(error, DataError::Count { found: 1, expected: 60_000, .. }), "{error}");
}

#[test]
fn a_missing_file_is_looked_for_plain_and_compressed() {
    let folder = Folder::new();
    folder.write(IMAGES, &images(1));
    let error = load(&folder).unwrap_err();
    let message = error.to_string();
    let DataError::Missing { looked, .. } = error else { panic!("{error}") };
    assert_eq!(looked, [folder.path(LABELS), folder.path(&format!("{LABELS}.gz"))]);
    assert!(
        message.contains("t10k-labels-idx1-ubyte.gz (MD5 ec29112dd5afa0611ce80d1b7f02629c)"),
        "{message}"
    );
}

#[test]
fn headers_that_are_wrong_are_named_with_their_place() {
    let good = labels(&[1, 2]);
    let file = "t10k-images-idx3-ubyte".to_owned();

    let problem = Problem::Magic { found: 2049, expected: 2051 };
    assert_eq!(flaw(&labels(&[1]), &good), (file.clone(), Position::File(0), problem));

    let mut wide = images(2);
    wide[15] = 29;
    let problem = Problem::Shape { found: vec![2, 28, 29], expected: "N×28×28" };
    assert_eq!(flaw(&wide, &good), (file.clone(), Position::File(8), problem));

    let mut many = images(2);
    many[4..8].fill(0xFF);
    let problem = Problem::Truncated { needed: u64::from(u32::MAX) * 784, left: 1_568 };
    assert_eq!(flaw(&many, &good), (file.clone(), Position::File(16), problem));

    let longer = [images(2), vec![0; 5]].concat();
    assert_eq!(flaw(&longer, &good), (file, Position::File(1_584), Problem::Trailing { left: 5 }));
}

#[test]
fn labels_that_are_wrong_are_named_with_their_place() {
    let file = "t10k-labels-idx1-ubyte".to_owned();
    let problem = Problem::Labels { images: 3, labels: 2 };
    assert_eq!(flaw(&images(3), &labels(&[1, 2])), (file.clone(), Position::File(4), problem));
    let problem = Problem::Label { found: 10, first: 0, last: 9 };
    assert_eq!(flaw(&images(3), &labels(&[1, 2, 10])), (file, Position::File(10), problem));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (images, labels) = (images(2), labels(&[1, 2]));
    for cut in (0..16).chain((16..images.len()).step_by(53)) {
        let (file, _, problem) = flaw(&images[..cut], &labels);
        assert_eq!(file, "t10k-images-idx3-ubyte");
        assert!(matches!(problem, Problem::Truncated { .. }), "cut {cut}: {problem}");
    }
    for cut in 0..labels.len() {
        let (file, _, problem) = flaw(&images, &labels[..cut]);
        assert_eq!(file, "t10k-labels-idx1-ubyte");
        assert!(matches!(problem, Problem::Truncated { .. }), "cut {cut}: {problem}");
    }
}

#[test]
fn a_changed_byte_of_a_compressed_file_never_changes_the_images() {
    let folder = Folder::new();
    folder.write(LABELS, &labels(&[1, 2]));
    let compressed = gzip(&images(2));
    folder.write(&format!("{IMAGES}.gz"), &compressed);
    let reference = load(&folder).unwrap();
    let mut refused = 0;
    for at in 0..compressed.len() {
        for mask in [0x01, 0x10, 0xFF] {
            let mut changed = compressed.clone();
            changed[at] ^= mask;
            folder.write(&format!("{IMAGES}.gz"), &changed);
            match load(&folder) {
                // Time, flags of the compressor and operating system stand in the header and mean nothing here.
                Ok(read) => assert!(at < 10 && read == reference, "byte {at}"),
                Err(DataError::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
    assert!(refused >= 3 * (compressed.len() - 10), "{refused}");
}
