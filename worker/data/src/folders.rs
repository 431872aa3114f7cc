//! Data sets that are folders of pictures: notMNIST, Tiny-ImageNet and the textures of DTD.
//!
//! An image's id is its place in the official list: of notMNIST, all files by folder and name; of Tiny-ImageNet, the
//! training files by class and name, and the lines of `val_annotations.txt`; of DTD, the lines of its list.
//! Classes are numbered in the order of their names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::codec::{self, Undecodable};
use crate::error::{DataError, Flaw, Position, Problem};
use crate::images::Shape;
use crate::load::{Completeness, Loaded, Request};
use crate::name::{DatasetName, Split};
use crate::resize::{Raster, reshape};
use crate::source;

/// The largest file that is read: pictures of the sets are below 1 MB.
const LARGEST_FILE: u64 = 1 << 24;

/// A file and its class.
struct Entry {
    path: PathBuf,
    label: u8,
}

/// notMNIST: `notMNIST_small/A` to `J` (test) and `notMNIST_large/A` to `J` (training), 28×28 grey.
///
/// The release holds a few files that are no pictures; those are left out and counted.
pub(crate) fn load_not_mnist(request: Request<'_>) -> Result<Loaded, DataError> {
    let size = match request.split {
        Split::Train => "large",
        Split::Test => "small",
    };
    let root = request.folder.root().join(format!("notMNIST_{size}"));
    let folders: Vec<PathBuf> = ('A'..='J').map(|letter| root.join(letter.to_string())).collect();
    let absent: Vec<PathBuf> = folders.iter().filter(|folder| !folder.is_dir()).cloned().collect();
    refuse_absent(request, absent, folders.len())?;
    let mut entries = Vec::new();
    for (folder, label) in folders.iter().zip(0..).filter(|(folder, _)| folder.is_dir()) {
        let files = files(folder, &["png"])?;
        entries.extend(files.into_iter().map(|path| Entry { path, label }));
    }
    let shape = request.name.shape();
    let mut parts = Parts::default();
    for (entry, id) in entries.into_iter().zip(0..) {
        match codec::png(&source::read(&entry.path, LARGEST_FILE)?) {
            Ok(raster) => parts.push(exact(raster.with_channels(1), shape, &entry.path)?, entry.label, id),
            Err(_) => parts.skipped.push(entry.path),
        }
    }
    request.check_count(&root, parts.labels.len() as u64, request.name.official_len(request.split) as u64)?;
    Ok(parts.finish(request))
}

/// Tiny-ImageNet: `train/nXXXXXXXX/images/*.JPEG`, `val/images/*.JPEG` with `val_annotations.txt`, and `wnids.txt`.
pub(crate) fn load_tiny_imagenet(request: Request<'_>) -> Result<Loaded, DataError> {
    let root = request.folder.root().join("tiny-imagenet-200");
    let list = root.join("wnids.txt");
    refuse_absent(request, Vec::from_iter((!list.is_file()).then(|| list.clone())), 1)?;
    let text = read_text(&list)?;
    let mut classes: Vec<&str> = text.split_whitespace().collect();
    classes.sort_unstable();
    let entries = match request.split {
        Split::Train => tiny_training(request, &root, &classes)?,
        Split::Test => tiny_validation(request, &root, &classes)?,
    };
    let shape = request.name.shape();
    pictures(request, &root, entries, |raster, path| exact(raster.with_channels(3), shape, path))
}

fn tiny_training(request: Request<'_>, root: &Path, classes: &[&str]) -> Result<Vec<Entry>, DataError> {
    let folders: Vec<PathBuf> =
        classes.iter().map(|class| root.join("train").join(class).join("images")).collect();
    let absent: Vec<PathBuf> = folders.iter().filter(|folder| !folder.is_dir()).cloned().collect();
    refuse_absent(request, absent, folders.len())?;
    let mut entries = Vec::new();
    for (folder, label) in folders.iter().zip(0..).filter(|(folder, _)| folder.is_dir()) {
        let files = files(folder, &["JPEG"])?;
        entries.extend(files.into_iter().map(|path| Entry { path, label }));
    }
    Ok(entries)
}

fn tiny_validation(request: Request<'_>, root: &Path, classes: &[&str]) -> Result<Vec<Entry>, DataError> {
    let list = root.join("val/val_annotations.txt");
    refuse_absent(request, Vec::from_iter((!list.is_file()).then(|| list.clone())), 1)?;
    let text = read_text(&list)?;
    let entry = |(line, number): (&str, u64)| {
        let mut fields = line.split('\t');
        let (file, class) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let label = classes.binary_search(&class).ok().and_then(|label| u8::try_from(label).ok());
        match label.filter(|_| is_plain(file)) {
            Some(label) => Ok(Entry { path: root.join("val/images").join(file), label }),
            None => Err(list_flaw(number, "a file, a tab and a class of `wnids.txt`").of(&list)),
        }
    };
    text.lines().zip(1..).map(entry).collect()
}

/// DTD, first division: `images/<class>/*.jpg` with `labels/train1.txt` and `labels/test1.txt`.
///
/// Pictures of many sizes are cut to `shape`: their shorter side becomes its side, and the middle is kept. Without a
/// shape the side is 224 out of 256, as ImageNet's pictures are usually cut.
pub(crate) fn load_textures(request: Request<'_>, shape: Option<Shape>) -> Result<Loaded, DataError> {
    let root = request.folder.root().join("dtd");
    let list = root.join(format!("labels/{}1.txt", request.split));
    let images = root.join("images");
    let absent: Vec<PathBuf> = [&list, &images].into_iter().filter(|path| !path.exists()).cloned().collect();
    if !absent.is_empty() {
        return Err(request.missing(absent));
    }
    let mut classes: Vec<String> =
        names(&images)?.into_iter().filter(|name| images.join(name).is_dir()).collect();
    classes.sort_unstable();
    let text = read_text(&list)?;
    let entry = |(line, number): (&str, u64)| {
        let parts = line.split_once('/').filter(|(class, file)| is_plain(class) && is_plain(file));
        let label =
            parts.and_then(|(class, _)| classes.binary_search_by(|name| name.as_str().cmp(class)).ok());
        match label.and_then(|label| u8::try_from(label).ok()) {
            Some(label) if usize::from(label) < request.name.classes() => {
                Ok(Entry { path: images.join(line), label })
            }
            Some(_) | None => Err(list_flaw(number, "a class folder, a slash and a file").of(&list)),
        }
    };
    let entries = text.lines().zip(1..).map(entry).collect::<Result<Vec<_>, _>>()?;
    let (cut, shorter) = match shape {
        Some(shape) => (shape, shape.width),
        None => (request.name.shape(), 256),
    };
    let loaded = pictures(request, &root, entries, |raster, _| {
        Ok(raster.with_channels(cut.channels).covering(cut.width, shorter))
    })?;
    Ok(loaded)
}

/// Decodes every entry as JPEG; one that cannot be is an error.
fn pictures(
    request: Request<'_>,
    root: &Path,
    entries: Vec<Entry>,
    fit: impl Fn(Raster, &Path) -> Result<Raster, DataError>,
) -> Result<Loaded, DataError> {
    request.check_count(root, entries.len() as u64, request.name.official_len(request.split) as u64)?;
    let mut parts = Parts::default();
    for (Entry { path, label }, id) in entries.into_iter().zip(0..) {
        let raster =
            codec::jpeg(&source::read(&path, LARGEST_FILE)?).map_err(|error| undecodable(error, &path))?;
        parts.push(fit(raster, &path)?, label, id);
    }
    Ok(parts.finish(request))
}

#[derive(Default)]
struct Parts {
    shape: Option<Shape>,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    ids: Vec<u32>,
    skipped: Vec<PathBuf>,
}

impl Parts {
    fn push(&mut self, raster: Raster, label: u8, id: u32) {
        self.shape = Some(Shape { channels: raster.channels, height: raster.height, width: raster.width });
        raster.append_planes(&mut self.pixels);
        self.labels.push(label);
        self.ids.push(id);
    }

    fn finish(self, request: Request<'_>) -> Loaded {
        let shape = self.shape.unwrap_or_else(|| request.name.shape());
        let images = request.images_of(shape, self.pixels, self.labels, self.ids);
        Loaded { images, skipped: self.skipped }
    }
}

/// A set whose parts are all absent is missing; of an official one, none may be.
fn refuse_absent(request: Request<'_>, absent: Vec<PathBuf>, parts: usize) -> Result<(), DataError> {
    let missing = match request.completeness {
        Completeness::Official => !absent.is_empty(),
        Completeness::Subset => absent.len() == parts,
    };
    if missing { Err(request.missing(absent)) } else { Ok(()) }
}

fn exact(raster: Raster, shape: Shape, path: &Path) -> Result<Raster, DataError> {
    let found = [raster.channels, raster.height, raster.width];
    if found == [shape.channels, shape.height, shape.width] {
        return Ok(raster);
    }
    let expected = match shape.width {
        28 => "1×28×28",
        _ => "3×64×64",
    };
    let found = found.iter().map(|&axis| axis as u64).collect();
    Err(Flaw::at(Position::File(0), Problem::Shape { found, expected }).of(path))
}

fn undecodable(error: Undecodable, path: &Path) -> DataError {
    Flaw::at(Position::File(0), Problem::Picture { detail: error.0 }).of(path)
}

fn list_flaw(line: u64, expected: &'static str) -> Flaw {
    Flaw::at(Position::File(0), Problem::List { line, expected })
}

/// Whether a name from a list stays within its folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != ".." && name != "." && !name.contains(['/', '\\', '\0'])
}

fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = source::read(path, LARGEST_FILE)?;
    String::from_utf8(bytes).map_err(|_| list_flaw(1, "text").of(path))
}

fn names(folder: &Path) -> Result<Vec<String>, DataError> {
    let failed = |source| DataError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        // Names of the sets are ASCII; what is not is no file of theirs.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Files with one of these endings, by name.
fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, DataError> {
    let mut names = names(folder)?;
    names.retain(|name| name.rsplit_once('.').is_some_and(|(_, ending)| endings.contains(&ending)));
    names.sort_unstable();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Any set in another shape; textures straight from their files.
pub(crate) fn load_in_shape(request: Request<'_>, shape: Shape) -> Result<Loaded, DataError> {
    if request.name == DatasetName::Textures {
        return load_textures(request, Some(shape));
    }
    let Loaded { images, skipped } = crate::load::load_request(request)?;
    let max_value = images.max_value().ok_or(DataError::NotImages { name: request.name })?;
    let images = if images.shape() == shape { images } else { reshape(&images, max_value, shape) };
    Ok(Loaded { images, skipped })
}
