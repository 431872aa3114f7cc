//! CIFAR-10-C in its official layout, of few images.

use std::path::Path;

use datasets::{
    Completeness, CorruptedFiles, Corruption, DataError, DataFolder, DatasetName, Images, Problem, Severity,
    Split, load,
};

use crate::support::Folder;

const IMAGES: usize = 4;
const PIXELS: usize = 3 * 32 * 32;

/// A `.npy` file of version 1.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Row `row` of `[20, 32, 32, 3]`: every value tells its row, place and channel.
fn value(row: usize, pixel: usize, channel: usize) -> u8 {
    (row * 50 + pixel * 3 + channel).to_le_bytes()[0]
}

struct Set {
    folder: Folder,
    test: Images,
}

fn set() -> Set {
    let folder = Folder::new();
    let records: Vec<u8> =
        (0..IMAGES).flat_map(|label| [vec![label.to_le_bytes()[0]], vec![7; PIXELS]].concat()).collect();
    folder.write("cifar-10-batches-bin/test_batch.bin", &records);
    let rows =
        (0..5 * IMAGES).flat_map(|row| (0..1024).flat_map(move |p| (0..3).map(move |c| value(row, p, c))));
    folder.write("CIFAR-10-C/fog.npy", &npy("|u1", "(20, 32, 32, 3)", &rows.collect::<Vec<_>>()));
    folder.write("CIFAR-10-C/labels.npy", &npy("|u1", "(20,)", &[0, 1, 2, 3].repeat(5)));
    let data = DataFolder::new(folder.root());
    let test = load(DatasetName::Cifar10, Split::Test, &data, Completeness::Subset).unwrap();
    Set { folder, test }
}

fn open(folder: &Path, test: &Images) -> Result<CorruptedFiles, DataError> {
    CorruptedFiles::open(DatasetName::Cifar10, &DataFolder::new(folder), test)
}

fn problem(error: DataError) -> Problem {
    let DataError::Corrupt { problem, .. } = error else { panic!("{error}") };
    problem
}

#[test]
fn each_severity_is_read_from_its_rows_by_the_ids_of_the_images() {
    let Set { folder, test } = set();
    let files = open(folder.root(), &test).unwrap();
    for severity in Severity::ALL {
        let chosen = test.select(&[3, 1]);
        let images = files.read(Corruption::Fog, severity, &chosen).unwrap();
        assert_eq!((images.labels(), images.ids()), (&[3, 1][..], &[3, 1][..]));
        for (index, id) in [3, 1].into_iter().enumerate() {
            let row = (severity.number() as usize - 1) * IMAGES + id;
            let expected: Vec<u8> = (0..3).flat_map(|c| (0..1024).map(move |p| value(row, p, c))).collect();
            assert_eq!(images.image(index), expected);
        }
    }
}

#[test]
fn labels_may_be_written_in_eight_bytes() {
    let Set { folder, test } = set();
    let labels: Vec<u8> = [0_i64, 1, 2, 3].repeat(5).iter().flat_map(|label| label.to_le_bytes()).collect();
    folder.write("CIFAR-10-C/labels.npy", &npy("<i8", "(20,)", &labels));
    assert!(open(folder.root(), &test).is_ok());
}

#[test]
fn corruptions_of_other_images_are_refused() {
    let Set { folder, test } = set();
    let mut labels = [0, 1, 2, 3].repeat(5);
    labels[13] = 9;
    folder.write("CIFAR-10-C/labels.npy", &npy("|u1", "(20,)", &labels));
    assert_eq!(problem(open(folder.root(), &test).unwrap_err()), Problem::OtherLabel { row: 13, found: 9 });
    folder.write("CIFAR-10-C/labels.npy", &npy("|u1", "(15,)", &labels[..15]));
    assert!(matches!(problem(open(folder.root(), &test).unwrap_err()), Problem::Shape { .. }));
}

#[test]
fn missing_or_misshapen_files_are_named() {
    let Set { folder, test } = set();
    let files = open(folder.root(), &test).unwrap();
    let missing = files.read(Corruption::Snow, Severity::ALL[0], &test).unwrap_err().to_string();
    assert!(missing.contains("CIFAR-10-C/snow.npy") && missing.contains("CIFAR-10-C.tar"), "{missing}");
    folder.write("CIFAR-10-C/snow.npy", &npy("|u1", "(20, 3, 32, 32)", &vec![0; 20 * PIXELS]));
    let shape = files.read(Corruption::Snow, Severity::ALL[0], &test).unwrap_err();
    assert!(matches!(problem(shape), Problem::Shape { .. }));
    let none = CorruptedFiles::open(DatasetName::Svhn, &DataFolder::new(folder.root()), &test).unwrap_err();
    assert!(none.to_string().contains("generate them"), "{none}");
}
