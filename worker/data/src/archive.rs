//! What is published of each data set: archives, where they are, their digests, and where they are unpacked.
//!
//! Sources: digests of CIFAR, SVHN, MNIST, Fashion-MNIST and DTD as in torchvision 0.26, of CIFAR-10-C, CIFAR-100-C and
//! notMNIST as in torch-uncertainty 0.13, of Tiny-ImageNet as in Avalanche. Nothing is downloaded here.

use crate::name::DatasetName;

/// A file that the owners of a data set publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// Its name.
    pub file: &'static str,
    /// The address of the folder that it is published in, with the slash at its end.
    pub base: &'static str,
    /// Its MD5, as published or as the libraries named above check it.
    pub md5: &'static str,
    /// What becomes of it below the data folder.
    pub place: Place,
}

/// What becomes of an archive below the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is read as it is, from this folder.
    Kept(&'static str),
    /// It is unpacked, and brings this folder.
    Unpacked(&'static str),
}

const CIFAR: &str = "https://www.cs.toronto.edu/~kriz/";
const SVHN: &str = "http://ufldl.stanford.edu/housenumbers/";
// The owner's server refuses downloads; this copy is the one that torchvision asks first.
const MNIST: &str = "https://ossci-datasets.s3.amazonaws.com/mnist/";
// The owner's server is gone; this copy is the one that torch-uncertainty reads.
const NOT_MNIST: &str = "https://zenodo.org/records/8274268/files/";
const FASHION: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";

const CIFAR_10: [Archive; 1] =
    [unpacked(CIFAR, "cifar-10-batches-bin", "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")];
const CIFAR_100: [Archive; 1] =
    [unpacked(CIFAR, "cifar-100-binary", "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")];
const SVHN_FILES: [Archive; 2] = [
    kept(SVHN, "svhn", "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    kept(SVHN, "svhn", "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
];
const MNIST_FILES: [Archive; 4] = idx(
    MNIST,
    "mnist",
    [
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ],
);
const FASHION_FILES: [Archive; 4] = idx(
    FASHION,
    "fashion-mnist",
    [
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ],
);
const NOT_MNIST_FILES: [Archive; 2] = [
    unpacked(NOT_MNIST, "notMNIST_small", "notMNIST_small.zip", "3de91fb69221d9c2d5c57387101ebc6c"),
    unpacked(NOT_MNIST, "notMNIST_large", "notMNIST_large.zip", "c3f9e0862df000a897766593044e366a"),
];
const TINY_IMAGENET: [Archive; 1] = [unpacked(
    "http://cs231n.stanford.edu/",
    "tiny-imagenet-200",
    "tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
)];
const DTD: [Archive; 1] = [unpacked(
    "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
    "dtd",
    "dtd-r1.0.1.tar.gz",
    "fff73e5086ae6bdbea199a49dfb8a4c1",
)];
const CIFAR_10_C: Archive = unpacked(
    "https://zenodo.org/records/2535967/files/",
    "CIFAR-10-C",
    "CIFAR-10-C.tar",
    "56bf5dcef84df0e2308c6dcbcbbd8499",
);
const CIFAR_100_C: Archive = unpacked(
    "https://zenodo.org/records/3555552/files/",
    "CIFAR-100-C",
    "CIFAR-100-C.tar",
    "11f0ed0f1191edbf9fa23466ae6021d3",
);

pub(crate) fn of(name: DatasetName) -> &'static [Archive] {
    match name {
        DatasetName::Digits | DatasetName::TwoMoons | DatasetName::Cubic => &[],
        DatasetName::Cifar10 => &CIFAR_10,
        DatasetName::Cifar100 => &CIFAR_100,
        DatasetName::Svhn => &SVHN_FILES,
        DatasetName::Mnist => &MNIST_FILES,
        DatasetName::FashionMnist => &FASHION_FILES,
        DatasetName::NotMnist => &NOT_MNIST_FILES,
        DatasetName::TinyImageNet => &TINY_IMAGENET,
        DatasetName::Textures => &DTD,
    }
}

/// The corrupted test images of a data set, where they are published.
pub(crate) fn of_corrupted(name: DatasetName) -> Option<&'static Archive> {
    match name {
        DatasetName::Cifar10 => Some(&CIFAR_10_C),
        DatasetName::Cifar100 => Some(&CIFAR_100_C),
        DatasetName::Digits
        | DatasetName::Svhn
        | DatasetName::Mnist
        | DatasetName::FashionMnist
        | DatasetName::NotMnist
        | DatasetName::TinyImageNet
        | DatasetName::Textures
        | DatasetName::TwoMoons
        | DatasetName::Cubic => None,
    }
}

const fn kept(base: &'static str, folder: &'static str, file: &'static str, md5: &'static str) -> Archive {
    Archive { file, base, md5, place: Place::Kept(folder) }
}

const fn unpacked(
    base: &'static str,
    folder: &'static str,
    file: &'static str,
    md5: &'static str,
) -> Archive {
    Archive { file, base, md5, place: Place::Unpacked(folder) }
}

const fn idx(base: &'static str, folder: &'static str, md5: [&'static str; 4]) -> [Archive; 4] {
    [
        kept(base, folder, "train-images-idx3-ubyte.gz", md5[0]),
        kept(base, folder, "train-labels-idx1-ubyte.gz", md5[1]),
        kept(base, folder, "t10k-images-idx3-ubyte.gz", md5[2]),
        kept(base, folder, "t10k-labels-idx1-ubyte.gz", md5[3]),
    ]
}
