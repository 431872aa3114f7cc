//! Agreement with `fixtures/make_golden.py`, which implements the same definitions in Python and shares no code.

use std::sync::Arc;

use datasets::rng::{Purpose, Stream};
use datasets::{
    Batch, Batcher, Completeness, DataFolder, DatasetName, Images, Shape, Split, epoch_order, load,
};

use crate::support::{Folder, sha256};

/// The lines of `golden.txt` that start with `kind`, without it.
fn golden(kind: &str) -> Vec<Vec<&'static str>> {
    let lines: Vec<Vec<_>> = include_str!("../../fixtures/golden.txt")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[0] == kind)
        .map(|fields| fields[1..].to_vec())
        .collect();
    assert!(!lines.is_empty(), "golden.txt has no `{kind}`");
    lines
}

fn le_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn pattern(count: usize) -> Vec<u8> {
    let value = |at: usize| at / 3_072 * 101 + at / 1_024 % 3 * 59 + at / 32 % 32 * 7 + at % 32 * 3;
    (0..count * 3_072).map(|at| u8::try_from(value(at) % 256).unwrap()).collect()
}

#[test]
fn streams_give_the_words_of_the_second_implementation() {
    for line in golden("stream") {
        let indices: Vec<u64> = match line[2] {
            "-" => Vec::new(),
            indices => indices.split(',').map(|index| index.parse().unwrap()).collect(),
        };
        let mut stream = Stream::new(line[0].parse().unwrap(), Purpose::named(line[1]), &indices);
        for word in &line[3..] {
            assert_eq!(format!("{:08x}", stream.u32()), *word, "{line:?}");
        }
    }
}

#[test]
fn epoch_orders_are_those_of_the_second_implementation() {
    for line in golden("order") {
        let numbers: Vec<u64> = line[..3].iter().map(|number| number.parse().unwrap()).collect();
        let order = epoch_order(numbers[0], numbers[1], usize::try_from(numbers[2]).unwrap());
        assert_eq!(sha256(&le_bytes(&order)), line[3], "{line:?}");
    }
}

#[test]
fn the_division_of_the_digits_is_that_of_the_second_implementation() {
    let root = DataFolder::new("");
    let test = load(DatasetName::Digits, Split::Test, &root, Completeness::Official).unwrap();
    let line = &golden("digits-test-ids")[0];
    assert_eq!(test.len().to_string(), line[0]);
    assert_eq!(sha256(&le_bytes(test.ids())), line[1]);
}

/// Bit for bit: both sides divide by 255, subtract and divide in f32, in this order.
#[test]
fn an_augmented_batch_is_that_of_the_second_implementation() {
    let name = DatasetName::Cifar10;
    let shape = Shape { channels: 3, height: 32, width: 32 };
    let images = Images::new(shape, 10, 255, pattern(64), vec![0; 64], (0..64).collect()).unwrap();
    let line = &golden("augmented")[0];
    assert_eq!(line[..3], ["99", "3", "64"]);
    let batcher = Batcher::new(Arc::new(images), name.normalization(), name.augmentation(), 99).unwrap();
    let mut batch = Batch::default();
    batcher.fill(&(0..64).collect::<Vec<u32>>(), 3, &mut batch);
    let bytes: Vec<u8> = batch.pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(sha256(&bytes), line[3]);
}

/// `fixtures/svhn_scipy.mat`: five images written, and read back, by scipy.
#[test]
fn a_matlab_file_of_scipy_is_read_as_scipy_reads_it() {
    let folder = Folder::new();
    folder.write("svhn/test_32x32.mat", include_bytes!("../../fixtures/svhn_scipy.mat"));
    let images = folder.load(DatasetName::Svhn, Split::Test, Completeness::Subset).unwrap();
    let line = &golden("svhn-scipy")[0];
    assert_eq!(images.len().to_string(), line[0]);
    assert_eq!(sha256(images.pixels()), line[1]);
    assert_eq!(sha256(images.labels()), line[2]);
}
