//! SVHN's MATLAB files.

use datasets::{Completeness, DataError, DatasetName, Images, Position, Problem, Split};

use crate::mat_writer::{Order, Packing, Variable, compressed, file, header};
use crate::support::Folder;

const FILE: &str = "svhn/test_32x32.mat";
const PIXELS: usize = 3_072;

/// Pixel of image `n`, as the file's writer and the test's expectation both compute it.
fn value(n: usize, c: usize, h: usize, w: usize) -> u8 {
    u8::try_from((n * 101 + c * 59 + h * 7 + w * 3) % 256).unwrap()
}

fn x(count: usize) -> Variable {
    let mut data = vec![0; count * PIXELS];
    for (at, pixel) in data.iter_mut().enumerate() {
        *pixel = value(at / PIXELS, at / 1_024 % 3, at % 32, at / 32 % 32);
    }
    Variable::bytes("X", &[32, 32, 3, u32::try_from(count).unwrap()], data)
}

fn y(labels: &[u8]) -> Variable {
    Variable::bytes("y", &[u32::try_from(labels.len()).unwrap(), 1], labels.to_vec())
}

fn load(content: &[u8]) -> Result<Images, DataError> {
    let folder = Folder::new();
    folder.write(FILE, content);
    folder.load(DatasetName::Svhn, Split::Test, Completeness::Subset)
}

fn plain(variables: &[Variable]) -> Vec<u8> {
    file(Order::Little, Packing::Plain, variables)
}

fn flaw(content: &[u8]) -> (Position, Problem) {
    let error = load(content).unwrap_err();
    let DataError::Corrupt { position, problem, .. } = error else { panic!("{error}") };
    (position, problem)
}

#[test]
fn both_byte_orders_plain_and_compressed_give_the_images() {
    for order in [Order::Little, Order::Big] {
        for packing in [Packing::Plain, Packing::Compressed] {
            let images = load(&file(order, packing, &[x(3), y(&[10, 1, 9])])).unwrap();
            assert_eq!(images.labels(), [0, 1, 9], "{order:?} {packing:?}");
            for (at, &pixel) in images.pixels().iter().enumerate() {
                let expected = value(at / PIXELS, at / 1_024 % 3, at / 32 % 32, at % 32);
                assert_eq!(pixel, expected, "{order:?} {packing:?} pixel {at}");
            }
        }
    }
}

#[test]
fn labels_may_stand_before_images_and_other_variables_are_skipped() {
    let mut note = Variable::bytes("note", &[1, 2], vec![0; 4]);
    (note.class, note.data_kind) = (4, 4);
    let images = load(&plain(&[y(&[2]), note, x(1)])).unwrap();
    assert_eq!(images.labels(), [2]);
}

#[test]
fn the_file_may_stand_in_the_data_folder_itself() {
    let folder = Folder::new();
    folder.write("train_32x32.mat", &plain(&[x(1), y(&[5])]));
    let images = folder.load(DatasetName::Svhn, Split::Train, Completeness::Subset).unwrap();
    assert_eq!(images.labels(), [5]);
    let error = folder.load(DatasetName::Svhn, Split::Test, Completeness::Subset).unwrap_err();
    let message = error.to_string();
    let DataError::Missing { looked, .. } = error else { panic!("{error}") };
    assert_eq!(looked, [folder.path(FILE), folder.path("test_32x32.mat")]);
    assert!(message.contains("test_32x32.mat (MD5 eb5a983be6a315427106f1b164d9cef3)"), "{message}");
}

#[test]
fn fewer_images_than_official_need_a_subset() {
    let folder = Folder::new();
    folder.write(FILE, &plain(&[x(2), y(&[1, 2])]));
    let error = folder.load(DatasetName::Svhn, Split::Test, Completeness::Official).unwrap_err();
    assert!(matches!(error, DataError::Count { found: 2, expected: 26_032, .. }), "{error}");
}

#[test]
fn labels_that_are_wrong_are_named_with_their_place() {
    for bad in [0, 11] {
        let content = plain(&[x(2), y(&[1, bad])]);
        let at = content.len() as u64 - 4 + 1;
        let problem = Problem::Label { found: u32::from(bad), first: 1, last: 10 };
        // Two labels make a small element, which is the last of the file.
        assert_eq!(flaw(&content), (Position::File(at), problem));
    }
    let (_, problem) = flaw(&plain(&[x(2), y(&[1, 2, 3])]));
    assert_eq!(problem, Problem::Labels { images: 2, labels: 3 });
}

#[test]
fn a_place_in_compressed_data_is_given_with_the_part_that_holds_it() {
    let content = file(Order::Little, Packing::Compressed, &[y(&[1, 0]), x(2)]);
    let (position, _) = flaw(&content);
    // Flags 16, axes 16, name 8, tag of the data 4, one good label; before them the tag of the matrix.
    assert_eq!(position, Position::Inflated { part: 136, offset: 8 + 16 + 16 + 8 + 4 + 1 });
}

#[test]
fn arrays_of_another_kind_are_refused() {
    let mut double = x(1);
    double.class = 6;
    let (_, problem) = flaw(&plain(&[double, y(&[1])]));
    assert!(matches!(problem, Problem::Element { found: 6, .. }), "{problem}");

    let mut complex = x(1);
    complex.class = 0x0809;
    let (_, problem) = flaw(&plain(&[complex, y(&[1])]));
    assert!(matches!(problem, Problem::Element { .. }), "{problem}");

    let mut words = x(1);
    words.data_kind = 4;
    let (_, problem) = flaw(&plain(&[words, y(&[1])]));
    assert!(matches!(problem, Problem::Element { found: 4, .. }), "{problem}");

    let grey = Variable::bytes("X", &[32, 32, 2], vec![0; 2_048]);
    let (_, problem) = flaw(&plain(&[grey, y(&[1])]));
    assert_eq!(problem, Problem::Shape { found: vec![32, 32, 2], expected: "32×32×3×N" });
}

#[test]
fn variables_must_be_there_once() {
    assert_eq!(flaw(&plain(&[x(1)])).1, Problem::NoVariable { name: "y" });
    assert_eq!(flaw(&plain(&[y(&[1])])).1, Problem::NoVariable { name: "X" });
    assert_eq!(flaw(&plain(&[x(1), y(&[1]), x(1)])).1, Problem::RepeatedVariable { name: "X" });
    assert_eq!(flaw(&header(Order::Big)).1, Problem::NoVariable { name: "X" });
}

#[test]
fn files_of_another_format_are_named() {
    let mut hdf5 = plain(&[x(1), y(&[1])]);
    hdf5[124..126].copy_from_slice(&[0x00, 0x02]);
    assert_eq!(flaw(&hdf5), (Position::File(124), Problem::Version { found: 0x0200 }));
    let text = vec![b'a'; 200];
    assert_eq!(flaw(&text), (Position::File(126), Problem::ByteOrder { found: *b"aa" }));
}

#[test]
fn sizes_that_lie_are_refused_before_memory_is_taken() {
    for axes in [&[32, 32, 3, 1 << 30], &[u32::MAX; 4]] {
        let mut lying = x(1);
        lying.axes = axes.to_vec();
        let (_, problem) = flaw(&plain(&[lying, y(&[1])]));
        assert!(matches!(problem, Problem::TooLarge { .. }), "{problem}");
    }
    let mut more = x(2);
    more.axes[3] = 3;
    let (_, problem) = flaw(&plain(&[more, y(&[1, 1, 1])]));
    assert_eq!(problem, Problem::Truncated { needed: 3 * 3_072, left: 2 * 3_072 });

    // 300 MB of zeros, in some 300 kB: more than the official file could hold.
    let bomb = [header(Order::Little), compressed(Order::Little, &vec![0; 300 << 20])].concat();
    let (_, problem) = flaw(&bomb);
    assert!(matches!(problem, Problem::TooLarge { .. }), "{problem}");
}

#[test]
fn compressed_data_must_hold_one_variable_and_nothing_else() {
    let order = Order::Little;
    let variable = &plain(&[x(1)])[128..];
    let two = [header(order), compressed(order, &[variable, &[0; 8]].concat())].concat();
    let end = Position::Inflated { part: 136, offset: variable.len() as u64 };
    assert_eq!(flaw(&two), (end, Problem::Trailing { left: 8 }));

    let nested = [header(order), compressed(order, &compressed(order, variable))].concat();
    let start = Position::Inflated { part: 136, offset: 0 };
    assert_eq!(flaw(&nested), (start, Problem::Element { found: 15, expected: "miMATRIX (14)" }));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for packing in [Packing::Plain, Packing::Compressed] {
        let whole = file(Order::Little, packing, &[x(1), y(&[1])]);
        let step = if packing == Packing::Plain { 7 } else { 1 };
        for cut in (0..whole.len()).step_by(step) {
            let (_, problem) = flaw(&whole[..cut]);
            let accounted = match problem {
                Problem::Truncated { .. } => true,
                // A cut between two variables.
                Problem::NoVariable { .. } => cut >= 128,
                _ => false,
            };
            assert!(accounted, "{packing:?} cut {cut}: {problem}");
        }
    }
}

#[test]
fn a_changed_byte_of_a_compressed_file_never_changes_the_images() {
    let whole = file(Order::Little, Packing::Compressed, &[x(1), y(&[3])]);
    let reference = load(&whole).unwrap();
    for at in 0..whole.len() {
        for mask in [0x01, 0x10, 0xFF] {
            let mut changed = whole.clone();
            changed[at] ^= mask;
            match load(&changed) {
                // The first 124 bytes are free text.
                Ok(read) => assert!(at < 124 && read == reference, "byte {at} ^ {mask}"),
                Err(DataError::Corrupt { .. }) => assert!(at >= 124, "byte {at}"),
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_changed_byte_of_a_plain_file_never_panics() {
    let whole = plain(&[x(1), y(&[3])]);
    let tail = whole.len() - 96;
    for at in (124..240).chain(tail..whole.len()) {
        for mask in [0x01, 0x02, 0x10, 0x80, 0xFF] {
            let mut changed = whole.clone();
            changed[at] ^= mask;
            if let Ok(images) = load(&changed) {
                assert_eq!(images.len(), 1, "byte {at} ^ {mask}");
            }
        }
    }
}
