//! `credence data check`: whether the files of data sets are there, whole, and the published ones.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use datasets::{
    Archive, Completeness, CorruptedFiles, Corruption, DataError, DataFolder, DatasetName, Loaded, Place,
    Severity, Split, load, load_reported,
};

use super::download::md5_of;
use super::source::Source;
use crate::args::CheckArguments;
use crate::error::Failure;
use crate::out;

pub fn run(arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let wrong = report(arguments, out::line)?;
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Says a line for each part, and returns whether something is wrong.
fn report(arguments: &CheckArguments, say: impl Fn(&str) -> Result<(), Failure>) -> Result<bool, Failure> {
    fs::read_dir(&arguments.path).map_err(|source| Failure::File { path: arguments.path.clone(), source })?;
    let named = !arguments.names.is_empty();
    let sources = match arguments.names.as_slice() {
        [] => Source::ALL.to_vec(),
        names => names.iter().map(|name| Source::named(name)).collect::<Result<_, _>>()?,
    };
    let mut wrong = false;
    for source in sources {
        for (part, state) in check(source, &arguments.path) {
            // What nobody asked for need not be there.
            wrong |= match state {
                State::Well(_) => false,
                State::Absent(_) => named,
                State::Wrong(_) => true,
            };
            say(&format!("{:14} {part:28} {state}", source.name()))?;
        }
    }
    Ok(wrong)
}

/// What was found of one part of a set.
#[derive(Debug, PartialEq)]
enum State {
    /// All is as published, in words.
    Well(String),
    /// Nothing is there; where it would be.
    Absent(String),
    /// What is wrong.
    Wrong(String),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Well(what) => write!(f, "ok      {what}"),
            Self::Absent(what) => write!(f, "absent  {what}"),
            Self::Wrong(what) => write!(f, "WRONG   {what}"),
        }
    }
}

impl State {
    fn of(error: DataError) -> Self {
        match &error {
            DataError::Missing { looked, .. } => {
                let first = looked.first().map(|path| path.display().to_string()).unwrap_or_default();
                Self::Absent(format!("no `{first}`"))
            }
            DataError::NoCorruption { path } => Self::Absent(format!("no `{}`", path.display())),
            DataError::Read { .. }
            | DataError::Corrupt { .. }
            | DataError::Count { .. }
            | DataError::NotImages { .. }
            | DataError::NoSuchShape { .. }
            | DataError::NoCorruptedFiles { .. } => Self::Wrong(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

/// Parts of a source with their states, in the order of its files.
fn check(source: Source, path: &Path) -> Vec<(String, State)> {
    let folder = DataFolder::new(path);
    let mut states: Vec<(String, State)> =
        source.archives().iter().filter_map(|archive| published(archive, path)).collect();
    match source {
        Source::Set(set) => {
            for split in [Split::Train, Split::Test] {
                states.push((format!("{split} images"), images(set, split, &folder)));
            }
        }
        Source::Corrupted(set) => states.extend(corrupted(set, &folder)),
    }
    states
}

/// The digest of a published file that is read as it is, when it is there.
fn published(archive: &Archive, path: &Path) -> Option<(String, State)> {
    let Place::Kept(folder) = archive.place else { return None };
    let file = path.join(folder).join(archive.file);
    let state = match file.is_file().then(|| md5_of(&file))? {
        Ok(found) if found == archive.md5 => State::Well(format!("MD5 {found}")),
        Ok(found) => State::Wrong(format!("MD5 {found}, published is {}", archive.md5)),
        Err(error) => State::Wrong(error.to_string()),
    };
    Some((archive.file.to_owned(), state))
}

fn images(set: DatasetName, split: Split, folder: &DataFolder) -> State {
    match load_reported(set, split, folder, Completeness::Official) {
        Ok(Loaded { images, skipped }) => {
            let left_out = match skipped.len() {
                0 => String::new(),
                count => format!(", {count} files that are no pictures left out"),
            };
            State::Well(format!("{} images of {}{left_out}", images.len(), images.shape()))
        }
        Err(error) => State::of(error),
    }
}

fn corrupted(set: DatasetName, folder: &DataFolder) -> Vec<(String, State)> {
    let opened = load(set, Split::Test, folder, Completeness::Official)
        .and_then(|test| CorruptedFiles::open(set, folder, &test).map(|files| (files, test)));
    let (files, test) = match opened {
        Ok(opened) => opened,
        Err(error) => return vec![("labels".to_owned(), State::of(error))],
    };
    let last = test.select(&[test.len() - 1]);
    let state = |corruption: Corruption| {
        // The header and the size of a file are checked whichever row is read.
        let rows = Severity::ALL.map(|severity| files.read(corruption, severity, &last));
        match rows.into_iter().find_map(Result::err) {
            None => State::Well("five severities".to_owned()),
            Some(error) => State::of(error),
        }
    };
    Corruption::ALL.into_iter().map(|corruption| (corruption.to_string(), state(corruption))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_absent_wrong_or_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(
            check(Source::Set(DatasetName::Digits), path).iter().all(|(_, s)| matches!(s, State::Well(_)))
        );
        let states = |source| check(source, path).into_iter().map(|(_, state)| state).collect::<Vec<_>>();
        let cifar = Source::Set(DatasetName::Cifar10);
        assert!(matches!(states(cifar)[..], [State::Absent(_), State::Absent(_)]));
        assert!(matches!(states(Source::Corrupted(DatasetName::Cifar10))[..], [State::Absent(_)]));

        fs::create_dir_all(path.join("cifar-10-batches-bin")).unwrap();
        fs::write(path.join("cifar-10-batches-bin/test_batch.bin"), [0; 100]).unwrap();
        assert!(matches!(states(cifar)[..], [State::Absent(_), State::Wrong(_)]));

        fs::create_dir_all(path.join("svhn")).unwrap();
        fs::write(path.join("svhn/test_32x32.mat"), b"another file").unwrap();
        let svhn = states(Source::Set(DatasetName::Svhn));
        assert!(matches!(svhn[..], [State::Wrong(_), State::Absent(_), State::Wrong(_)]), "{svhn:?}");
        assert!(svhn[0].to_string().contains("eb5a983be6a315427106f1b164d9cef3"), "{}", svhn[0]);
    }

    #[test]
    fn what_was_named_has_to_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = |names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            report(&CheckArguments { path: folder.path().to_owned(), names }, |_| Ok(()))
        };
        assert!(!wrong(&[]).unwrap());
        assert!(!wrong(&["digits", "two-moons"]).unwrap());
        assert!(wrong(&["digits", "mnist"]).unwrap());
        assert!(matches!(wrong(&["mnits"]), Err(Failure::NotFound(_))));
    }
}
