//! What can be listed, checked and fetched: data sets, and the corrupted test images of two of them.

use common::suggest;
use datasets::{Archive, CorruptedFiles, Corruption, DatasetName, Split};

use crate::error::Failure;

/// A data set, or the published corruptions of its test images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The set itself.
    Set(DatasetName),
    /// CIFAR-10-C or CIFAR-100-C.
    Corrupted(DatasetName),
}

impl Source {
    /// Everything, sets first.
    pub const ALL: [Self; DatasetName::ALL.len() + 2] = {
        let corrupted = Self::Corrupted(DatasetName::Cifar10);
        let mut all = [corrupted; DatasetName::ALL.len() + 2];
        let mut at = 0;
        while at < DatasetName::ALL.len() {
            all[at] = Self::Set(DatasetName::ALL[at]);
            at += 1;
        }
        all[at + 1] = Self::Corrupted(DatasetName::Cifar100);
        all
    };

    /// The set whose images these are.
    pub fn set(self) -> DatasetName {
        match self {
            Self::Set(set) | Self::Corrupted(set) => set,
        }
    }

    /// The name that users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set(set) => set.as_str(),
            Self::Corrupted(DatasetName::Cifar100) => "cifar-100-c",
            Self::Corrupted(_) => "cifar-10-c",
        }
    }

    /// The source that a user named.
    pub fn named(given: &str) -> Result<Self, Failure> {
        let names = Self::ALL.map(Self::name);
        let known = Self::ALL.into_iter().find(|source| source.name() == given);
        known.ok_or_else(|| {
            Failure::NotFound(format!("no data set is named `{given}`: {}", suggest::hint(given, names)))
        })
    }

    /// What its owners publish.
    pub fn archives(self) -> &'static [Archive] {
        match self {
            Self::Set(set) => set.archives(),
            Self::Corrupted(set) => {
                CorruptedFiles::archive(set).map(std::slice::from_ref).unwrap_or_default()
            }
        }
    }

    /// Its folder below the data folder.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Set(set) => set.folder(),
            Self::Corrupted(set) => CorruptedFiles::folder(set),
        }
    }

    /// Images to train on, if there are any.
    pub fn train_images(self) -> Option<usize> {
        match self {
            Self::Set(set) => Some(set.official_len(Split::Train)),
            Self::Corrupted(_) => None,
        }
    }

    /// Images to test on; of corruptions, all of them at five severities.
    pub fn test_images(self) -> usize {
        let images = self.set().official_len(Split::Test);
        match self {
            Self::Set(_) => images,
            Self::Corrupted(_) => images * Corruption::ALL.len() * 5,
        }
    }

    /// What its owners say about use.
    pub fn licence(self) -> &'static str {
        match self {
            Self::Set(set) => set.licence(),
            Self::Corrupted(_) => "CC BY 4.0",
        }
    }

    /// Where it is described.
    pub fn homepage(self) -> &'static str {
        match self {
            Self::Set(set) => set.homepage(),
            Self::Corrupted(_) => "https://github.com/hendrycks/robustness",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_found_by_its_name() {
        for source in Source::ALL {
            assert_eq!(Source::named(source.name()).ok(), Some(source));
        }
        let failure = Source::named("cifar10").unwrap_err().to_string();
        assert!(failure.contains("did you mean `cifar-10`"), "{failure}");
    }
}
