//! CIFAR-10 and CIFAR-100 binary files.

use datasets::{
    Cifar100Labels, Completeness, DataError, DataFolder, DatasetName, Position, Problem, Split,
    load_cifar_100,
};

use crate::support::Folder;

const TEN: DatasetName = DatasetName::Cifar10;
const HUNDRED: DatasetName = DatasetName::Cifar100;
const SUBSET: Completeness = Completeness::Subset;
const OFFICIAL: Completeness = Completeness::Official;

/// A record whose pixels differ by channel, row and column.
fn record(labels: &[u8], salt: usize) -> Vec<u8> {
    let pixels = (0..3_072).map(|at| u8::try_from((at * 7 + salt) % 256).unwrap());
    labels.iter().copied().chain(pixels).collect()
}

fn batch(labels: &[u8], salt: usize) -> Vec<u8> {
    labels.iter().enumerate().flat_map(|(at, &label)| record(&[label], salt + at)).collect()
}

#[test]
fn the_five_training_batches_are_read_in_order() {
    let folder = Folder::new();
    for number in 1..=5_u8 {
        let content = batch(&[number, 9 - number], usize::from(number) * 10);
        folder.write(&format!("cifar-10-batches-bin/data_batch_{number}.bin"), &content);
    }
    let images = folder.load(TEN, Split::Train, SUBSET).unwrap();
    assert_eq!(images.labels(), [1, 8, 2, 7, 3, 6, 4, 5, 5, 4]);
    assert_eq!(images.ids(), [0, 1, 10_000, 10_001, 20_000, 20_001, 30_000, 30_001, 40_000, 40_001]);
    for (index, salt) in [(0, 10), (1, 11), (9, 51)] {
        assert_eq!(images.image(index), &record(&[0], salt)[1..], "image {index}");
    }
    assert_eq!((images.classes(), images.max_value()), (10, Some(255)));
}

#[test]
fn a_subset_may_lack_batches_and_keeps_the_official_ids() {
    let folder = Folder::new();
    folder.write("cifar-10-batches-bin/data_batch_3.bin", &batch(&[4], 0));
    assert_eq!(folder.load(TEN, Split::Train, SUBSET).unwrap().ids(), [20_000]);
    let error = folder.load(TEN, Split::Train, OFFICIAL).unwrap_err();
    let DataError::Missing { looked, .. } = error else { panic!("{error}") };
    let absent = [1, 2, 4, 5].map(|n| folder.path(&format!("cifar-10-batches-bin/data_batch_{n}.bin")));
    assert_eq!(looked, absent);
}

#[test]
fn the_official_number_of_images_is_accepted_and_one_more_or_fewer_is_not() {
    let folder = Folder::new();
    let file = "cifar-10-batches-bin/test_batch.bin";
    folder.write_zeros(file, 10_000 * 3_073);
    assert_eq!(folder.load(TEN, Split::Test, OFFICIAL).unwrap().len(), 10_000);
    for (count, completeness) in [(9_999, OFFICIAL), (10_001, OFFICIAL), (10_001, SUBSET), (0, SUBSET)] {
        folder.write_zeros(file, count * 3_073);
        let error = folder.load(TEN, Split::Test, completeness).unwrap_err();
        let message = error.to_string();
        let DataError::Count { found, expected: 10_000, .. } = error else { panic!("{error}") };
        assert_eq!(found, count);
        assert!(message.contains(&count.to_string()) && message.contains("10000"), "{message}");
        // Only too few images can be a subset.
        assert_eq!(message.contains("allow-subset"), count == 9_999, "{message}");
    }
}

#[test]
fn a_file_cut_inside_a_record_names_the_record_start() {
    let folder = Folder::new();
    let whole = batch(&[1, 2, 3], 0);
    for cut in (1..whole.len()).filter(|cut| cut % 3_073 != 0).step_by(131) {
        folder.write("cifar-10-batches-bin/test_batch.bin", &whole[..cut]);
        let error = folder.load(TEN, Split::Test, SUBSET).unwrap_err();
        let DataError::Corrupt { path, position, problem } = error else { panic!("cut {cut}: {error}") };
        assert_eq!(path, folder.path("cifar-10-batches-bin/test_batch.bin"));
        assert_eq!(position, Position::File((cut / 3_073 * 3_073) as u64), "cut {cut}");
        assert_eq!(problem, Problem::Truncated { needed: 3_073, left: (cut % 3_073) as u64 });
    }
}

#[test]
fn a_label_out_of_range_is_named_with_its_byte() {
    let folder = Folder::new();
    folder.write("cifar-10-batches-bin/test_batch.bin", &batch(&[9, 10, 0], 0));
    let error = folder.load(TEN, Split::Test, SUBSET).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("test_batch.bin") && message.contains("byte 3073"), "{message}");
    assert!(message.contains("label 10 is not in 0..=9"), "{message}");
}

#[test]
fn a_missing_set_says_where_it_looked_and_how_to_get_it() {
    let folder = Folder::new();
    let message = folder.load(TEN, Split::Test, SUBSET).unwrap_err().to_string();
    for part in [
        folder.path("cifar-10-batches-bin/test_batch.bin").to_str().unwrap(),
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

#[test]
fn cifar_100_gives_the_second_label_byte_and_coarse_labels_on_request() {
    let folder = Folder::new();
    let content = [record(&[19, 99], 1), record(&[3, 42], 2)].concat();
    folder.write("cifar-100-binary/train.bin", &content);
    let fine = folder.load(HUNDRED, Split::Train, SUBSET).unwrap();
    assert_eq!((fine.labels(), fine.classes()), ([99, 42].as_slice(), 100));
    assert_eq!(fine.image(1), &record(&[], 2)[..]);
    let root = DataFolder::new(folder.root());
    let coarse = load_cifar_100(Split::Train, &root, SUBSET, Cifar100Labels::Coarse).unwrap();
    assert_eq!((coarse.labels(), coarse.classes()), ([19, 3].as_slice(), 20));
    assert_eq!(coarse.pixels(), fine.pixels());
}

#[test]
fn both_label_bytes_of_cifar_100_are_checked_whichever_is_used() {
    let folder = Folder::new();
    let root = DataFolder::new(folder.root());
    for (labels, position, last) in [([20, 0], 3_074, 19), ([0, 100], 3_075, 99)] {
        folder.write("cifar-100-binary/test.bin", &[record(&[0, 0], 0), record(&labels, 0)].concat());
        for which in [Cifar100Labels::Fine, Cifar100Labels::Coarse] {
            let error = load_cifar_100(Split::Test, &root, SUBSET, which).unwrap_err();
            let DataError::Corrupt { position: at, problem, .. } = error else { panic!("{error}") };
            assert_eq!(at, Position::File(position));
            assert_eq!(problem, Problem::Label { found: last + 1, first: 0, last });
        }
    }
}
