//! notMNIST, Tiny-ImageNet and textures in their official layouts, of few pictures.

use std::io::Read;

use datasets::{
    Completeness, DataError, DataFolder, DatasetName, Loaded, Problem, Shape, Split, load_reported,
    load_resized,
};
use flate2::read::GzDecoder;

use crate::support::Folder;

const TEXTURE: &[u8] = include_bytes!("../../fixtures/texture.jpg");

fn grey_png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    file
}

/// A JPEG of one colour, which survives compression.
fn plain_jpeg(side: u16, colour: [u8; 3]) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut file, 95);
    let pixels = colour.repeat(usize::from(side) * usize::from(side));
    encoder.encode(&pixels, side, side, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

fn loaded(folder: &Folder, name: DatasetName, split: Split) -> Result<Loaded, DataError> {
    load_reported(name, split, &DataFolder::new(folder.root()), Completeness::Subset)
}

fn letters() -> Folder {
    let folder = Folder::new();
    folder.write("notMNIST_small/A/b.png", &grey_png(28, 28, &[1; 784]));
    folder.write("notMNIST_small/A/a.png", b"");
    folder.write("notMNIST_small/A/c.png", b"not a picture");
    folder.write("notMNIST_small/A/readme.txt", b"no picture by its name");
    folder.write("notMNIST_small/J/z.png", &grey_png(28, 28, &[9; 784]));
    folder
}

#[test]
fn letters_that_cannot_be_decoded_are_left_out_counted_and_keep_their_ids() {
    let folder = letters();
    let Loaded { images, skipped } = loaded(&folder, DatasetName::NotMnist, Split::Test).unwrap();
    assert_eq!((images.labels(), images.ids()), (&[0, 9][..], &[1, 3][..]));
    assert_eq!((images.image(0)[0], images.image(1)[783]), (1, 9));
    assert_eq!(skipped, ["a.png", "c.png"].map(|file| folder.path(&format!("notMNIST_small/A/{file}"))));
}

#[test]
fn the_official_set_of_letters_has_every_class_and_the_known_number_of_pictures() {
    let folder = letters();
    let official = |folder: &Folder| {
        load_reported(
            DatasetName::NotMnist,
            Split::Test,
            &DataFolder::new(folder.root()),
            Completeness::Official,
        )
    };
    let message = official(&folder).unwrap_err().to_string();
    assert!(message.contains("notMNIST_small/B") && !message.contains("small/A`"), "{message}");
    for letter in 'B'..='I' {
        folder.write(&format!("notMNIST_small/{letter}/x.png"), &grey_png(28, 28, &[0; 784]));
    }
    let error = official(&folder).unwrap_err();
    assert!(matches!(error, DataError::Count { found: 10, expected: 18_724, .. }), "{error}");
    assert!(
        loaded(&folder, DatasetName::NotMnist, Split::Train)
            .unwrap_err()
            .to_string()
            .contains("notMNIST_large")
    );
}

#[test]
fn a_letter_of_another_size_is_no_part_of_the_set() {
    let folder = letters();
    folder.write("notMNIST_small/C/x.png", &grey_png(27, 28, &[0; 756]));
    let error = loaded(&folder, DatasetName::NotMnist, Split::Test).unwrap_err();
    let DataError::Corrupt { problem: Problem::Shape { found, .. }, .. } = error else { panic!("{error}") };
    assert_eq!(found, [1, 28, 27]);
}

fn tiny() -> Folder {
    let folder = Folder::new();
    // The official list is not sorted; classes are numbered by name.
    folder.write("tiny-imagenet-200/wnids.txt", b"n02\nn01\n");
    folder.write("tiny-imagenet-200/train/n01/images/n01_0.JPEG", &plain_jpeg(64, [200, 30, 30]));
    folder.write("tiny-imagenet-200/train/n02/images/n02_1.JPEG", &plain_jpeg(64, [10, 250, 10]));
    folder.write("tiny-imagenet-200/train/n02/images/n02_0.JPEG", &plain_jpeg(64, [0, 0, 255]));
    folder.write(
        "tiny-imagenet-200/val/val_annotations.txt",
        b"val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n",
    );
    folder.write("tiny-imagenet-200/val/images/val_0.JPEG", &plain_jpeg(64, [50, 60, 70]));
    folder.write("tiny-imagenet-200/val/images/val_1.JPEG", &plain_jpeg(64, [90, 90, 90]));
    folder
}

#[test]
fn tiny_imagenet_is_read_by_class_and_by_annotation() {
    let folder = tiny();
    let train = loaded(&folder, DatasetName::TinyImageNet, Split::Train).unwrap().images;
    assert_eq!((train.labels(), train.ids()), (&[0, 1, 1][..], &[0, 1, 2][..]));
    let test = loaded(&folder, DatasetName::TinyImageNet, Split::Test).unwrap().images;
    assert_eq!(test.labels(), [1, 0]);
    let first: Vec<u8> = (0..3).map(|channel| test.image(0)[channel * 4096]).collect();
    assert!(first.iter().zip([50, 60, 70]).all(|(a, b): (&u8, u8)| a.abs_diff(b) <= 2), "{first:?}");
}

#[test]
fn lists_that_name_unknown_classes_or_leave_their_folder_are_refused() {
    for line in ["val_0.JPEG\tn03\t0", "../../secret.JPEG\tn01\t0", "val_0.JPEG"] {
        let folder = tiny();
        folder.write("tiny-imagenet-200/val/val_annotations.txt", line.as_bytes());
        let error = loaded(&folder, DatasetName::TinyImageNet, Split::Test).unwrap_err();
        assert!(
            matches!(error, DataError::Corrupt { problem: Problem::List { line: 1, .. }, .. }),
            "{error}"
        );
    }
    let folder = tiny();
    folder.write("tiny-imagenet-200/val/images/val_1.JPEG", &plain_jpeg(64, [1, 2, 3])[..200]);
    let error = loaded(&folder, DatasetName::TinyImageNet, Split::Test).unwrap_err();
    assert!(matches!(error, DataError::Corrupt { problem: Problem::Picture { .. }, .. }), "{error}");
}

fn textures() -> Folder {
    let folder = Folder::new();
    folder.write("dtd/labels/test1.txt", b"woven/woven_1.jpg\nbanded/banded_2.jpg\n");
    folder.write("dtd/images/woven/woven_1.jpg", TEXTURE);
    folder.write("dtd/images/banded/banded_2.jpg", include_bytes!("../../fixtures/grey.jpg"));
    folder
}

fn golden() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    GzDecoder::new(&include_bytes!("../../fixtures/decoded.gz")[..]).read_to_end(&mut bytes).unwrap();
    let cut = bytes.split_off(45 * 60 * 4);
    let grey = bytes.split_off(45 * 60 * 3);
    (bytes, grey, cut)
}

/// `fixtures/decoded.gz`: `fixtures/make_golden_pictures.py`.
#[test]
fn textures_are_cut_to_the_shape_as_pillow_and_torchvision_do_it() {
    let shape = Shape { channels: 3, height: 16, width: 16 };
    let folder = textures();
    let data = DataFolder::new(folder.root());
    let Loaded { images, .. } =
        load_resized(DatasetName::Textures, Split::Test, &data, Completeness::Subset, shape).unwrap();
    assert_eq!((images.labels(), images.ids(), images.shape()), (&[1, 0][..], &[0, 1][..], shape));
    let (_, _, cut) = golden();
    let planes: Vec<u8> =
        (0..3).flat_map(|c| cut.iter().skip(c).step_by(3).copied().collect::<Vec<_>>()).collect();
    let largest = images.image(0).iter().zip(&planes).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    // Resizing is exact (a test of `resize` holds it); decoders of JPEG differ by a few levels before it.
    assert!(largest <= 2, "{largest}");
    let grey = images.image(1);
    assert!(grey[..256] == grey[256..512] && grey[..256] == grey[512..], "grey is repeated");
}

#[test]
fn sets_of_another_shape_are_converted_and_resized_on_request_alone() {
    let folder = letters();
    let data = DataFolder::new(folder.root());
    let resized =
        |shape| load_resized(DatasetName::NotMnist, Split::Test, &data, Completeness::Subset, shape);
    let Loaded { images, skipped } = resized(Shape { channels: 3, height: 32, width: 32 }).unwrap();
    assert_eq!((images.image(1)[0], images.image(1)[3071], skipped.len()), (9, 9, 2));
    let oblong = Shape { channels: 3, height: 32, width: 16 };
    assert!(matches!(resized(oblong), Err(DataError::NoSuchShape { .. })));
    let points = load_resized(
        DatasetName::TwoMoons,
        Split::Test,
        &data,
        Completeness::Official,
        Shape { channels: 1, height: 28, width: 28 },
    );
    assert!(matches!(points, Err(DataError::NotImages { .. })));
}
