//! The loaders on real files, when there are any; skipped, and said so, when not.
//!
//! They are looked for in the folder that `CREDENCE_TEST_DATA` names, then in `../shared/data` beside the workspace.
//! `fixtures/real_data.txt` holds what scipy and numpy read in the same files (`fixtures/digest_real_data.py`).

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use datasets::{Completeness, DataError, DatasetName, Images, Split};

use crate::support::{Folder, sha256};

/// Says that a test is skipped, past the test harness, which hides what a passing test prints.
fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").unwrap();
}

/// A real file, or a line on standard error that the test is skipped.
fn real_file(file: &str) -> Option<PathBuf> {
    let given = env::var_os("CREDENCE_TEST_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folders: Vec<_> = given.into_iter().chain([beside]).collect();
    let found = folders.iter().map(|folder| folder.join(file)).find(|path| path.is_file());
    if found.is_none() {
        skipped(&format!("`{file}` is not in {folders:?}; set CREDENCE_TEST_DATA to a folder that holds it"));
    }
    found
}

/// Unpacks `packed` to `to`; false, and a line on standard error, where there is no `xz`.
fn unpack(packed: &Path, to: &Path) -> bool {
    match Command::new("xz").arg("-dc").arg(packed).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, output.stdout).unwrap();
            true
        }
        Err(error) => {
            skipped(&format!("cannot run `xz` to unpack `{}`: {error}", packed.display()));
            false
        }
    }
}

/// Checks images against the line of `real_data.txt` for them.
fn assert_matches_independent_reader(name: DatasetName, split: Split, images: &Images) {
    let line: Vec<_> = include_str!("../../fixtures/real_data.txt")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields[..2] == [name.to_string(), split.to_string()])
        .unwrap();
    let counts: Vec<_> = images.class_counts().iter().map(ToString::to_string).collect();
    let read = [images.len().to_string(), sha256(images.pixels()), sha256(images.labels()), counts.join(",")];
    assert_eq!(line[2..], read, "{name} {split}");
}

fn check_cifar_10(split: Split, file: &str, digest: &str, official_problem: fn(&DataError) -> bool) {
    let path = format!("cifar-10-batches-bin/{file}");
    let Some(packed) = real_file(&format!("{path}.xz")) else { return };
    let folder = Folder::new();
    if !unpack(&packed, &folder.path(&path)) {
        return;
    }
    assert_eq!(sha256(&std::fs::read(folder.path(&path)).unwrap()), digest, "{path}");
    let images = folder.load(DatasetName::Cifar10, split, Completeness::Subset).unwrap();
    assert_matches_independent_reader(DatasetName::Cifar10, split, &images);
    let error = folder.load(DatasetName::Cifar10, split, Completeness::Official).unwrap_err();
    assert!(official_problem(&error), "{error}");
}

#[test]
fn real_cifar_10_training_images_are_read_as_numpy_reads_them() {
    let digest = "25c919756e77f926c2ce5d52f3af2a33de8d75ff7868e4fcd0fa499745217b8d";
    let four_batches_missing =
        |error: &DataError| matches!(error, DataError::Missing { looked, .. } if looked.len() == 4);
    check_cifar_10(Split::Train, "data_batch_1.bin", digest, four_batches_missing);
}

#[test]
fn real_cifar_10_test_images_are_read_as_numpy_reads_them() {
    let digest = "a365c883b8727b5960b1f88c468d807bb5487294a2fb9b0aa2fb8a93024384c3";
    let too_few =
        |error: &DataError| matches!(error, DataError::Count { found: 2_000, expected: 10_000, .. });
    check_cifar_10(Split::Test, "test_batch.bin", digest, too_few);
}

#[test]
fn real_svhn_images_are_read_as_scipy_reads_them() {
    let Some(path) = real_file("svhn/test_32x32.mat") else { return };
    let folder = Folder::new();
    folder.write("svhn/test_32x32.mat", &std::fs::read(path).unwrap());
    let images = folder.load(DatasetName::Svhn, Split::Test, Completeness::Subset).unwrap();
    assert_matches_independent_reader(DatasetName::Svhn, Split::Test, &images);
    let error = folder.load(DatasetName::Svhn, Split::Test, Completeness::Official).unwrap_err();
    assert!(matches!(error, DataError::Count { found: 1_952, expected: 26_032, .. }), "{error}");
}

#[test]
fn real_mnist_test_images_are_complete_and_read_as_numpy_reads_them() {
    let Some(path) = real_file("mnist/t10k-images-idx3-ubyte.gz") else { return };
    let root = datasets::DataFolder::new(path.parent().unwrap().parent().unwrap());
    let images = datasets::load(DatasetName::Mnist, Split::Test, &root, Completeness::Official).unwrap();
    assert_matches_independent_reader(DatasetName::Mnist, Split::Test, &images);
}

/// The whole of Fashion-MNIST has 6,000 training and 1,000 test images of each class.
#[test]
fn real_fashion_mnist_is_complete_and_balanced() {
    let Some(path) = real_file("fashion-mnist/train-images-idx3-ubyte.gz") else { return };
    let root = datasets::DataFolder::new(path.parent().unwrap().parent().unwrap());
    for (split, per_class) in [(Split::Train, 6_000), (Split::Test, 1_000)] {
        let name = DatasetName::FashionMnist;
        let images = datasets::load(name, split, &root, Completeness::Official).unwrap();
        assert_eq!(images.class_counts(), [per_class; 10]);
    }
}
